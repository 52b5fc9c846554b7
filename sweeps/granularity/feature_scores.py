"""Scores over features: of nodes as a table, of edges as a list of the largest of each input.

A number's way: prompts -> of each input its largest edges, as a list -> one block of rows of the
cell's lists; the driver commits it; the reducer adds up the lists of all inputs edge by edge, keeps
the strongest edges, and from then on the cell has a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, FeatureEdges, attribute_edges
from edgesweep.engine.features.nodes import NodeAttribution, attribute_nodes, node_scores
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.granularity.featuresets import FeatureSet
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.stages.attribute import AttributeShard
    from edgesweep.tasks import Example


def of_nodes(
    context: Context, cell: Cell, chosen: FeatureSet, prompts: Sequence[Example], micro_batch: int
) -> Iterator[dict[str, Any]]:
    """Scores of all features and error nodes, batch by batch, in the arrays of a cell over
    heads."""
    for ends in ends_of(context, cell, chosen, prompts, micro_batch):
        found = attribute_nodes(ends, cell.build_metric, **quadrature(cell))
        scores = np.zeros((len(ends.batch), ends.numbers.logits), dtype=np.float32)
        for row, of_input in zip(scores, node_scores(ends, found), strict=True):
            row[of_input.node] = of_input.score
        yield table_of(scores, found)


def table_of(scores: np.ndarray, found: NodeAttribution) -> dict[str, Any]:
    """As the arrays of a cell over heads."""
    unknown = np.full(len(scores), np.nan)
    return {
        "scores": torch.from_numpy(scores),
        "residual": unknown,
        "metric_clean": found.metric_clean.double().cpu().numpy(),
        "metric_baseline": unknown,
    }


def quadrature(cell: Cell) -> dict[str, Any]:
    """Of the path; attribution patching takes the gradient at its clean end."""
    if cell.steps is None:
        return {"steps": 1, "rule": "right"}
    return {"steps": cell.steps, "rule": cell.rule}


def ends_of(
    context: Context, cell: Cell, chosen: FeatureSet, prompts: Sequence[Example], micro_batch: int
) -> Iterator[FeatureBatch]:
    features = context.feature_model(chosen)
    patch = context.feature_patch(cell.build_patch, cell.dataset, "build", cell.features)
    for start in range(0, len(prompts), micro_batch):
        batch = PromptBatch.make(prompts[start : start + micro_batch])
        yield FeatureBatch.of(features, batch, patch)


# --- edges ------------------------------------------------------------------------------------


def lists_of_edges(
    context: Context,
    shard: AttributeShard,
    chosen: FeatureSet,
    prompts: Sequence[Example],
    micro_batch: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The largest edges of a block of inputs (of the split's `prompts`) and target positions."""
    positions, mine = _positions(shard, prompts), prompts[shard.rows.start : shard.rows.stop]
    for ends in ends_of(context, shard.cell, chosen, mine, micro_batch):
        yield as_lists(_edges(shard, ends, positions), shard.cell.keep or 0)


def _positions(shard: AttributeShard, prompts: Sequence[Example]) -> range:
    """A shard's target positions, of all prompts of the split: a batch's width hangs on the
    micro-batch, and shards of the same inputs may differ in that."""
    longest = max(len(prompt) for prompt in prompts)
    bounds = np.linspace(0, longest, shard.blocks + 1).round().astype(int)
    return range(int(bounds[shard.block]), int(bounds[shard.block + 1]))


def _edges(shard: AttributeShard, ends: FeatureBatch, positions: range) -> FeatureEdges:
    cell = shard.cell
    nodes = attribute_nodes(ends, cell.build_metric, **quadrature(cell))
    how = EdgeSettings(target=cell.target, keep=cell.keep, **quadrature(cell))
    return attribute_edges(ends, nodes, cell.build_metric, how, positions)


def as_lists(found: FeatureEdges, keep: int) -> dict[str, np.ndarray]:
    """Rows of equal length; what is over is -1 and NaN."""
    n = len(found.inputs)
    arrays = {
        name: np.full((n, keep), -1 if dtype == "int64" else np.nan, dtype=dtype)
        for name, dtype in layout.LISTS.items()
    }
    for name, rows in arrays.items():
        for row, edges in zip(rows, found.inputs, strict=True):
            row[: len(edges.source)] = getattr(edges, name)
    scale = np.where(found.scale > 0, found.scale, 1.0)
    rest = {
        "count": [len(edges.source) for edges in found.inputs],
        "dropped": [edges.dropped_sum for edges in found.inputs],
        "dropped_abs": [edges.dropped_abs for edges in found.inputs],
        "residual": (found.residual / scale).max(1),
    }
    return arrays | {name: np.asarray(v, dtype=np.float64) for name, v in rest.items()}
