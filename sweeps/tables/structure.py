"""Rows of what block models are held against."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.structure import (
    ROUNDING,
    agreement,
    contrast,
    kind_and_depth,
    p_value,
    saved,
)
from edgesweep.storage.layout import SIDES
from edgesweep.sweeps.circuits import read_fitted_key
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.engine.graph import Graph
    from edgesweep.sweeps.plan.cells import Cell, Condition
    from edgesweep.sweeps.stages.blockmodels.blocks import Fitted
    from edgesweep.sweeps.stages.blockmodels.nulls import Described
    from edgesweep.sweeps.view import View

#: how block ablations are run, and the sign with which others' minus own is a contrast
MODES = {"without": 1.0, "only": -1.0}
#: what a table says of what there is none of
NONE = dict.fromkeys(("value", "chance", "low", "high", "p"), np.nan)
#: random blocks that purity stands beside
PURITY_DRAWS = 199
#: random graphs that are not the circuit's own
SHUFFLES = ("nodes", "ports")


def null_rows(cell: Cell, fitted: Fitted, found: Sequence[Described]) -> Iterator[Row]:
    """Rows of nulls.parquet: the chains of the circuit, the one block, and what was described."""
    n_nodes, n_edges = len(fitted.nodes), len(fitted.edges)
    one = fitted.chains[0].description_length_null
    own = [
        ("chain", i, len(set(c.levels[0])), c.description_length)
        for i, c in enumerate(fitted.chains)
    ]
    base = {"circuit": fitted.circuit, "cell": cell.key}
    untouched = dict.fromkeys(("swapped", "kept_halfway", "kept"), np.nan)
    for null, draw, n_blocks, length in [*own, ("one_block", 0, 1, one)]:
        sizes = {"n_nodes": n_nodes, "n_edges": n_edges, "n_blocks": n_blocks}
        lengths = {"description_length": length, "one_block": one, "saved": saved(length, one)}
        yield {**base, "null": null, "draw": draw, **sizes, **lengths, **untouched}
    for d in found:
        sizes = {"n_nodes": d.n_nodes, "n_edges": d.n_edges, "n_blocks": d.n_blocks}
        lengths = {"description_length": d.description_length, "one_block": d.one_block}
        chain = {name: getattr(d, name) for name in untouched}
        chain = {k: np.nan if v is None else v for k, v in chain.items()}
        saves = saved(d.description_length, d.one_block)
        yield {**base, "null": d.null, "draw": d.draw, **sizes, **lengths, "saved": saves, **chain}


def structure_rows(
    cell: Cell, fitted: Fitted, found: Sequence[Described], graph: Graph
) -> Iterator[Row]:
    """Rows of structure.parquet that no run of the model is needed for."""
    base = {"circuit": fitted.circuit, "cell": cell.key, "eval_patch": "", "metric": "", **NONE}
    first = saved(fitted.chains[0].description_length, fitted.chains[0].description_length_null)
    for kind in SHUFFLES:
        draws = [saved(d.description_length, d.one_block) for d in found if d.null == kind]
        if draws:
            beside = {"chance": float(np.mean(draws)), "low": min(draws), "high": max(draws)}
            p = p_value(first, draws)
            named = {"measure": "saved", "against": kind, "value": first, "n": len(draws)}
            yield {**base, **named, **beside, "p": p}
    partitions = [(fitted.nodes, c.levels[0]) for c in fitted.chains]
    given = fitted.nodes, kind_and_depth(graph.node_table, fitted.nodes)
    kept = fitted.nodes, fitted.model.levels[0]
    halves = [(d.nodes, d.blocks) for d in found if d.null == "half"]
    compared = {
        "chains": list(itertools.combinations(partitions, 2)),
        "halves": list(itertools.combinations(halves, 2)),
        "kind_depth": [(kept, given)],
    }
    for against, pairs in compared.items():
        if pairs:
            values, n = zip(*(_agreement(*pair) for pair in pairs), strict=True)
            ends = {"value": float(np.mean(values)), "low": min(values), "high": max(values)}
            named = {"measure": "agreement", "against": against, "n": min(n)}
            yield {**base, **named, **ends, "chance": 0.0}


def purity_rows(view: View, cell: Cell, fitted: Fitted) -> Iterator[Row]:
    """The row of structure.parquet of how far blocks are one task's each; of mixtures."""
    if len(view.plan.dataset(cell).members) < 2:
        return
    value = fitted.labelled.purity
    draws = fitted.labelled.shuffled_purities(view.plan.config.seed, PURITY_DRAWS)
    ends = {"chance": float(np.mean(draws)), "low": min(draws), "high": max(draws)}
    named = {"measure": "purity", "against": "random", "eval_patch": "", "metric": ""}
    about = {"circuit": fitted.circuit, "cell": cell.key, **named, "value": value, **ends}
    yield {**about, "p": p_value(value - ROUNDING, draws), "n": PURITY_DRAWS}


