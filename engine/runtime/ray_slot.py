"""One place in the pool: at most one actor, with at most one work in flight."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from edgesweep.engine.runtime.cluster import other_than
from edgesweep.engine.runtime.grants import asking
from edgesweep.engine.runtime.parent import end_with_parent
from edgesweep.engine.runtime.policy import Attempt
from edgesweep.engine.runtime.work import (
    Factory,
    Mishap,
    PoolOptions,
    Receipt,
    Worker,
    call_worker,
    error_line,
    mishap_of,
    shorten,
)

DEATHS = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError)
#: what Ray says of an actor that died with its node
NODE_DIED = "its node has died"


class SweepActor:
    """What runs in the actor's process (its title in `ps` starts with `ray::SweepActor`)."""

    def __init__(self) -> None:
        end_with_parent()
        self._worker: Worker | None = None
        self._node = ray.get_runtime_context().get_node_id()
        self._host = socket.gethostname()

    def start(self, factory: Factory) -> Receipt | Mishap:
        """Makes the worker. Not done in `__init__`: Ray reports an exception there as a death."""
        try:
            self._worker = factory()
        except Exception as error:
            return replace(mishap_of(error), node=self._node, host=self._host)
        greeting = getattr(self._worker, "greeting", None)
        where = {"node": self._node, "host": self._host}
        return {"pid": os.getpid(), "greeting": greeting, **where}

    def run(self, payload: Any, number: int, key: str, grants: Any) -> Receipt | Mishap:
        """One attempt; `grants` is the actor to ask before it writes."""
        assert self._worker is not None, "start() comes first"
        ask = None if grants is None else lambda: ray.get(grants.ask.remote(key, number))
        with asking(ask):
            return call_worker(self._worker, payload, number)


class Slot:
    """Starts actors, one after another. `attempt` is what is in flight; `ref` is what it waits for.

    `node` and `host` are where the actor is, `holds` what its worker was last asked for, and
    `n_started` counts workers made; `spent` once the slot has died too often in a row.
    """

    def __init__(self, factory: Factory, options: PoolOptions) -> None:
        self._factory = factory
        self._options = options
        self._actor: Any = None
        self._deaths: list[str] = []  # what it died on since its last success
        self._late_s: float | None = None
        self._is_killed = False
        self.ref: Any = None
        self.attempt: Attempt | None = None
        self.pid: int | None = None
        self.node = self.host = self.holds = ""
        self.idle_since = 0.0
        self.n_started = 0
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

    def start(self, but: Collection[str]) -> None:
        """Asks for an actor on any node but those and, in it, a worker; does not wait."""
        self._actor = _remote_actor(self._options, but).remote()
        self.ref = self._actor.start.remote(self._factory)

    def give(self, attempt: Attempt, grants: Any) -> None:
        work = attempt.work
        self.attempt, self._late_s = attempt, None
        self.holds = work.holds or self.holds
        self.ref = self._actor.run.remote(work.payload, attempt.number, work.key, grants)

    def kill_late(self) -> None:
        """Its work has taken longer than it may."""
        if self.attempt is not None and self._late_s is None:
            self._late_s = self.attempt.limit_s
            self.kill_actor()

    def collect(self) -> tuple[Attempt | None, Receipt | Mishap]:
        """What came back: the attempt (None for a start) and a receipt or a mishap. A dead actor
        leaves the slot empty."""
        attempt, self.attempt = self.attempt, None
        ref, self.ref = self.ref, None
        outcome = _outcome(ref)
        self.idle_since = time.monotonic()
        if self._is_killed:
            self.kill_actor()
        if not isinstance(outcome, Mishap):
            if attempt is None:
                self._book_start(outcome)
            else:
                self._deaths.clear()
            return attempt, outcome
        if attempt is not None:
            outcome = replace(outcome, node=self.node, host=self.host)
        if self._late_s is not None and outcome.kind == "death":
            outcome = replace(outcome, error=f"no answer in {self._late_s:.4g} s, its time limit")
        if attempt is None or outcome.kind in ("death", "lost"):
            self.kill_actor()
        return attempt, outcome

    def _book_start(self, started: Receipt) -> None:
        self.pid, self.node, self.host = started["pid"], started["node"], started["host"]
        self.holds = ""
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
        self._is_killed = self.attempt is not None
        if not self._is_killed:
            self._actor, self.pid, self.ref = None, None, None


def _remote_actor(options: PoolOptions, but: Collection[str]) -> Any:
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
    if but:
        arguments["label_selector"] = other_than(but)
    return ray.remote(SweepActor).options(**arguments)


def _outcome(ref: Any) -> Receipt | Mishap:
    """The answer, with Ray's errors sorted: RayTaskError is an exception in the actor (say, a
    payload that does not unpickle there); the others are deaths, some of them their node's."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        return Mishap("exception", error_line(cause), shorten(str(error)))
    except DEATHS as error:
        gone = isinstance(error, NodeDiedError) or NODE_DIED in str(error)
        kind = "lost" if gone or getattr(error, "preempted", False) else "death"
        return Mishap(kind, f"the actor died: {_death_line(error)}")


def _death_line(error: Exception) -> str:
    """Ray's reports of a death are pages long; the first line that says something is kept."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {shorten(' '.join(lines[:2]), 300)}"
