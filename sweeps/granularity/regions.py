"""Regions of features: the nodes that a partition of each site's features makes of a model.

As over features (`granularity.features`), with regions and rests in place of features and errors.
Which feature is in which region is found for each dataset, before its cells are attributed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.graph import FeatureGraph, circuit_stats, touched_nodes
from edgesweep.engine.graph.circuits import CircuitStats
from edgesweep.engine.methods import METHODS
from edgesweep.engine.regions.graph import PartitionedGraph
from edgesweep.engine.regions.running import run_region_circuits, run_region_nodes
from edgesweep.storage import CommitLog, RunDirectory, StorageError
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.schema import FEATURE_METHODS
from edgesweep.sweeps.granularity import region_scores
from edgesweep.sweeps.granularity.features import Features, FeaturesKind
from edgesweep.sweeps.granularity.regionsets import RegionSet, region_set
from edgesweep.sweeps.granularity.words import REGIONS, Words, sites_told
from edgesweep.sweeps.regions.parted import cost
from edgesweep.sweeps.regions.parted.reading import partitions_of, sizes_of

if TYPE_CHECKING:
    from edgesweep.engine.graph import Graph
    from edgesweep.engine.graph.circuits import EdgeMask
    from edgesweep.engine.network import PromptBatch
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import ByName, Measure
    from edgesweep.sweeps.plan.cells import Cell, Condition
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset, ResolvedModel
    from edgesweep.sweeps.stages.attribute import AttributeShard
    from edgesweep.sweeps.stages.base import Passes
    from edgesweep.tasks import Example


@dataclass(frozen=True)
class Regions(Features):
    """A model's features under one set of dictionaries, in regions (`granularity.base.Nodes`)."""

    chosen: RegionSet
    words: Words = REGIONS

    @property
    def parted(self) -> RegionSet:
        return self.chosen

    @property
    def max_edges(self) -> int:
        return min(self.chosen.settings.edges, self.chosen.n_edges_possible)

    def fields(self, method: str) -> dict[str, Any]:
        """Of each input no more edges are kept than there can be."""
        told = super().fields(method)
        return told | ({"keep": min(told["keep"], self.max_edges)} if "keep" in told else {})

    def sites(self) -> list[dict[str, Any]]:
        sizes = self.chosen.sizes
        told = sites_told(self.chosen)
        return [{**site, "word": "roi", "n_nodes": sizes[site["site"]]} for site in told]

    def passes(self, plan: Plan, shard: AttributeShard) -> Passes:
        return cost.passes(plan, shard, self.chosen)

    def stats(self, graph: Graph, mask: EdgeMask, ablation: str, of_nodes: bool) -> CircuitStats:
        stats = circuit_stats(graph, mask)
        n_edges = stats.n_edges
        assert isinstance(graph, PartitionedGraph)
        if ablation == "node":
            n_edges = graph.n_edges_among(touched_nodes(graph, mask))
        return CircuitStats(stats.n_nodes, n_edges, graph.n_edges_of_all)

    def graph(self, run: RunDirectory, cell: Cell) -> Graph:
        """It knows how many edges there can be among the regions that were found: where a block
        model says how many, fewer than places are held for."""
        found = super().graph(run, cell)
        assert isinstance(found, PartitionedGraph)
        try:
            found.n_edges_of_all = _n_edges_of_all(run.address, self.chosen, cell.dataset)
        except StorageError:  # a partition was lost and is being redone: places, meanwhile
            found.n_edges_of_all = self.chosen.n_edges_possible
        return found

    def scores(
        self, context: Context, cell: Cell, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, Any]]:
        parted = partitions_of(context, self.chosen, cell.dataset)
        return region_scores.of_nodes(context, cell, self.chosen, parted, prompts, micro_batch)

    def lists(
        self, context: Context, shard: AttributeShard, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, np.ndarray]]:
        chosen = self.chosen
        parted = partitions_of(context, chosen, shard.cell.dataset)
        lists = region_scores.lists_of_edges
        return lists(context, shard, chosen, parted, prompts, micro_batch)

    def evaluation(
        self, context: Context, cell: Cell, condition: Condition, masks: np.ndarray
    ) -> Measure:
        """By a circuit's edges, or by the nodes that these touch, of the complete graph."""
        regions, complete = partitions_of(context, self.chosen, cell.dataset)
        graph = self.graph(context.run, cell)
        assert isinstance(graph, FeatureGraph)
        patch = context.feature_patch(condition.eval_patch, cell.dataset, "eval", self.digest)
        by_nodes = condition.ablation == "node" or METHODS[cell.method].scores_nodes
        run = run_region_nodes if by_nodes else run_region_circuits
        kept = _in_complete(self.chosen, graph, complete, masks, by_nodes)

        def measure(batch: PromptBatch) -> ByName:
            given = FeatureBatch.of(regions.features, batch, patch)
            logits = run(regions, given.inputs, (given.clean, given.patch), complete, kept)
            return dict(given.measured(context.config.evaluate.metric, logits))

        return measure


@lru_cache(maxsize=8)
def _n_edges_of_all(where: Path | str, chosen: RegionSet, dataset: str) -> int:
    """Edges that the sites allow among all regions and rests of a dataset's partition."""
    run = RunDirectory.open(where)
    return chosen.n_edges_among(sizes_of(run, CommitLog(run), chosen, dataset))


def _in_complete(
    chosen: RegionSet,
    graph: FeatureGraph,
    complete: PartitionedGraph,
    masks: np.ndarray,
    by_nodes: bool,
) -> np.ndarray:
    """Kept edges of a cell's graph, or the nodes that they touch, as ones of the complete graph."""
    every, mine = (np.append(chosen.numbers.of(g), chosen.n_nodes) for g in (complete, graph))
    place = np.searchsorted(every, mine)
    if by_nodes:
        found = np.zeros((len(masks), len(complete.nodes)), dtype=bool)
        found[:, place] = np.stack([touched_nodes(graph, mask) for mask in masks])
        return found
    n = len(complete.nodes)
    codes, wanted = (
        (g.edge_target.astype(np.int64) + g.n_roots, g.edge_source) for g in (complete, graph)
    )
    edges = np.searchsorted(codes[0] * n + codes[1], place[wanted[0]] * n + place[wanted[1]])
    found = np.zeros((len(masks), complete.n_edges), dtype=bool)
    found[:, edges] = masks
    return found


class RegionsKind(FeaturesKind):
    """Sets of dictionaries with `regions` (`granularity.base.Kind`)."""

    methods: Collection[str] = FEATURE_METHODS

    def resolve(
        self, config: Config, nodes: str, model: ResolvedModel, datasets: Sequence[Dataset]
    ) -> Regions:
        found = super().resolve(config, nodes, model, datasets)
        return Regions(region_set(config, nodes, found.chosen, model.source))

    def check(self, config: Config, nodes: str) -> None:
        super().check(config, nodes)
        settings = config.features[nodes]
        for key, value, allowed in (
            ("target", settings.target, "attribution"),
            ("error", settings.error, "node"),
            ("position_shards", settings.position_shards, 1),
        ):
            if value != allowed:
                raise ConfigError(
                    f"features.{nodes}.{key}: {value!r} is of single features, and a region of "
                    f"them has none; allowed with regions: {allowed}"
                )
