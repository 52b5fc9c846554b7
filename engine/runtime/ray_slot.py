"""One place in the pool: at most one actor, with at most one work in flight."""

from __future__ import annotations

import os
import time
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from edgesweep.engine.runtime.work import (
    Factory,
    Mishap,
    PoolOptions,
    Receipt,
    Work,
    Worker,
    call_worker,
    error_line,
    mishap_of,
    remember_parent,
    shorten,
)

DEATHS = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError)


class SweepActor:
    """What runs in the actor's process (its title in `ps` starts with `ray::SweepActor`)."""

    def __init__(self) -> None:
        remember_parent()
        self._worker: Worker | None = None

    def start(self, factory: Factory) -> Receipt | Mishap:
        """Makes the worker. Not done in `__init__`: Ray reports an exception there as a death."""
        try:
            self._worker = factory()
        except Exception as error:
            return mishap_of(error)
        return {"pid": os.getpid()}

    def run(self, payload: Any, attempt: int) -> Receipt | Mishap:
        assert self._worker is not None, "start() comes first"
        return call_worker(self._worker, payload, attempt)


class Slot:
    """Starts actors, one after another. `work` is the work in flight; `ref` is what it waits for.

    Counts: `n_started` workers made, `n_starts_failed` not made; `spent` once the slot has died too
    often in a row.
    """

    def __init__(self, factory: Factory, options: PoolOptions) -> None:
        self._factory = factory
        self._options = options
        self._actor: Any = None
        self._deaths: list[str] = []  # what it died on since its last success
        self._given_at = self._limit_s = 0.0
        self._late = False
        self.ref: Any = None
        self.work: Work | None = None
        self.pid: int | None = None
        self.n_started = 0
        self.n_starts_failed = 0
        self.spent = False

    @property
    def empty(self) -> bool:
        return self._actor is None

    @property
    def starting(self) -> bool:
        return self._actor is not None and self.pid is None

    @property
    def ready(self) -> bool:
        return self.pid is not None and self.ref is None

    def start(self) -> None:
        """Asks for an actor and, in it, a worker; does not wait."""
        self._actor = _remote_actor(self._options).remote()
        self.ref = self._actor.start.remote(self._factory)

    def give(self, work: Work, attempt: int, limit_s: float) -> None:
        self.work = work
        self._given_at, self._limit_s, self._late = time.monotonic(), limit_s, False
        self.ref = self._actor.run.remote(work.payload, attempt)

    def busy_s(self) -> float:
        """How long the work in flight has taken."""
        return time.monotonic() - self._given_at

    def kill_if_late(self) -> None:
        """Ends an actor whose work has taken longer than it may."""
        if self.work is not None and not self._late and self.busy_s() > self._limit_s:
            self._late = True
            self.kill_actor()

    def collect(self) -> tuple[Work | None, Receipt | Mishap]:
        """What came back: the work (None for a start) and a receipt or a mishap. A dead actor
        leaves the slot empty."""
        work, self.work = self.work, None
        ref, self.ref = self.ref, None
        outcome = _outcome(ref)
        if self._late and isinstance(outcome, Mishap):
            outcome = Mishap("death", f"no answer in {self._limit_s:.4g} s, its time limit")
        if work is None:
            self._book_start(outcome)
        elif not isinstance(outcome, Mishap):
            self._deaths.clear()
        if isinstance(outcome, Mishap) and (work is None or outcome.kind == "death"):
            self.kill_actor()
        return work, outcome

    def _book_start(self, outcome: Receipt | Mishap) -> None:
        if isinstance(outcome, Mishap):
            self.n_starts_failed += 1
            if outcome.kind == "exception":
                self.count_death(None, is_last=False)
        else:
            self.pid = outcome["pid"]
            self.n_started += 1

    def count_death(self, key: str | None, is_last: bool) -> None:
        """Books a death on the work `key` (None: before it had any) and sees if it was one too
        many. The last slot is given up only if it died on as many *different* works: otherwise a
        few poison works at the end of a run would pass for a broken machine."""
        self._deaths.append(key if key is not None else f"start {len(self._deaths)}")
        died_on: set[str] | list[str] = set(self._deaths) if is_last else self._deaths
        self.spent = len(died_on) >= self._options.slot_deaths

    def kill_actor(self) -> None:
        """Ends the actor, dead or alive. What it had in flight is then heard of as a death."""
        if self._actor is not None and ray.is_initialized():
            ray.kill(self._actor, no_restart=True)
        if self.work is None:
            self._actor, self.pid, self.ref = None, None, None


def _remote_actor(options: PoolOptions) -> Any:
    threads = str(options.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    arguments: dict[str, Any] = {
        "max_restarts": 0,
        "max_task_retries": 0,
        "num_cpus": options.threads,
        "num_gpus": options.num_gpus,
        "runtime_env": {"env_vars": dict.fromkeys(names, threads)},
    }
    if options.memory_bytes is not None:
        arguments["memory"] = options.memory_bytes
    return ray.remote(SweepActor).options(**arguments)


def _outcome(ref: Any) -> Receipt | Mishap:
    """The answer, with Ray's errors sorted: RayTaskError is an exception in the actor (say, a
    payload that does not unpickle there); the others are deaths."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        return Mishap("exception", error_line(cause), shorten(str(error)))
    except DEATHS as error:
        return Mishap("death", f"the actor died: {_death_line(error)}")


def _death_line(error: Exception) -> str:
    """Ray's reports of a death are pages long; the first line that says something is kept."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {shorten(' '.join(lines[:2]), 300)}"
