"""The reference executor: one worker in the driver's own process, one work at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from edgesweep.engine.runtime.queue import WorkQueue
from edgesweep.engine.runtime.work import (
    Factory,
    Failure,
    Mishap,
    OnDone,
    PoolOptions,
    Work,
    Worker,
    WorkerStartError,
    call_worker,
    error_line,
)


class SerialExecutor:
    """Same attempt policy, same errors, no Ray. A work that kills its process kills the driver."""

    def __init__(self, factory: Factory, options: PoolOptions) -> None:
        self._factory = factory
        self._options = options
        self._worker: Worker | None = None

    def run(
        self,
        works: Sequence[Work],
        on_done: OnDone,
        on_failed: Callable[[Work, Failure], None],
        should_stop: Callable[[], bool],
    ) -> None:
        queue = WorkQueue(works, self._options.max_attempts, on_failed)
        while len(queue) and not should_stop():
            worker = self._started()
            work, attempt = queue.take()
            outcome = call_worker(worker, work.payload, attempt)
            if isinstance(outcome, Mishap):
                queue.failed(work, outcome)
            else:
                queue.add(on_done(work, outcome))

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
