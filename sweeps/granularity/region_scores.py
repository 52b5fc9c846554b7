"""Scores over regions: of nodes as a table, of edges as a list, as over features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgesweep.engine.features.edgelist import EdgeList, InputEdges
from edgesweep.engine.features.edges import EdgeSettings, FeatureEdges
from edgesweep.engine.features.nodes import NodeAttribution, attribute_clean, attribute_nodes
from edgesweep.engine.regions.attribution import region_edges, region_scores
from edgesweep.engine.regions.graph import PartitionedGraph, Partitions
from edgesweep.sweeps.granularity.feature_scores import as_lists, ends_of, quadrature, table_of

if TYPE_CHECKING:
    from edgesweep.engine.features.batch import FeatureBatch
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.granularity.regionsets import RegionSet
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.stages.attribute import AttributeShard
    from edgesweep.tasks import Example


#: how a set's features are parted, and the complete graph of that
Parted = tuple[Partitions, PartitionedGraph]


def of_nodes(
    context: Context,
    cell: Cell,
    chosen: RegionSet,
    parted: Parted,
    prompts: Sequence[Example],
    micro_batch: int,
) -> Iterator[dict[str, Any]]:
    """Scores of all regions and rests, batch by batch; 0 of numbers that no node has."""
    regions, graph = parted
    numbers = chosen.numbers.of(graph)
    for ends in ends_of(context, cell, chosen, prompts, micro_batch):
        found = _gradients(ends, cell)
        scores = np.zeros((len(ends.batch), chosen.n_nodes), dtype=np.float32)
        scores[:, numbers] = region_scores(regions, ends, found)
        yield table_of(scores, found)


def lists_of_edges(
    context: Context,
    shard: AttributeShard,
    chosen: RegionSet,
    parted: Parted,
    prompts: Sequence[Example],
    micro_batch: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The largest edges of a block of inputs (of the split's `prompts`)."""
    cell, mine = shard.cell, prompts[shard.rows.start : shard.rows.stop]
    regions, graph = parted
    numbers = torch.as_tensor(np.append(chosen.numbers.of(graph), chosen.n_nodes))
    how = EdgeSettings(target=cell.target, **quadrature(cell))
    for ends in ends_of(context, cell, chosen, mine, micro_batch):
        nodes = _gradients(ends, cell)
        found = region_edges(regions, graph, ends, nodes, cell.build_metric, how)
        lists = [_listed(graph, numbers, row, cell.keep or 0) for row in found.weights]
        counts = np.zeros_like(found.residual, dtype=np.int64)
        yield as_lists(FeatureEdges(lists, found.residual, found.scale, counts), cell.keep or 0)


def _gradients(ends: FeatureBatch, cell: Cell) -> NodeAttribution:
    """ḡ of every site."""
    if cell.steps is None:
        return attribute_clean(ends, cell.build_metric)
    return attribute_nodes(ends, cell.build_metric, steps=cell.steps, rule=cell.rule)


def _listed(
    graph: PartitionedGraph, numbers: torch.Tensor, weights: np.ndarray, keep: int
) -> InputEdges:
    """The largest edges of one input."""
    listed = EdgeList(int(numbers[-1]) + 1, 1, keep)
    for block in graph.blocks:
        targets = numbers[graph.site_nodes(block.site)]
        table = torch.as_tensor(weights[block.edges]).reshape(len(targets), -1)
        sources = numbers[graph.edge_source[block.edges][: table.shape[1]]]  # the same for all
        listed.add(targets, sources, table, table)
    return listed.result()
