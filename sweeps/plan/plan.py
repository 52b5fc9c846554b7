"""The plan: every cell and every shard of a run, and the identity that its id is the hash of.

A plan is a pure function of a resolved config. A shard is a block of rows of one member task, and
its rows fill Zarr chunks whole. So their number divides the member's prompts, or, where no such
number is near what is wanted, the last shard of each member is smaller, and chunks are made to fit.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgesweep.engine.methods import METHODS
from edgesweep.sweeps.config.load import Config
from edgesweep.sweeps.granularity.featuresets import FeatureSet
from edgesweep.sweeps.granularity.words import features_told, heads_told
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import STAGES, Cell, CircuitSpec, Condition, Rows, Shard
from edgesweep.sweeps.plan.points import cells_of
from edgesweep.sweeps.plan.resolve import Dataset, Resolved, ResolvedModel
from edgesweep.sweeps.plan.shards import shards_of

#: raised when the meaning of a stored number changes
SCHEMA_VERSION = 2
SHARD_BYTES = 4 * 2**20
SHARD_INPUTS = (16, 256)


@dataclass(frozen=True)
class Plan:
    """What a run consists of.

    Attributes:
        resolved: the config with its models and datasets.
        cells: in the config's order.
    """

    resolved: Resolved
    cells: tuple[Cell, ...]

    @property
    def config(self) -> Config:
        return self.resolved.config

    def model(self, cell: Cell) -> ResolvedModel:
        return self.resolved.models[cell.model]

    def dataset(self, cell: Cell) -> Dataset:
        return self._datasets[cell.model, cell.dataset]

    @cached_property
    def _datasets(self) -> dict[tuple[str, str], Dataset]:
        return {(d.model, d.key): d for d in self.resolved.datasets.values()}

    @cached_property
    def identity(self) -> dict[str, Any]:
        return identity_of(self.resolved)

    @cached_property
    def run_id(self) -> str:
        return f"{self.config.name}-{digest(self.identity)[:12]}"

    @cached_property
    def stages(self) -> dict[str, tuple[Shard, ...]]:
        """Shards of every stage, in the order in which they are handed out."""
        shards: dict[str, list[Shard]] = {stage: [] for stage in STAGES}
        for shard in shards_of(self):
            shards[shard.stage].append(shard)
        return {stage: tuple(items) for stage, items in shards.items()}

    @property
    def mean_is_used(self) -> bool:
        return "mean" in (*self.config.sweep.build_patch, *self.config.evaluate.eval_patch)

    def conditions(self) -> list[Condition]:
        """Ablations under patches, of whole circuits and, if asked for, of their complements (by
        edges: a complement by nodes would not have `embed`)."""
        evaluate = self.config.evaluate
        both = list(itertools.product(evaluate.ablation, evaluate.eval_patch))
        complements = [Condition("edge", patch, "complement") for patch in evaluate.eval_patch]
        return [Condition(*pair) for pair in both] + complements * evaluate.complement

    def block_conditions(self, cell: Cell) -> list[Condition]:
        """Block ablations: without each member's blocks, and with only them; mixtures alone."""
        members = self.dataset(cell).members
        if not self.has_blocks(cell) or len(members) < 2:
            return []
        return [
            Condition("edge", patch, f"{mode}:{member}")
            for patch in self.config.evaluate.eval_patch
            for mode in ("without", "only")
            for member in members
        ]

    def has_blocks(self, cell: Cell) -> bool:
        blocks = self.config.blocks
        return blocks.fit != "none" and cell.method in blocks.method and not self.is_nodes(cell)

    # --- what a cell's method makes of it ------------------------------------------------------
    def is_nodes(self, cell: Cell) -> bool:
        """Whether its scores are of nodes."""
        return METHODS[cell.method].scores_nodes

    def n_scores(self, cell: Cell) -> int:
        """Scores an input: edges, or nodes that write. Of lists of edges, what is kept of all."""
        if cell.is_sparse:
            return self.config.features.edges
        if cell.features:
            return self.features(cell).n_nodes
        graph = self.model(cell).graph
        return len(graph.sources) if self.is_nodes(cell) else graph.n_edges

    def features(self, cell: Cell) -> FeatureSet:
        """The sites and dictionaries of a cell over features."""
        return self.resolved.features[cell.model]

    def feature_digests(self, dataset: Dataset) -> list[str]:
        """What means and references are had of: "" over heads, the digest over features."""
        nodes = self.config.sweep.nodes
        found = {"heads": ""}
        if "features" in nodes:
            found["features"] = self.resolved.features[dataset.model].digest
        return [found[n] for n in nodes]

    def build_rows(self, cell: Cell) -> list[Rows]:
        """The blocks of build inputs of its shards: a whole member where the method needs it."""
        dataset = self.dataset(cell)
        if METHODS[cell.method].whole:
            return self._blocks(dataset, self.config.data.n_build, self.config.data.n_build)
        return self.rows(dataset, "build")

    def build_chunk(self, cell: Cell) -> int:
        """Inputs a chunk of what its shards write."""
        if METHODS[cell.method].whole:
            return self.config.data.n_build
        repeats = self.config.features.position_shards if cell.is_sparse else 1
        return self.chunk_rows(self.dataset(cell), "build", repeats)

    @property
    def fitted_patch(self) -> str:
        """The evaluation patch whose pruned circuit is fitted: the first."""
        return self.config.evaluate.eval_patch[0]

    def circuits(self, cell: Cell) -> list[CircuitSpec]:
        """The circuits of a cell, in the config's order, thresholds ascending. A search such as
        ACDC finds one: the edges whose mean score is above its τ."""
        if cell.tau is not None:
            return [CircuitSpec(cell.key, "mean", "value", cell.tau)]
        evaluate, grids = self.config.evaluate, self.config.evaluate.thresholds()
        if self.is_nodes(cell):
            nodes = evaluate.node_thresholds(self.n_scores(cell))
            grids = {s: nodes if s.startswith("topk") else grid for s, grid in grids.items()}
        return [
            CircuitSpec(cell.key, aggregation, selection, threshold)
            for aggregation in evaluate.aggregation
            for selection in evaluate.selection
            for threshold in grids[selection]
        ]

    def metrics(self) -> tuple[str, ...]:
        """Metrics of circuits."""
        return self.config.evaluate.metric

    def reference_metrics(self) -> tuple[str, ...]:
        """Those of the references: also what a run says of the model's own skill."""
        return tuple(dict.fromkeys((*self.metrics(), "logit_diff", "accuracy")))

    def n_inputs(self, split: str) -> int:
        """Prompts of a split of each member."""
        return self.config.data.n_build if split == "build" else self.config.data.n_eval

    def shard_rows(self, dataset: Dataset, split: str) -> int:
        """Inputs a shard; the last of each member may have fewer."""
        return rows_a_shard(self.n_inputs(split), self.target_rows(dataset))

    def chunk_rows(self, dataset: Dataset, split: str, repeats: int = 1) -> int:
        """Inputs a chunk of an array over a split, `repeats` times one after another: no two shards
        may write into one. Alone, a smaller last shard ends where the array ends."""
        step, n = self.shard_rows(dataset, split), self.n_inputs(split)
        return step if len(dataset.members) * repeats == 1 else math.gcd(step, n)

    def target_rows(self, dataset: Dataset) -> int:
        """Inputs of a shard as asked for, or of some 4 MB of scores; over features, whose inputs
        cost more and write less, a micro-batch."""
        if asked := self.config.execution.shard_inputs:
            return asked
        if self.resolved.features:
            return self.config.execution.micro_batch
        rows = SHARD_BYTES // (4 * self.resolved.models[dataset.model].graph.n_edges)
        return min(max(rows, SHARD_INPUTS[0]), SHARD_INPUTS[1])

    def rows(self, dataset: Dataset, split: str) -> list[Rows]:
        """The blocks of inputs of a split; none holds two members."""
        return self._blocks(dataset, self.n_inputs(split), self.shard_rows(dataset, split))

    @staticmethod
    def _blocks(dataset: Dataset, n: int, step: int) -> list[Rows]:
        return [
            Rows(member, m * n + start, m * n + min(start + step, n))
            for m, member in enumerate(dataset.members)
            for start in range(0, n, step)
        ]

    def document(self) -> dict[str, Any]:
        """What plan.json holds of it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "identity": self.identity,
            "cells": [
                {**c.as_dict(), "seed": self.dataset(c).seed, "scores": self._scored(c)}
                for c in self.cells
            ],
            "kinds": {nodes: self._told(nodes) for nodes in self.config.sweep.nodes},
            "datasets": [
                {
                    "key": d.key,
                    "model": d.model,
                    "task": d.task,
                    "seed": d.seed,
                    "members": list(d.members),
                }
                for d in self.resolved.datasets.values()
            ],
            "stages": {stage: [s.key for s in shards] for stage, shards in self.stages.items()},
        }

    def _scored(self, cell: Cell) -> str:
        return "nodes" if self.is_nodes(cell) else "edges"

    def _told(self, nodes: str) -> dict[str, Any]:
        return (
            features_told(self.resolved.features.values()) if nodes == "features" else heads_told()
        )


def make_plan(resolved: Resolved) -> Plan:
    """All cells of a resolved config."""
    return Plan(resolved, cells_of(resolved))


def identity_of(resolved: Resolved) -> dict[str, Any]:
    """What changes numbers. Not here: executor, address, actors, GPUs, caps, interpreters."""
    config = resolved.config
    execution = config.execution
    sweep = config.sweep.model_dump(mode="json", exclude={"model", "task", "seed"})
    if config.seeds != (config.seed,):
        sweep["seed"] = list(config.seeds)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "seed": config.seed,
        "models": {m.label: m.source.digest for m in resolved.models.values()},
        "tasks": {_named(d, config.seed): d.fingerprint for d in resolved.datasets.values()},
        "sweep": sweep,
        "features": _feature_identity(resolved),
        "evaluate": config.evaluate.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json"),
        "blocks": config.blocks.model_dump(mode="json"),
        "measures": config.measures.model_dump(mode="json"),
        "numerics": {
            "dtype": execution.dtype,
            "threads": execution.threads,
            "micro_batch": execution.micro_batch,
            "circuits_per_batch": execution.circuits_per_batch,
            "shard_inputs": execution.shard_inputs,
        },
    }


def _named(dataset: Dataset, seed: int) -> str:
    name = f"{dataset.model}/{dataset.task}"
    return name if dataset.seed == seed else f"{name}/seed {dataset.seed}"


def _feature_identity(resolved: Resolved) -> dict[str, Any]:
    """Nothing over heads. Where a dictionary lies is no identity; what it holds is."""
    if not resolved.features:
        return {}
    settings = resolved.config.features.model_dump(mode="json", exclude={"dictionaries"})
    return {**settings, "sets": {label: f.digest for label, f in resolved.features.items()}}


def rows_a_shard(n: int, target: int) -> int:
    """The divisor of `n` nearest to `target` by ratio, so that all shards are alike; where that
    would be less than a quarter of what is wanted (of a large prime it is 1), `target` itself."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    nearest = min(divisors, key=lambda d: (max(d / target, target / d), d))
    return nearest if 4 * nearest >= min(n, target) else target
