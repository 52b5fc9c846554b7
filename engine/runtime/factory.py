"""Executors by name."""

from __future__ import annotations

from edgesweep.engine.runtime.serial import SerialExecutor
from edgesweep.engine.runtime.work import Admit, Executor, Factory, PoolOptions, Tell, say

EXECUTORS = ("ray", "serial")


def make_executor(
    kind: str,
    factory: Factory,
    options: PoolOptions,
    tell: Tell = say,
    admit: Admit = lambda greeting: None,
) -> Executor:
    """An executor.

    Args:
        kind: one of `EXECUTORS`. Ray is imported only when it is asked for.
        factory: picklable, called once in each actor, at its first work.
        tell: hears what a person should know.
        admit: is asked, in the driver, about each worker of an actor.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "serial":
        return SerialExecutor(factory, options)
    if kind == "ray":
        from edgesweep.engine.runtime.ray_session import set_environment

        set_environment(options.address)
        from edgesweep.engine.runtime.ray_executor import RayExecutor

        return RayExecutor(factory, options, tell, admit)
    raise ValueError(f"executor is {kind!r}; it is one of {', '.join(EXECUTORS)}")
