"""The edges that a refined cell looks at, decided by another cell's scores, or that were given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.graph import select
from edgesweep.engine.methods import METHODS, MethodError
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import read_static, write_static
from edgesweep.sweeps.plan.canonical import digest

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell, GivenCell
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View


def ranking_of(cell: Cell) -> Cell:
    """The cell whose scores say at which edges a refined cell looks: EAP under the same patch, with
    the same metric where EAP can use it."""
    eap = METHODS["eap"]
    try:
        eap.check(cell.build_metric, cell.build_patch)
        metric = cell.build_metric
    except MethodError:
        metric = "logit_diff"
    none = dict.fromkeys(("steps", "tau", "seed", "n_top"))
    empty: dict[str, Any] = {**none, "rule": "", "n_random": 0}
    return replace(cell, method="eap", build_metric=metric, **empty)


def write_candidates(view: View, cell: Cell) -> None:
    """Those that EAP ranks first by |mean score|, and some drawn, with a seed of the cell's own,
    from the others."""
    scores = view.committed.aggregate(ranking_of(cell).key, "mean")
    assert scores is not None
    assert cell.n_top is not None
    mask = select(scores, "topk_abs", cell.n_top)
    others = np.flatnonzero(~mask)
    told = {"key": cell.key, **cell.identity, "candidates": cell.candidates}
    draw = np.random.default_rng([view.plan.config.seed, int(digest(told)[:8], 16)])
    mask[draw.choice(others, min(cell.n_random, len(others)), replace=False)] = True
    write_static(view.run.evaluations, layout.candidates(cell.key), mask, compress=True)


def sampled_edges(view: View, cell: Cell) -> np.ndarray:
    """Bool `[edge]`: a random sample of all edges, of those that a cell looks at: the ones that
    were drawn, and of EAP's first, all of which it looks at, as large a share, drawn as well. All
    where it looks at all."""
    if not cell.is_refined:
        return np.ones(view.plan.n_scores(cell), dtype=bool)
    scores = view.committed.aggregate(ranking_of(cell).key, "mean")
    assert scores is not None
    assert cell.n_top is not None
    first = np.flatnonzero(select(scores, "topk_abs", cell.n_top))
    sample = read_candidates(view.run, cell).copy()
    sample[first] = False
    share = sample.sum() / max(len(sample) - len(first), 1)
    draw = np.random.default_rng([view.plan.config.seed, int(digest(cell.identity)[:8], 16)])
    sample[draw.choice(first, round(share * len(first)), replace=False)] = True
    return sample


def write_given(run: RunDirectory, plan: Plan, cell: GivenCell) -> None:
    """The edges of a circuit that was given."""
    circuits = plan.resolved.given[cell.model, cell.task]
    mask = next(circuit.mask for circuit in circuits if circuit.digest == cell.edges)
    write_static(run.evaluations, layout.candidates(cell.key), mask, compress=True)


def read_candidates(run: RunDirectory, cell: Cell) -> np.ndarray:
    """Bool `[edge]`: the edges that a cell looks at, or that were given."""
    return read_static(run.evaluations, layout.candidates(cell.key))[0]
