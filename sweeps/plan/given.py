"""Circuits that a config gives: read, and placed in the graph of each model.

A circuit that was given is a cell of its own, of the method `given`, so that it is evaluated,
counted, compared and shown as what a search finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.graph import CircuitError, load_circuit
from edgesweep.engine.graph.circuit_files import published_circuit
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.sweeps.config.load import Config, ConfigError
from edgesweep.sweeps.config.schema import KNOWN, NODES
from edgesweep.sweeps.plan.canonical import digest

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.resolve import Dataset, ResolvedModel


@dataclass(frozen=True)
class GivenCircuit:
    """A circuit in a model's graph. `digest` is of its edges: where it was read is no identity."""

    name: str
    digest: str
    mask: EdgeMask = field(repr=False, compare=False)


#: (label of a model, label of a task) -> its circuits, in the config's order
Given = dict[tuple[str, str], tuple[GivenCircuit, ...]]


def given_circuits(
    config: Config, models: dict[str, ResolvedModel], datasets: Iterable[Dataset]
) -> Given:
    """Those of every model and task. A file is of all of them, `known` of those where one is.

    Raises:
        ConfigError: a file that is none, an edge that a model lacks, nothing known, no heads.
    """
    wanted = config.evaluate.circuits or ()
    if wanted and not set(NODES) & set(config.sweep.nodes):
        raise ConfigError(
            f"evaluate.circuits: {list(wanted)} are over heads and MLPs, which sweep.nodes does "
            "not name; add 'heads', or leave them out"
        )
    found = {(d.model, d.task): _of(wanted, models[d.model], d.task) for d in datasets}
    if KNOWN in wanted and all(len(circuits) < len(wanted) for circuits in found.values()):
        pairs = " or ".join(f"{model} on {task}" for model, task in found)
        raise ConfigError(
            f"evaluate.circuits: {KNOWN!r}: no circuit of {pairs} is known; leave it out, or give "
            "a file"
        )
    return found


def _of(wanted: Iterable[str], model: ResolvedModel, task: str) -> tuple[GivenCircuit, ...]:
    """The circuits of one model on one task."""
    found = []
    for given in wanted:
        try:
            circuit = (
                published_circuit(model.source, task) if given == KNOWN else load_circuit(given)
            )
            if circuit is not None:
                mask = circuit.mask(model.graph)
                edges = np.flatnonzero(mask).tolist()
                found.append(GivenCircuit(circuit.name, digest(edges)[:10], mask))
        except CircuitError as error:
            raise ConfigError(f"evaluate.circuits: {given!r} for {model.label}: {error}") from None
    return tuple(found)
