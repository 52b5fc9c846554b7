"""Heads and MLPs: the nodes that the architecture itself has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgesweep.engine.evaluation import evaluate_circuits, evaluate_reference
from edgesweep.engine.graph import BY_SIZE, EdgeGraph, circuit_stats
from edgesweep.engine.memory import VARIANT_METHODS, Footprint
from edgesweep.engine.methods import METHODS, Attribution
from edgesweep.engine.model import ModelError, ModelSizes, ModelSource
from edgesweep.engine.model.kinds import kind_of as model_kind
from edgesweep.engine.model.kinds import skeleton_of
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.relevance import RelevanceError
from edgesweep.engine.patches import mean_partials
from edgesweep.storage import layout
from edgesweep.storage.fold import STATS
from edgesweep.storage.graphs import write_graph
from edgesweep.sweeps.candidates import read_candidates
from edgesweep.sweeps.config.load import ConfigError
from edgesweep.sweeps.config.schema import NUMBER_BYTES
from edgesweep.sweeps.granularity.words import HEADS, Words
from edgesweep.sweeps.plan.points import settings_of
from edgesweep.sweeps.stages.base import Passes

if TYPE_CHECKING:
    from edgesweep.engine.graph import Graph
    from edgesweep.engine.graph.circuits import CircuitStats, EdgeMask
    from edgesweep.engine.methods import Passes as MethodPasses
    from edgesweep.engine.methods import Settings
    from edgesweep.engine.patches import MeanPartial
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import ByName, Measure
    from edgesweep.sweeps.granularity.featuresets import SiteDictionary
    from edgesweep.sweeps.plan.cells import Cell, Condition
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset, ResolvedModel
    from edgesweep.sweeps.stages.attribute import AttributeShard
    from edgesweep.tasks import Example

#: about so many bytes of scores a shard, and from so many inputs to so many
SHARD_BYTES = 4 * 2**20
SHARD_INPUTS = (16, 256)


@dataclass(frozen=True)
class Heads:
    """A model's heads and MLPs (`granularity.base.Nodes`)."""

    label: str
    source: ModelSource
    digest: str = ""
    error: str = "node"
    same_in_all_cells: bool = True
    distances: tuple[tuple[str, str], ...] = ()
    position_shards: int = 1
    parted: None = None
    words: Words = HEADS

    @property
    def edge_graph(self) -> EdgeGraph:
        return _edge_graph(self.source)

    # --- what a plan asks ----------------------------------------------------------------------
    @property
    def methods(self) -> Collection[str]:
        return METHODS

    @property
    def n_nodes(self) -> int:
        return len(self.edge_graph.sources)

    @property
    def max_edges(self) -> int:
        return self.edge_graph.n_edges

    def sites(self) -> list[dict[str, Any]]:
        return []

    def fields(self, method: str) -> dict[str, Any]:
        return {}

    def trained(self) -> Iterable[SiteDictionary]:
        return ()

    def n_scores(self, cell: Cell) -> int:
        return self.n_nodes if METHODS[cell.method].scores_nodes else self.max_edges

    def target_rows(self, config: Config) -> int:
        rows = SHARD_BYTES // (4 * self.edge_graph.n_edges)
        return min(max(rows, SHARD_INPUTS[0]), SHARD_INPUTS[1])

    def mean_shape(self) -> tuple[int, int]:
        return self.n_nodes, _sizes(self.source).d_model

    def graph_place(self, cell: Cell) -> str:
        return layout.shared_graph(self.source.digest)

    def prepare(self, run: RunDirectory, cell: Cell) -> None:
        write_graph(run, cell.key, self.edge_graph)

    def passes(self, plan: Plan, shard: AttributeShard) -> Passes:
        cell = shard.cell
        cost = self.batch_passes(cell, settings_of(cell))
        n = plan.batches(shard.rows)
        if cell.method in VARIANT_METHODS:
            return Passes(n * cost.forwards * _changed_share(plan, shard))
        return Passes(n * cost.forwards, n * cost.backwards)

    def batch_passes(self, cell: Cell, settings: Settings) -> MethodPasses:
        return METHODS[cell.method].passes(self.edge_graph, settings, cell.build_patch)

    def actor_bytes(self, plan: Plan, cell: Cell, mean_bytes: int) -> int:
        dataset, execution = plan.dataset(cell), plan.config.execution
        build, evaluation = (
            Footprint(
                _sizes(self.source),
                self.source.spec,
                min(execution.micro_batch, plan.shard_rows(dataset, split, self)),
                dataset.length,
                NUMBER_BYTES[execution.dtype],
            )
            for split in ("build", "eval")
        )
        n_edges, inputs = self.edge_graph.n_edges, plan.shard_rows(dataset, "build", self)
        levels = plan.leaves_a_shard(cell).bit_length()
        shard = 8 * inputs * n_edges + (2 + levels) * 8 * len(STATS) * n_edges
        rows = execution.micro_batch * execution.circuits_per_batch
        batch = self._circuit_sizes(plan, cell)[-execution.circuits_per_batch :]
        attribution = build.attribution_bytes(cell.method, rows) + shard
        work = max(attribution, evaluation.evaluation_bytes(batch))
        return build.weights_bytes + work + mean_bytes

    def _circuit_sizes(self, plan: Plan, cell: Cell) -> list[int]:
        """A bound on the sources that each circuit reads, ascending: its edges where they are
        known. Node ablation reads no more: pruned, every node of a circuit is the source of one of
        its edges."""
        n_edges, reach = self.edge_graph.n_edges, plan.config.evaluate.reach
        searched = [n_edges] * (reach.at_once if reach is not None and cell.tau is None else 0)
        sizes = (
            min(int(c.threshold), n_edges) if c.selection in BY_SIZE else n_edges
            for c in plan.circuits(cell)
        )
        return sorted([*searched, *sizes])

    # --- what is known once scores are reduced -------------------------------------------------
    def write_graph(self, run: RunDirectory, cell: Cell, kept: Callable[[], np.ndarray]) -> None:
        """It was known before."""

    def graph(self, run: RunDirectory, cell: Cell) -> Graph:
        return self.edge_graph

    def numbers(self, graph: Graph) -> np.ndarray:
        return np.arange(len(graph.sources))

    def ablatable(self, graph: Graph, mask: EdgeMask) -> EdgeMask:
        return mask

    def stats(self, graph: Graph, mask: EdgeMask, ablation: str, of_nodes: bool) -> CircuitStats:
        return circuit_stats(graph, mask, by_nodes=of_nodes or ablation == "node")

    # --- what a worker does --------------------------------------------------------------------
    def mean_partials(self, context: Context) -> Callable[..., dict[str, MeanPartial]]:
        return partial(mean_partials, context.model(self.label))

    def scores(
        self, context: Context, cell: Cell, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, Any]]:
        model, method = context.model(self.label), METHODS[cell.method]
        patch = context.patch(cell.build_patch, cell.dataset, "build")
        candidates = read_candidates(context.run, cell) if cell.has_candidates else None
        rows = micro_batch * context.config.execution.circuits_per_batch
        settings = settings_of(cell, candidates=candidates, rows=rows)
        step = len(prompts) if method.whole else micro_batch
        for start in range(0, len(prompts), step):
            batch = PromptBatch.make(prompts[start : start + step])
            yield _as_arrays(method.attribute(model, batch, patch, cell.build_metric, settings))

    def lists(
        self, context: Context, shard: AttributeShard, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, np.ndarray]]:
        raise NotImplementedError("scores over heads are tables")

    def reference(self, context: Context, dataset: str, eval_patch: str) -> Measure:
        model = context.model(self.label)
        patch = context.patch(eval_patch, dataset, "eval")

        def measure(batch: PromptBatch) -> ByName:
            sides = evaluate_reference(model, batch, patch, context.config.reference_metrics)
            named = zip(("full", "empty"), sides, strict=True)
            return {(side, m): values for side, of in named for m, values in of.items()}

        return measure

    def evaluation(
        self, context: Context, cell: Cell, condition: Condition, masks: np.ndarray
    ) -> Measure:
        model = context.model(self.label)
        patch = context.patch(condition.eval_patch, cell.dataset, "eval")

        def measure(batch: PromptBatch) -> ByName:
            metrics = context.config.evaluate.metric
            return dict(evaluate_circuits(model, batch, masks, patch, metrics))

        return measure


