"""What is run and how it ends: the words that every executor shares.

A `Work` is a key and a small payload. A worker is a callable `worker(payload, attempt) -> receipt`
made by a factory, once per actor. The executor hands works to workers and receipts to the driver;
it never sees a score, and it knows nothing of models, shards or files.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgesweep.engine.runtime.grants import NotGranted

RECEIPT_LIMIT_BYTES = 64 * 1024
TRACEBACK_LIMIT_CHARS = 4000

Receipt = dict[str, Any]
Worker = Callable[[Any, int], Receipt]
#: makes a worker; what a worker says of itself to the driver is its attribute `greeting`, if it has
#: one
Factory = Callable[[], Worker]


class ExecutorError(RuntimeError):
    """The executor as a whole cannot go on. The message is for a person."""


class WorkerStartError(ExecutorError):
    """No worker could be made: the factory raised, or no actor was given a place to run."""


class NoPlaceError(WorkerStartError):
    """No machine has what each actor asks for: the options are at fault, and nothing was done."""


class PoolExhausted(ExecutorError):
    """Work is left and no slot of the pool is alive."""


class WorkerStopped(ExecutorError):
    """A worker met something that no retry mends (a full disk): the run stops.

    A worker says so by raising an exception whose attribute `stops_run` is true; its message
    becomes this one's message.
    """


class RunRefused(WorkerStopped):
    """What the run asks for cannot be had of what it has found: done again, it ends the same way.

    A worker says so by raising an exception that has `is_refusal` true besides.
    """


@dataclass(frozen=True, slots=True)  # a pool holds all that wait
class Work:
    """One unit of work. `key` is unique within a run of the executor and safe as a file name;
    `payload` is small and picklable; works of one `group` take about as long as each other; of
    those that wait, the one of the lowest `rank` is handed out first, and of those first that need
    what a worker `holds` already (its model), or nothing."""

    key: str
    payload: Any
    group: str = ""
    rank: int = 0
    holds: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a work was given up, in plain strings, so that it survives pickling and JSON.

    kind: "exception" (the worker raised), "death" (its process died under the work) or "lost" (its
    node was gone, too often). error: one line. traceback: the worker's, shortened; empty for a
    death. host: where it failed last.
    """

    key: str
    attempts: int
    kind: str
    error: str
    traceback: str = ""
    host: str = ""

    @classmethod
    def of(cls, key: str, attempts: int, mishap: Mishap) -> Failure:
        """A work that is given up for its last mishap."""
        return cls(key, attempts, mishap.kind, mishap.error, mishap.traceback, mishap.host)

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        return f"{self.key}: {self.error} (gave up after {self.attempts} attempts)"


@dataclass(frozen=True)
class Mishap:
    """One failed attempt, as it comes back from a worker, and where that was.

    kind: as of a Failure, or "refused": another attempt at the work writes. fatal: no retry, the
    run stops; refusal: and so it would again.
    """

    kind: str
    error: str
    traceback: str = ""
    fatal: bool = False
    refusal: bool = False
    node: str = ""
    host: str = ""

    @property
    def where(self) -> str:
        """The node as a person finds it: nodes of one machine have one host."""
        return f"{self.host} ({self.node[:8]})"


@dataclass(frozen=True)
class Event:
    """What a person should know of a pool: one word for its `kind`, a line, and the facts of it, as
    JSON has them."""

    kind: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Tell = Callable[[Event], None]


def say(event: Event) -> None:
    """Prints the line."""
    print(event.text)


