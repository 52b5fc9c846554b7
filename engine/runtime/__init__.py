"""Executors: how work is run. Knows no science; the only place that imports ray."""

from edgesweep.engine.runtime.address import AddressError, check_address
from edgesweep.engine.runtime.factory import make_executor
from edgesweep.engine.runtime.grants import NotGranted, check_granted
from edgesweep.engine.runtime.parent import parent_alive
from edgesweep.engine.runtime.serial import SerialExecutor
from edgesweep.engine.runtime.work import (
    Event,
    Executor,
    ExecutorError,
    Failure,
    NoPlaceError,
    PoolExhausted,
    PoolOptions,
    Receipt,
    RunRefused,
    Work,
    Worker,
    WorkerStartError,
    WorkerStopped,
)

__all__ = [
    "AddressError",
    "Event",
    "Executor",
    "ExecutorError",
    "Failure",
    "NoPlaceError",
    "NotGranted",
    "PoolExhausted",
    "PoolOptions",
    "Receipt",
    "RunRefused",
    "SerialExecutor",
    "Work",
    "Worker",
    "WorkerStartError",
    "WorkerStopped",
    "check_address",
    "check_granted",
    "make_executor",
    "parent_alive",
]
