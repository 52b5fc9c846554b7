"""Workers that do what they are told, for tests of executors. Payloads are tuples (verb, value)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from edgesweep.engine.runtime import check_granted, parent_alive


class Unmendable(Exception):
    stops_run = True


class Refusal(Unmendable):
    is_refusal = True


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("has a constructor that pickle cannot call")
        self.lock = open(os.devnull)  # noqa: SIM115  (an open file does not pickle)


def _echo(value: Any, attempt: int) -> dict[str, Any]:
    return {"value": value, "attempt": attempt, "pid": os.getpid()}


def _sleep(value: float, attempt: int) -> dict[str, Any]:
    time.sleep(value)
    return _echo(value, attempt)


def _freeze(value: int, attempt: int) -> dict[str, Any]:
    if attempt <= value:
        os.kill(os.getpid(), signal.SIGSTOP)
    return _echo(value, attempt)


def _wait(value: str, attempt: int) -> dict[str, Any]:
    """Until a file is there."""
    while not Path(value).exists():
        time.sleep(0.02)
    return _echo(value, attempt)


def _meet(value: tuple[str, int], attempt: int) -> dict[str, Any]:
    """Until so many actors have come."""
    folder, n = Path(value[0]), value[1]
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < n:
        time.sleep(0.02)
    return _echo(None, attempt)


def _raise(value: str, attempt: int) -> dict[str, Any]:
    raise ValueError(f"{value}\nsecond line")


def _raise_until(value: int, attempt: int) -> dict[str, Any]:
    if attempt < value:
        raise ValueError(f"attempt {attempt}")
    return _echo(value, attempt)


def _die(value: Any, attempt: int) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _exit(value: int, attempt: int) -> dict[str, Any]:
    raise SystemExit(value)


def _die_until(value: int, attempt: int) -> dict[str, Any]:
    return _die(value, attempt) if attempt < value else _echo(value, attempt)


def _stop(value: str, attempt: int) -> dict[str, Any]:
    raise Unmendable(value)


def _refuse(value: str, attempt: int) -> dict[str, Any]:
    raise Refusal(value)


def _unpicklable(value: Any, attempt: int) -> dict[str, Any]:
    raise Unpicklable(1, 2)


def _big(value: int, attempt: int) -> dict[str, Any]:
    return {"scores": b"x" * value}


def _note(value: tuple[str, float], attempt: int) -> dict[str, Any]:
    """Writes a line when it begins and one when it ends, if its parent lives."""
    path, seconds = value
    with open(path, "a") as file:
        file.write(f"begin {os.getpid()}\n")
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write(f"{'end' if parent_alive() else 'orphan'} {os.getpid()}\n")
    return _echo(None, attempt)


def _environment(value: str, attempt: int) -> dict[str, Any]:
    return _echo(os.environ.get(value), attempt)


def _blind(value: str, attempt: int) -> dict[str, Any]:
    """Raises on one node."""
    if node() == value:
        raise FileNotFoundError("no run folder here")
    time.sleep(0.05)
    return _echo(node(), attempt)


def _write(value: tuple[str, float], attempt: int) -> dict[str, Any]:
    """Sleeps at its first attempt, then asks, then adds a line to a file."""
    path, seconds = value
    if attempt == 1:
        time.sleep(seconds)
    check_granted()
    with open(path, "a") as file:
        file.write(f"{attempt}\n")
    time.sleep(0.5)
    return _echo(path, attempt)


def _write_and_die(value: str, attempt: int) -> dict[str, Any]:
    """Dies at its first attempt, when it has written."""
    check_granted()
    with open(value, "a") as file:
        file.write(f"{attempt}\n")
    return _die(value, attempt) if attempt == 1 else _echo(value, attempt)


def node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


VERBS = {
    "blind": _blind,
    "write": _write,
    "write_and_die": _write_and_die,
    "echo": _echo,
    "sleep": _sleep,
    "wait": _wait,
    "meet": _meet,
    "freeze": _freeze,
    "raise": _raise,
    "raise_until": _raise_until,
    "die": _die,
    "die_until": _die_until,
    "exit": _exit,
    "stop": _stop,
    "refuse": _refuse,
    "unpicklable": _unpicklable,
    "big": _big,
    "note": _note,
    "environment": _environment,
}


def obedient() -> Any:
    return lambda payload, attempt: VERBS[payload[0]](payload[1], attempt)


def never_made() -> Any:
    raise FileNotFoundError("no weights in /models/none")


class NotOn:
    """A factory that raises on one node."""

    def __init__(self, node: str) -> None:
        self.node = node

    def __call__(self) -> Any:
        if self.node in (node(), "any"):
            raise FileNotFoundError("no weights here")
        return obedient()


class MadeOnce:
    """A factory that notes each call of it in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Any:
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()}\n")
        return obedient()
