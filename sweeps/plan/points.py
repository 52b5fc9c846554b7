"""The cells of a config: the product of its axes, each axis only where a method takes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgesweep.engine.methods import METHODS, Settings
from edgesweep.sweeps.candidates import ranking_of
from edgesweep.sweeps.config.schema import NODES
from edgesweep.sweeps.plan.cells import Cell, GivenCell

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.resolve import Dataset, Resolved

#: between the seeds of random orders of the same edges: a prime, far from what people choose
SEEDS_APART = 1_000_003


def cells_of(resolved: Resolved) -> tuple[Cell, ...]:
    """All cells, in the config's order; before a refined cell the one that ranks its edges."""
    found: dict[Cell, None] = {}
    for point in _points(resolved):
        cell = _cell(resolved, *point)
        if cell is None:
            continue
        if cell.is_refined:
            found.setdefault(ranking_of(cell))
        found |= dict.fromkeys(_orders(resolved, cell))
    return (*found, *dict.fromkeys(_given(resolved)))


def _orders(resolved: Resolved, cell: Cell) -> Iterator[Cell]:
    """A cell of a seeded order, once for each order that is asked for; any other once."""
    yield cell
    if cell.seed is not None:
        for order in range(1, resolved.config.sweep.orders):
            yield replace(cell, seed=(cell.seed + order * SEEDS_APART) % 2**31)


def _given(resolved: Resolved) -> Iterator[GivenCell]:
    """A cell for each circuit that was given."""
    sweep = resolved.config.sweep
    for dataset in resolved.datasets.values():
        for circuit in resolved.given[dataset.model, dataset.task]:
            yield GivenCell(
                model=dataset.model,
                task=dataset.task,
                dataset=dataset.key,
                nodes=NODES[0],
                method="given",
                steps=None,
                build_patch=sweep.build_patch[0],
                build_metric=sweep.build_metric[0],
                tau=0.0,
                given=circuit.name,
                edges=circuit.digest,
            )


def settings_of(cell: Cell, **known: Any) -> Settings:
    """What a cell says to its method; `known` are the fields that only a running sweep knows."""
    told: dict[str, Any] = {
        "steps": cell.steps,
        "rule": cell.rule or None,
        "tau": cell.tau,
        "seed": cell.seed,
        "n_candidates": None if cell.n_top is None else cell.n_top + cell.n_random,
    }
    return Settings(**{k: v for k, v in told.items() if v is not None}, **known)


def _points(resolved: Resolved) -> Iterator[tuple[Any, ...]]:
    sweep = resolved.config.sweep
    return itertools.product(
        resolved.datasets.values(),
        sweep.nodes,
        sweep.method,
        sweep.steps,
        sweep.rule,
        sweep.tau,
        sweep.build_patch,
        sweep.build_metric,
    )


def _cell(
    resolved: Resolved,
    dataset: Dataset,
    nodes: str,
    method: str,
    steps: int,
    rule: str,
    tau: float,
    build_patch: str,
    build_metric: str,
) -> Cell | None:
    """What a method does not take is left empty, so it makes no further cells; a method that does
    not attribute these nodes makes none."""
    way, takes, config = (
        resolved.nodes[dataset.model, nodes],
        METHODS[method].takes,
        resolved.config,
    )
    if method not in way.methods:
        return None
    candidates = config.sweep.candidates if "candidates" in takes else None
    top, others = None, 0
    if candidates is not None:
        n_edges = way.max_edges
        top = min(candidates.top, n_edges)
        others = 0 if method == "eap_acdc" else min(candidates.random, n_edges - top)
    return Cell(
        model=dataset.model,
        task=dataset.task,
        dataset=dataset.key,
        nodes=nodes,
        method=method,
        steps=steps if "steps" in takes else None,
        build_patch=build_patch,
        build_metric=build_metric,
        rule=rule if "rule" in takes else "",
        tau=tau if "tau" in takes else None,
        seed=dataset.seed if "seed" in takes else None,
        n_top=top,
        n_random=others,
        **way.fields(method),
    )