def contrast_rows(view: View, cell: Cell) -> Iterator[Row]:
    """Rows of structure.parquet of block ablations, once all of a cell's are measured: how much
    more a task's own blocks matter to it than others' do. Without blocks that is what is left
    without others' less what is left without one's own; with only these, the reverse."""
    plan = view.plan
    conditions = plan.block_conditions(cell)
    if not conditions or not view.is_whole("block_evaluate", cell):
        return
    own, evaluate = _member_of(view, cell), plan.config.evaluate
    circuit = read_fitted_key(view.run, cell)
    for patch, metric in itertools.product(evaluate.eval_patch, evaluate.metric):
        if view.missing_references(cell.source, patch):
            continue
        for mode, sign in MODES.items():
            mine = [c for c in conditions if (c.eval_patch, c.part.mode) == (patch, mode)]
            left = np.stack([_left(view, cell, circuit, c, metric) for c in mine], axis=1)
            found = contrast(sign * left, own, plan.config.seed)
            named = {"measure": "contrast", "against": mode, "eval_patch": patch, "metric": metric}
            about = {"circuit": circuit, "cell": cell.key, **named, **NONE, "n": len(own)}
            yield {**about, "value": found.value, "p": found.p, "chance": 0.0}


def random_contrast_rows(
    view: View, cell: Cell, conditions: Sequence[Condition], named: Callable[[str, str, int], str]
) -> Iterator[Row]:
    """The same contrasts beside those with random nodes in the place of the blocks' own.

    Args:
        conditions: under which these were run. named: by mode, task and draw.
    """
    members, n = view.plan.dataset(cell).members, view.plan.config.blocks.draws
    own, under = (
        _member_of(view, cell),
        {condition.eval_patch: condition for condition in conditions},
    )
    for row in contrast_rows(view, cell):
        mode, condition = row["against"], under[row["eval_patch"]]
        draws = []
        for draw in range(n):
            names = [named(mode, member, draw) for member in members]
            left = [_left(view, cell, name, condition, row["metric"]) for name in names]
            draws.append(contrast(MODES[mode] * np.stack(left, axis=1), own, 0, n=0).value)
        ends = {"chance": float(np.mean(draws)), "low": min(draws), "high": max(draws), "n": n}
        p = p_value(row["value"] - ROUNDING, draws)
        yield {**row, "against": f"{mode}_random", **ends, "p": p}


def _member_of(view: View, cell: Cell) -> np.ndarray:
    """The member of each evaluation prompt, as a number."""
    sizes = view.plan.dataset(cell).member_rows("eval").values()
    return np.repeat(np.arange(len(sizes)), [rows.stop - rows.start for rows in sizes])


def _left(view: View, cell: Cell, circuit: str, condition: Condition, metric: str) -> np.ndarray:
    """What is left of each input's metric, in units of λ(M) − λ(∅) of its task."""
    values = view.values(cell, circuit, condition, metric)
    full, empty = (view.reference(cell.source, condition.eval_patch, s, metric) for s in SIDES)
    left = np.full(len(values), np.nan)
    for rows in view.plan.dataset(cell).member_rows("eval").values():
        top, bottom = float(full[rows].mean()), float(empty[rows].mean())
        if not np.isnan(faithfulness(top, top, bottom)):
            left[rows] = (values[rows] - bottom) / (top - bottom)
    return left


Partitioned = tuple[Sequence[int], Sequence[int]]


def _agreement(a: Partitioned, b: Partitioned) -> tuple[float, int]:
    """Of two partitions over the nodes that both have, and how many these are."""
    of_a, of_b = (dict(zip(*of, strict=True)) for of in (a, b))
    both = sorted(of_a.keys() & of_b.keys())
    return agreement([of_a[n] for n in both], [of_b[n] for n in both]), len(both)
