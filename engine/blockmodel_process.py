"""graph-tool's interpreter: finding one, and running the worker script in it.

A block model is fitted by ``blockmodel_worker.py`` in a process of its own. Whatever happens to
that process (crash, kill, timeout), the caller gets a ``BlockModelError`` of one line: the cause
and the last line that the process wrote to stderr.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

WORKER = Path(__file__).with_name("blockmodel_worker.py")
ENVIRONMENT_KEY = "EDGESWEEP_GRAPH_TOOL"
HOW_TO_INSTALL = (
    "no interpreter here can import graph_tool; on Debian or Ubuntu: apt install "
    "python3-graph-tool; elsewhere: conda install -c conda-forge graph-tool, then activate it or "
    f"set {ENVIRONMENT_KEY} to its python"
)
PROBE_TIMEOUT_S = 60.0
POLL_S = 0.05
# The child is another Python: nothing of this one's paths may reach it.
SCRUBBED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class BlockModelError(RuntimeError):
    """A block model could not be fitted; one line with the cause."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can import graph_tool, and the version of graph-tool it has."""

    path: str
    version: str


def find_interpreter(setting: str | None = None) -> Interpreter | None:
    """The first Python that can import graph_tool, or None.

    Order: ``setting``, the variable EDGESWEEP_GRAPH_TOOL, the running interpreter,
    /usr/bin/python3, the active conda environment's. The first two were asked for by a person:
    if one of them does not work, that is a ``BlockModelError`` and no search goes on.
    """
    asked = ((setting, "setting"), (os.environ.get(ENVIRONMENT_KEY), ENVIRONMENT_KEY))
    for path, origin in asked:
        if path:
            return _asked_for(path, origin)
    for path in _candidates():
        try:
            return _probe(path)
        except BlockModelError:
            continue
    return None


def _candidates() -> Iterator[str]:
    if find_spec("graph_tool"):  # or it would be started for nothing
        yield sys.executable
    yield "/usr/bin/python3"
    if conda := os.environ.get("CONDA_PREFIX"):
        yield os.path.join(conda, "bin", "python")


def _asked_for(path: str, origin: str) -> Interpreter:
    expanded = os.path.expanduser(path)
    found = shutil.which(expanded)
    if found is None:
        raise BlockModelError(
            f"graph-tool interpreter {path!r} ({origin}): no such executable; give the path of a "
            "Python that can import graph_tool, or leave it out to search"
        )
    try:
        return _probe(found)
    except BlockModelError as error:
        raise BlockModelError(f"graph-tool interpreter {path!r} ({origin}): {error}") from None


@functools.cache
def _probe(path: str) -> Interpreter:
    """Import graph_tool in that interpreter. Successes are remembered, failures tried anew."""
    command = [path, "-I", str(WORKER), "--probe"]
    try:
        done = subprocess.run(
            command,
            env=_child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BlockModelError(f"no answer within {PROBE_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise BlockModelError(f"cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        raise BlockModelError(_ending(done.returncode) + _said(done.stderr))
    try:
        return Interpreter(path, str(json.loads(done.stdout)["graph_tool"]))
    except (ValueError, KeyError, TypeError):
        raise BlockModelError(f"answered {done.stdout[:80]!r}, not its versions") from None


def _child_environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in SCRUBBED}
    return kept | dict.fromkeys(THREADS, "1")


def run_worker(
    interpreter: Interpreter,
    request: Path,
    result: Path,
    timeout_s: float,
    stop: threading.Event | None,
) -> None:
    """Run the worker until it ends, its time is over or ``stop`` is set; raise unless all was well.

    ``request`` is the file it reads; ``result``, beside it, the one it writes.
    """
    log = request.with_name("stderr")
    command = [interpreter.path, "-I", str(WORKER), str(request), str(result)]
    try:
        with log.open("wb") as stderr:
            # Its own session: the driver's first Ctrl-C drains, and must not kill what it drains.
            process = subprocess.Popen(
                command,
                env=_child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
    except OSError as error:
        raise BlockModelError(f"{interpreter.path} cannot be started: {error.strerror}") from None
    try:
        cause = _wait(process, timeout_s, stop)
    finally:
        _kill(process)
    if cause:
        said = _said(log.read_text(encoding="utf-8", errors="replace"))
        raise BlockModelError(f"the block model's process {cause}{said}")


def _wait(
    process: subprocess.Popen[bytes], timeout_s: float, stop: threading.Event | None
) -> str | None:
    """None once the process ended well; otherwise what went wrong."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if stop is not None and stop.is_set():
            return "was stopped"
        if time.monotonic() > deadline:
            return f"was killed after {timeout_s:g} s, its time limit"
        time.sleep(POLL_S)
    return _ending(process.returncode) if process.returncode else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _said(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""