class HeadsKind:
    """Every config can have heads (`granularity.base.Kind`)."""

    methods: Collection[str] = tuple(METHODS)

    def check(self, config: Config, nodes: str) -> None:
        """Scores that are to be ranked anew must be stored."""
        n, keep = config.measures.rebuild, config.scores.keep
        if n and keep != "all":
            raise ConfigError(
                f"measures.rebuild: {n} ranks stored scores anew, and scores.keep is {keep}; give "
                "scores.keep all, or leave measures.rebuild out"
            )

    def resolve(
        self, config: Config, nodes: str, model: ResolvedModel, datasets: Sequence[Dataset]
    ) -> Heads:
        try:
            _ = model.source.spec
        except ModelError as error:
            raise ConfigError(f"sweep.nodes: {nodes!r}: {error}") from None
        _check_rules(config, model.source)
        return Heads(model.label, model.source)


def _check_rules(config: Config, source: ModelSource) -> None:
    """Rules of relevance must fit the model's activations, which it has without its weights too."""
    kind = model_kind(source.config)
    for method in config.sweep.method:
        rules = getattr(METHODS[method], "rules", None)
        if rules is None:
            continue
        outline: Any = kind.network(skeleton_of(kind.auto, source.config), source.name, None)
        try:
            outline.under(rules)
        except RelevanceError as error:
            raise ConfigError(f"sweep.method: {method!r} of {source.name!r}: {error}") from None


@cache
def _edge_graph(source: ModelSource) -> EdgeGraph:
    return EdgeGraph(source.spec)


@cache
def _sizes(source: ModelSource) -> ModelSizes:
    return source.sizes


def _as_arrays(found: Attribution) -> dict[str, Any]:
    """Scores float32, where they are; the rest on the CPU, float64."""
    arrays: dict[str, Any] = {"scores": found.scores.float()}
    for name in layout.PER_INPUT:
        arrays[name] = getattr(found, name).to(torch.float64).cpu().numpy()
    return arrays


def _changed_share(plan: Plan, shard: AttributeShard) -> float:
    """The share of positions that variants of a run are computed at: from the first change on."""
    if shard.cell.build_patch != "counterfactual":
        return 1.0
    prompts = plan.dataset(shard.cell).data.build[shard.rows.start : shard.rows.stop]
    same = min(p.unchanged() for p in prompts)
    return 1 - same / max(len(p) for p in prompts)
