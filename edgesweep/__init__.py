"""edgesweep: sweeps over computational graphs of neural networks.

    import edgesweep as es

    run = es.open("runs/demo")                    # tables, scores and circuits of a run
    circuit = run.circuit("ig_inputs", phi=0.8)   # the smallest that is so faithful
    es.evaluate("smollm2-135m", "ioi", circuit)   # run a circuit, found or given
    es.sweep("demo", data={"n_build": 64})        # a whole sweep

The folders `engine`, `tasks`, `storage`, `sweeps` and `dashboards` of the repository are this
package's parts, by links, so that nothing but `edgesweep` lands in a user's Python. What is heavy
is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesweep.engine.graph.circuit import Circuit
    from edgesweep.engine.graph.circuit_files import load_circuit
    from edgesweep.evaluating import evaluate
    from edgesweep.runs import Run
    from edgesweep.runs import open_run as open
    from edgesweep.sweeping import sweep

__all__ = ["Circuit", "Run", "evaluate", "load_circuit", "open", "sweep"]

#: name -> where it is, and what it is called there
_HOMES = {
    "Circuit": ("engine.graph.circuit", "Circuit"),
    "Run": ("runs", "Run"),
    "evaluate": ("evaluating", "evaluate"),
    "load_circuit": ("engine.graph.circuit_files", "load_circuit"),
    "open": ("runs", "open_run"),
    "sweep": ("sweeping", "sweep"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgesweep' has no attribute {name!r}")
    module, there = _HOMES[name]
    return getattr(import_module(f"edgesweep.{module}"), there)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
