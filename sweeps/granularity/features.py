"""Features of dictionaries and error terms: the nodes that a user's dictionaries make of a model.

Which edges there are, the scores say: those that were found, or for methods that score nodes all
edges among the nodes of the cell's circuits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.features.ablation.evaluation import (
    evaluate_feature_circuits,
    evaluate_feature_nodes,
    evaluate_feature_reference,
)
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.values import node_mean_partials
from edgesweep.engine.graph import FeatureGraph, circuit_stats, touched_nodes
from edgesweep.engine.graph.circuits import CircuitStats
from edgesweep.engine.methods import METHODS
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import read_static, write_static
from edgesweep.storage.graphs import write_graph
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.config.features import Trained
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.schema import FEATURE_METHODS, NUMBER_BYTES
from edgesweep.sweeps.granularity import feature_cost, feature_scores
from edgesweep.sweeps.granularity.featuresets import FeatureSet, SiteDictionary, feature_set
from edgesweep.sweeps.granularity.words import FEATURES, Words, sites_told

if TYPE_CHECKING:
    from edgesweep.engine.graph import Graph
    from edgesweep.engine.graph.circuits import EdgeMask
    from edgesweep.engine.methods import Passes as MethodPasses
    from edgesweep.engine.methods import Settings
    from edgesweep.engine.network import PromptBatch
    from edgesweep.engine.patches import MeanPartial
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import ByName, Measure
    from edgesweep.sweeps.granularity.regionsets import RegionSet
    from edgesweep.sweeps.plan.cells import Cell, Condition
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset, ResolvedModel
    from edgesweep.sweeps.stages.attribute import AttributeShard
    from edgesweep.sweeps.stages.base import Passes
    from edgesweep.tasks import Example

#: beside metrics: activation mass of circuits, and what of it took the mask of an error node
MASS, FALLBACK = "mass", "fallback_mass"


@dataclass(frozen=True)
class Features:
    """A model's features under one set of dictionaries (`granularity.base.Nodes`)."""

    chosen: FeatureSet
    same_in_all_cells: bool = False
    distances: tuple[tuple[str, str], ...] = layout.DISTANCES
    words: Words = FEATURES

    @property
    def digest(self) -> str:
        return self.chosen.digest

    @property
    def error(self) -> str:
        return self.chosen.settings.error

    # --- what a plan asks ----------------------------------------------------------------------
    @property
    def methods(self) -> Collection[str]:
        return FEATURE_METHODS

    @property
    def n_nodes(self) -> int:
        return self.chosen.n_nodes

    @property
    def max_edges(self) -> int:
        return self.chosen.settings.edges

    @property
    def position_shards(self) -> int:
        return self.chosen.settings.position_shards

    @property
    def parted(self) -> RegionSet | None:
        return None

    def sites(self) -> list[dict[str, Any]]:
        return sites_told(self.chosen)

    def fields(self, method: str) -> dict[str, Any]:
        if METHODS[method].scores_nodes:
            return {"features": self.digest}
        settings = self.chosen.settings
        return {"features": self.digest, "target": settings.target, "keep": settings.keep}

    def trained(self) -> Iterable[SiteDictionary]:
        return self.chosen.trained()

    def n_scores(self, cell: Cell) -> int:
        return self.max_edges if cell.is_sparse else self.n_nodes

    def target_rows(self, config: Config) -> int:
        """A micro-batch: inputs cost more than over heads, and write less."""
        return config.execution.micro_batch

    def mean_shape(self) -> tuple[int, int]:
        return 1, sum(d.n_features + d.width for d in self.chosen.dictionaries)

    def graph_place(self, cell: Cell) -> str:
        return layout.graph(cell.key)

    def prepare(self, run: RunDirectory, cell: Cell) -> None:
        """Nothing is known before the scores."""

    def passes(self, plan: Plan, shard: AttributeShard) -> Passes:
        return feature_cost.passes(plan, shard, self.chosen)

    def batch_passes(self, cell: Cell, settings: Settings) -> MethodPasses | None:
        return None  # what an edge costs hangs on what is active

    def actor_bytes(self, plan: Plan, cell: Cell, mean_bytes: int) -> int:
        number_bytes = NUMBER_BYTES[plan.config.execution.dtype]
        return feature_cost.actor_bytes(plan, cell, self.chosen, number_bytes)

    # --- what is known once scores are reduced -------------------------------------------------
    def write_graph(self, run: RunDirectory, cell: Cell, kept: Callable[[], np.ndarray]) -> None:
        if not cell.is_sparse:
            write_static(run.aggregates, layout.edges(cell.key), np.flatnonzero(kept()))
        write_graph(run, cell.key, self.graph(run, cell))

    def graph(self, run: RunDirectory, cell: Cell) -> Graph:
        return _graph(run.address, cell, self.chosen)

    def numbers(self, graph: Graph) -> np.ndarray:
        assert isinstance(graph, FeatureGraph)
        return self.chosen.numbers.of(graph)

    def ablatable(self, graph: Graph, mask: EdgeMask) -> EdgeMask:
        """Where error terms are fixed, they are no sources."""
        assert isinstance(graph, FeatureGraph)
        return mask if self.error == "node" else graph.without_errors(mask)

    def stats(self, graph: Graph, mask: EdgeMask, ablation: str, of_nodes: bool) -> CircuitStats:
        """Node ablation runs all edges that the sites allow among its nodes, and not only those
        that were found. What is possible is so among all nodes of the dictionaries: which were
        found hangs on what was asked for."""
        stats = circuit_stats(graph, mask)
        n_edges = stats.n_edges
        if ablation == "node":
            assert isinstance(graph, FeatureGraph)
            n_edges = graph.n_edges_among(touched_nodes(graph, mask))
        return CircuitStats(stats.n_nodes, n_edges, self.chosen.n_edges_possible)

    # --- what a worker does --------------------------------------------------------------------
    def mean_partials(self, context: Context) -> Callable[..., dict[str, MeanPartial]]:
        return partial(node_mean_partials, context.feature_model(self.chosen))

    def scores(
        self, context: Context, cell: Cell, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, Any]]:
        return feature_scores.of_nodes(context, cell, self.chosen, prompts, micro_batch)

    def lists(
        self, context: Context, shard: AttributeShard, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, np.ndarray]]:
        return feature_scores.lists_of_edges(context, shard, self.chosen, prompts, micro_batch)

    def reference(self, context: Context, dataset: str, eval_patch: str) -> Measure:
        """The model, the empty graph, and how far the full one is from the model."""
        features = context.feature_model(self.chosen)
        patch = context.feature_patch(eval_patch, dataset, "eval", self.digest)

        def measure(batch: PromptBatch) -> ByName:
            given, metrics = FeatureBatch.of(features, batch, patch), context.config
            found = evaluate_feature_reference(given, metrics.reference_metrics, errors=self.error)
            sides = {"full": found.full, "empty": found.empty}
            values = {(side, m): row for side, by in sides.items() for m, row in by.items()}
            return values | dict(zip(self.distances, (found.distance, found.scale), strict=True))

        return measure

    def evaluation(
        self, context: Context, cell: Cell, condition: Condition, masks: np.ndarray
    ) -> Measure:
        """By a circuit's edges, or by the nodes that these touch."""
        features, graph = context.feature_model(self.chosen), self.graph(context.run, cell)
        assert isinstance(graph, FeatureGraph)
        patch = context.feature_patch(condition.eval_patch, cell.dataset, "eval", self.digest)
        by_nodes = condition.ablation == "node" or METHODS[cell.method].scores_nodes
        kept = np.stack([touched_nodes(graph, mask) for mask in masks])
        metrics, errors = context.config.evaluate.metric, self.error

        def measure(batch: PromptBatch) -> ByName:
            given = FeatureBatch.of(features, batch, patch)
            if by_nodes:
                return evaluate_feature_nodes(given, graph, kept, metrics, errors=errors)
            found, run = evaluate_feature_circuits(given, graph, masks, metrics, errors=errors)
            return found | {MASS: run.mass, FALLBACK: run.fallback_mass}

        return measure


