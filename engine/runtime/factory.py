"""Executors by name."""

from __future__ import annotations

from collections.abc import Callable

from edgesweep.engine.runtime.serial import SerialExecutor
from edgesweep.engine.runtime.work import Executor, Factory, PoolOptions

EXECUTORS = ("ray", "serial")


def make_executor(
    kind: str, factory: Factory, options: PoolOptions, say: Callable[[str], None] = print
) -> Executor:
    """An executor of `kind`. `factory` is picklable and called once in each actor, at its first
    work; `say` hears what a person should know. Ray is imported only when it is asked for. Raises
    ValueError for an unknown kind."""
    if kind == "serial":
        return SerialExecutor(factory, options)
    if kind == "ray":
        from edgesweep.engine.runtime.ray_session import set_environment

        set_environment(options.address)
        from edgesweep.engine.runtime.ray_executor import RayExecutor

        return RayExecutor(factory, options, say)
    raise ValueError(f"executor is {kind!r}; it is one of {', '.join(EXECUTORS)}")
