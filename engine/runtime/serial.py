"""The reference executor: one worker in the driver's own process, one work at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from edgesweep.engine.runtime.policy import Policy
from edgesweep.engine.runtime.work import (
    Factory,
    Failure,
    Mishap,
    OnDone,
    PoolOptions,
    ToCome,
    Work,
    Worker,
    WorkerStartError,
    call_worker,
    error_line,
)

HERE = "here"


class SerialExecutor:
    """Same attempt policy, same errors, no Ray. A work that kills its process kills the driver."""

    def __init__(self, factory: Factory, options: PoolOptions) -> None:
        self._factory = factory
        self._options = options
        self._worker: Worker | None = None

    def run(
        self,
        works: Iterable[Work],
        on_done: OnDone,
        on_failed: Callable[[Work, Failure], None],
        should_stop: Callable[[], bool],
        to_come: ToCome = lambda: 0,
    ) -> None:
        policy, holds = Policy(works, self._options, on_failed), ""
        while policy.n_waiting and not should_stop():
            worker = self._started()
            attempt = policy.next(HERE, holds, {HERE})
            assert attempt is not None, "the only worker is free, and there is work"
            holds = attempt.work.holds or holds
            outcome = call_worker(worker, attempt.work.payload, attempt.number)
            if isinstance(outcome, Mishap):
                policy.failed(attempt, replace(outcome, node=HERE))
            else:
                policy.done(attempt)
                policy.add(on_done(attempt.work, outcome))

    def _started(self) -> Worker:
        if self._worker is None:
            try:
                self._worker = self._factory()
            except Exception as error:
                raise WorkerStartError(
                    f"the worker could not start: {error_line(error)}"
                ) from error
        return self._worker

    def pids(self) -> list[int]:
        return [os.getpid()] if self._worker is not None else []

    def close(self) -> None:
        self._worker = None
