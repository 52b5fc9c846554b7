"""Executors: how work is run. Knows no science; the only place that imports ray."""

from edgesweep.engine.runtime.factory import make_executor
from edgesweep.engine.runtime.serial import SerialExecutor
from edgesweep.engine.runtime.work import (
    Executor,
    ExecutorError,
    Failure,
    NoPlaceError,
    PoolExhausted,
    PoolOptions,
    Receipt,
    Work,
    Worker,
    WorkerStartError,
    WorkerStopped,
    parent_alive,
)

__all__ = [
    "Executor",
    "ExecutorError",
    "Failure",
    "NoPlaceError",
    "PoolExhausted",
    "PoolOptions",
    "Receipt",
    "SerialExecutor",
    "Work",
    "Worker",
    "WorkerStartError",
    "WorkerStopped",
    "make_executor",
    "parent_alive",
]