@lru_cache(maxsize=8)
def _graph(where: Path | str, cell: Cell, chosen: FeatureSet) -> FeatureGraph:
    run, name = RunDirectory.open(where), layout.edges(cell.key)
    if cell.is_sparse:
        ends = Committed(run).read(layout.AGGREGATES, name)
        ends = ends[ends[:, 0] >= 0]
        return chosen.graph(ends[:, 0], ends[:, 1])
    return chosen.complete_graph(read_static(run.aggregates, name)[0])


class FeaturesKind:
    """Sets of dictionaries, by name in `features` of the config (`granularity.base.Kind`)."""

    methods: Collection[str] = FEATURE_METHODS

    def resolve(
        self, config: Config, nodes: str, model: ResolvedModel, datasets: Sequence[Dataset]
    ) -> Features:
        prompts = [d.fingerprint for d in datasets if d.model == model.label]
        chosen = feature_set(config, nodes, model.label, model.source, prompts)
        return Features(chosen)

    def check(self, config: Config, nodes: str) -> None:
        for key, patches in (
            ("sweep.build_patch", config.sweep.build_patch),
            ("evaluate.eval_patch", config.evaluate.eval_patch),
        ):
            if "noise" in patches:
                raise ConfigError(
                    f"{key}: 'noise' is not defined for nodes {nodes!r}; allowed: counterfactual, "
                    "resample, mean, zero"
                )
        if any(grid.shares for grid in config.evaluate.grids().values()):
            raise ConfigError(
                f"evaluate.threshold: {config.evaluate.threshold!r} are shares of all edges, and "
                f"which edges nodes {nodes!r} have their scores say; give numbers of edges"
            )
        given = config.features[nodes].dictionaries
        trained = [site for site, how in given.items() if isinstance(how, Trained)]
        if trained and config.seeds != (config.seed,):
            raise ConfigError(
                f"sweep.seed: {list(config.seeds)} evaluates on prompts that "
                f"features.dictionaries.{trained[0]} is trained on; train it before "
                "(edgesweep train dictionary), or leave sweep.seed out"
            )
        for key, value in (
            ("evaluate.complement", config.evaluate.complement),
            ("measures.minimality", config.measures.minimality),
            ("measures.interpolate", config.measures.interpolate),
            ("measures.rebuild", config.measures.rebuild),
        ):
            if value:
                raise ConfigError(
                    f"{key}: {value} is for nodes 'heads'; leave it out with {nodes!r}"
                )