@dataclass(frozen=True)
class PoolOptions:
    """How works are run; nothing here may change a number.

    actors: size of the pool. address: of a Ray cluster, None for an embedded one.
    num_gpus, memory_bytes: what each actor asks of Ray (scheduling; not a limit on GPU memory).
    max_attempts: failures of one work, before it is given up (engine.runtime.blame); max_lost: how
    often its node may go away under it. max_slot_deaths: deaths in a row, with no
    success between, before a place in the pool is given up; greater than `max_attempts`, so that a
    poison work is given up before the slots that it kills.
    threads: OMP_NUM_THREADS of each actor; the factory sets torch's threads to the same number.
    start_timeout_s: for the pool to get an actor when it has none; None waits for ever.
    work_timeout_s: a work that takes longer has its actor killed, which counts as a death; None
    waits for ever, "auto" goes by what works of the same group took, and is `work_floor_s` at least
    (engine.runtime.limits). The serial executor has no actor to kill.
    backup: works that take long are begun a second time (engine.runtime.policy), none before
    `backup_floor_s`. idle_s: an actor without work for so long is given back, unless there may be
    work for it.
    """

    actors: int = 1
    address: str | None = None
    num_gpus: float = 0.0
    memory_bytes: int | None = None
    max_attempts: int = 3
    max_slot_deaths: int | None = None
    threads: int = 1
    max_lost: int = 100
    start_timeout_s: float | None = 600.0
    work_timeout_s: float | Literal["auto"] | None = "auto"
    work_floor_s: float = 600.0
    backup: bool = False
    backup_floor_s: float = 5.0
    idle_s: float = 60.0
    poll_s: float = 0.2
    log_to_driver: bool = False

    def __post_init__(self) -> None:
        for name in ("actors", "max_attempts", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_slot_deaths is None:
            object.__setattr__(self, "max_slot_deaths", max(4, self.max_attempts + 1))
        elif self.max_slot_deaths <= self.max_attempts:
            raise ValueError(
                f"max_slot_deaths is {self.max_slot_deaths} and max_attempts {self.max_attempts}; "
                "a slot must outlive a poison work, so it must be the greater"
            )

    @property
    def slot_deaths(self) -> int:
        assert self.max_slot_deaths is not None
        return self.max_slot_deaths


#: how many works `OnDone` will yet return
ToCome = Callable[[], int]
#: raises if a worker, by what it says of itself, may not have a work
Admit = Callable[[Any], None]
#: hears of a work that is done, and returns those that can be done now
OnDone = Callable[[Work, Receipt], Sequence[Work] | None]


class Executor(Protocol):
    """Runs works. Its workers live until `close`."""

    def run(
        self,
        works: Iterable[Work],
        on_done: OnDone,
        on_failed: Callable[[Work, Failure], None],
        should_stop: Callable[[], bool],
        to_come: ToCome = lambda: 0,
    ) -> None:
        """Runs every work, each to `on_done` once or to `on_failed` once, in the caller's thread.
        Works that `on_done` returns are run too: those that have waited for this one; `to_come`
        says how many that may still be.

        `should_stop` is polled: once true, what is in flight is finished and nothing more is
        handed out; the rest gets no callback. Raises ExecutorError when the run cannot go on, and
        whatever a callback raises; works in flight are then killed with their actors.
        """

    def pids(self) -> list[int]:
        """Process ids of the live workers (the driver's own, when it is the worker)."""

    def close(self) -> None:
        """Ends the workers. May be called twice."""


def call_worker(worker: Worker, payload: Any, attempt: int) -> Receipt | Mishap:
    """Runs one attempt where the worker lives. An exception comes back as plain strings, because
    an exception class need not exist, nor unpickle, in the driver."""
    try:
        receipt = worker(payload, attempt)
        check_receipt(receipt)
    except Exception as error:
        return mishap_of(error)
    return receipt


def check_receipt(receipt: Mapping[str, Any]) -> None:
    """Refuses what is no small dict: scores go to the store, never through the executor."""
    if not isinstance(receipt, dict):
        raise TypeError(f"a worker returns a dict as its receipt, not {type(receipt).__name__}")
    size = len(pickle.dumps(receipt))
    if size > RECEIPT_LIMIT_BYTES:
        raise ValueError(
            f"the receipt has {size} bytes (at most {RECEIPT_LIMIT_BYTES}); "
            "arrays are written to the store, not returned"
        )


def mishap_of(error: BaseException) -> Mishap:
    """An exception in the worker, as strings."""
    text = "".join(traceback.format_exception(error))
    fatal = bool(getattr(error, "stops_run", False))
    kind = "refused" if isinstance(error, NotGranted) else "exception"
    refusal = bool(getattr(error, "is_refusal", False))
    return Mishap(kind, error_line(error), shorten(text), fatal, refusal)


def error_line(error: BaseException) -> str:
    """`Type: first line of the message`."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def shorten(text: str, limit: int = TRACEBACK_LIMIT_CHARS) -> str:
    """Keeps the end, where the cause is, and the head."""
    if len(text) <= limit:
        return text
    head = limit // 4
    return (
        f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[head - limit :]}"
    )
