"""The plan: every cell and every shard of a run, and the identity that its id is the hash of.

A plan is a pure function of a resolved config. A shard is a block of rows of one member task, and
its rows fill Zarr chunks whole. So their number divides the member's prompts, or, where no such
number is near what is wanted, the last shard of each member is smaller, and chunks are made to fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgesweep.engine.methods import METHODS
from edgesweep.storage.rundir import SCHEMA_VERSION
from edgesweep.sweeps.granularity.words import told
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import Cell, CircuitSpec, Condition, Part, Rows
from edgesweep.sweeps.plan.identity import identity_of
from edgesweep.sweeps.plan.rows import (
    EVAL_INPUTS,
    FOLDED_INPUTS,
    NAMED,
    blocks_of,
    leaves_a_shard,
    rows_a_shard,
)

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import Nodes
    from edgesweep.sweeps.interactions.graphs import Graph
    from edgesweep.sweeps.plan.resolve import Dataset, Resolved, ResolvedModel
    from edgesweep.sweeps.regions.sites import UnitsOf
    from edgesweep.sweeps.stages.base import Stage


@dataclass(frozen=True)
class Plan:
    """What a run consists of.

    Attributes:
        resolved: the config with its models, datasets and nodes.
        cells: in the config's order.
        all_stages: what a run does, by name.
    """

    resolved: Resolved
    cells: tuple[Cell, ...]
    all_stages: Mapping[str, Stage[Any]] = field(repr=False)

    @property
    def config(self) -> Config:
        return self.resolved.config

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Interaction graphs."""
        return self.resolved.graphs

    @property
    def rois(self) -> tuple[UnitsOf, ...]:
        """Units of sites that have regions of interest."""
        return self.resolved.rois

    def model(self, cell: Cell) -> ResolvedModel:
        return self.resolved.models[cell.model]

    def nodes(self, cell: Cell) -> Nodes:
        """How the cell's model is taken apart."""
        return self.resolved.nodes[cell.model, cell.nodes]

    def dataset(self, cell: Cell) -> Dataset:
        return self._datasets[cell.model, cell.dataset]

    def dataset_of(self, key: str) -> Dataset:
        return self._datasets_by_key[key]

    @cached_property
    def _datasets(self) -> dict[tuple[str, str], Dataset]:
        return {(d.model, d.key): d for d in self.resolved.datasets.values()}

    @cached_property
    def _datasets_by_key(self) -> dict[str, Dataset]:
        return {d.key: d for d in reversed(self.resolved.datasets.values())}  # of alike, the first

    @cached_property
    def identity(self) -> dict[str, Any]:
        return identity_of(self.resolved)

    @cached_property
    def run_id(self) -> str:
        return f"{self.config.name}-{digest(self.identity)[:12]}"

    # --- shards --------------------------------------------------------------------------------
    @cached_property
    def stages(self) -> dict[str, tuple[Any, ...]]:
        """Shards of every stage, in the order in which they are handed out."""
        return {name: tuple(stage.shards(self)) for name, stage in self.all_stages.items()}

    def stage(self, name: str) -> Stage[Any]:
        return self.all_stages[name]

    def of_cell(self, cell: Cell) -> dict[str, list[Any]]:
        """A cell's shards by stage."""
        return self._by_cell.get(cell, {})

    @cached_property
    def _by_cell(self) -> dict[Cell, dict[str, list[Any]]]:
        found: dict[Cell, dict[str, list[Any]]] = {}
        for name, shards in self.stages.items():
            for shard in shards:
                if (cell := getattr(shard, "cell", None)) is not None:
                    found.setdefault(cell, {}).setdefault(name, []).append(shard)
        return found

    # --- what shards read ----------------------------------------------------------------------
    def ways(self, model: str) -> list[tuple[str, Nodes]]:
        """The ways in which a model is taken apart; of names for the same, the first."""
        found: dict[str, tuple[str, Nodes]] = {}
        for name in self.config.sweep.nodes:
            nodes = self.resolved.nodes[model, name]
            found.setdefault(nodes.digest, (name, nodes))
        return list(found.values())

    def trained(self, digest: str) -> tuple[str, ...]:
        """The dictionaries that a way to take a model apart waits for."""
        return (groups.dictionaries(digest),) if digest in self._trained else ()

    @cached_property
    def _trained(self) -> frozenset[str]:
        """Digests of the ways of which a dictionary is trained by the run."""
        ways = self.resolved.nodes.values()
        return frozenset(nodes.digest for nodes in ways if any(True for _ in nodes.trained()))

    def values(self, cell: Cell, patch: str) -> tuple[str, ...]:
        """What a cell's runs wait for under a patch: dictionaries, means and partitions."""
        means = (groups.means(cell.source),) if patch == "mean" else ()
        parted = (groups.parted(cell.source),) if self.nodes(cell).parted is not None else ()
        return (*self.trained(cell.features), *means, *parted)

    @property
    def mean_is_used(self) -> bool:
        return "mean" in (*self.config.sweep.build_patch, *self.config.evaluate.eval_patch)

    # --- conditions ----------------------------------------------------------------------------
    def conditions(self) -> list[Condition]:
        """Ablations under patches, of whole circuits and, if asked for, of their complements (by
        edges: a complement by nodes would not have `embed`)."""
        evaluate = self.config.evaluate
        both = list(itertools.product(evaluate.ablation, evaluate.eval_patch))
        complement = Part("complement")
        complements = [Condition("edge", patch, complement) for patch in evaluate.eval_patch]
        return [Condition(*pair) for pair in both] + complements * evaluate.complement

    def ran_conditions(self) -> list[Condition]:
        """Those for which it is noted what is run of each circuit: edge ablation is always, for
        tables and fits are of what it runs."""
        edge = [Condition("edge", patch) for patch in self.config.evaluate.eval_patch]
        return list(dict.fromkeys([*self.conditions(), *edge]))

    def block_conditions(self, cell: Cell) -> list[Condition]:
        """Block ablations: without each member's blocks, and with only them; mixtures alone."""
        members = self.dataset(cell).members
        if not self.has_blocks(cell) or len(members) < 2:
            return []
        return [
            Condition("edge", patch, Part(mode, member))
            for patch in self.config.evaluate.eval_patch
            for mode in ("without", "only")
            for member in members
        ]

    @property
    def fitted_condition(self) -> Condition:
        """Edge ablation under the first evaluation patch: what is fitted is what this runs."""
        return Condition("edge", self.config.evaluate.eval_patch[0])

    def has_blocks(self, cell: Cell) -> bool:
        blocks = self.config.blocks
        return blocks.fit != "none" and cell.method in blocks.method and not self.is_nodes(cell)

    # --- what a cell's method makes of it ------------------------------------------------------
    def is_nodes(self, cell: Cell) -> bool:
        """Whether its scores are of nodes."""
        return METHODS[cell.method].scores_nodes

    def n_scores(self, cell: Cell) -> int:
        """Scores an input: edges, or nodes that write. Of lists of edges, what is kept of all."""
        return self.nodes(cell).n_scores(cell)

    def position_shards(self, cell: Cell) -> int:
        """Ranges of target positions that a cell's inputs are split into."""
        return self.nodes(cell).position_shards if cell.is_sparse else 1

    def circuits(self, cell: Cell) -> list[CircuitSpec]:
        """The circuits of a cell, in the config's order, thresholds ascending. A search such as
        ACDC finds one: the edges whose mean score is above its τ."""
        if cell.tau is not None:
            return [CircuitSpec(cell.key, "mean", "value", cell.tau)]
        evaluate = self.config.evaluate
        thresholds = evaluate.thresholds(self.n_scores(cell), of_nodes=self.is_nodes(cell))
        return [
            CircuitSpec(cell.key, aggregation, selection, threshold)
            for aggregation in evaluate.aggregation
            for selection, grid in thresholds.items()
            for threshold in grid
        ]

    # --- blocks of inputs ----------------------------------------------------------------------
    def n_inputs(self, split: str) -> int:
        """Prompts of a split of each member."""
        return self.config.data.n_build if split == "build" else self.config.data.n_eval

    def build_rows(self, cell: Cell) -> list[Rows]:
        """The blocks of build inputs of its shards: a whole member where the method needs it."""
        return blocks_of(self.dataset(cell), self.n_inputs("build"), self._build_shard_rows(cell))

    def leaf_rows(self, cell: Cell) -> int:
        """Inputs that are attributed and written at once, and whose sums are a leaf of the tree."""
        if METHODS[cell.method].whole:
            return self.config.data.n_build
        return self.shard_rows(self.dataset(cell), "build", self.nodes(cell))

    def leaves_a_shard(self, cell: Cell) -> int:
        """One, or where there are many, so many that their sums are one node of the tree, of all
        inputs and of each member's."""
        leaf, n = self.leaf_rows(cell), self.config.data.n_build
        if cell.is_sparse or self.config.execution.shard_inputs:
            return 1
        members, block = len(self.dataset(cell).members), self.config.scores.block
        return leaves_a_shard(-(-n // leaf), members, block // leaf)

    def _build_shard_rows(self, cell: Cell) -> int:
        return self.leaf_rows(cell) * self.leaves_a_shard(cell)

    def blocks(self, dataset: str) -> list[Rows]:
        """The blocks of build inputs of shards whose sums fold and that are no cell's."""
        n = self.n_inputs("build")
        step = rows_a_shard(n, self.config.execution.shard_inputs or FOLDED_INPUTS)
        return blocks_of(self.dataset_of(dataset), n, step)

    def eval_rows(self, dataset: Dataset) -> list[Rows]:
        """The blocks of evaluation inputs of shards that run circuits or references."""
        return blocks_of(dataset, self.n_inputs("eval"), self.eval_shard_rows)

    def eval_chunk(self, dataset: Dataset) -> int:
        """Inputs a chunk of what these write."""
        return self._chunk(dataset, "eval", self.eval_shard_rows)

    @property
    def eval_shard_rows(self) -> int:
        """Some numbers an input are all that they write, so they have more inputs than others."""
        target = self.config.execution.shard_inputs or EVAL_INPUTS
        return rows_a_shard(self.n_inputs("eval"), target)

    def build_chunk(self, cell: Cell) -> int:
        """Inputs a chunk of the scores that its shards write."""
        leaf, repeats = self.leaf_rows(cell), self.position_shards(cell)
        return self._chunk(self.dataset(cell), "build", leaf, repeats)

    def build_shard_chunk(self, cell: Cell) -> int:
        """Inputs a chunk of what they write once a shard."""
        return self._chunk(self.dataset(cell), "build", self._build_shard_rows(cell))

    def rows(self, dataset: Dataset, split: str, nodes: Nodes) -> list[Rows]:
        """The blocks of inputs of a split; none holds two members."""
        return blocks_of(dataset, self.n_inputs(split), self.shard_rows(dataset, split, nodes))

    def shard_rows(self, dataset: Dataset, split: str, nodes: Nodes) -> int:
        """Inputs a shard, as asked for or as the nodes want; the last of each member may have
        fewer."""
        target = self.config.execution.shard_inputs or nodes.target_rows(self.config)
        return rows_a_shard(self.n_inputs(split), target)

    def chunk_rows(self, dataset: Dataset, split: str, nodes: Nodes, repeats: int = 1) -> int:
        """Inputs a chunk of an array over a split, `repeats` times one after another: no two shards
        may write into one. Alone, a smaller last shard ends where the array ends."""
        return self._chunk(dataset, split, self.shard_rows(dataset, split, nodes), repeats)

    def _chunk(self, dataset: Dataset, split: str, step: int, repeats: int = 1) -> int:
        alone = len(dataset.members) * repeats == 1
        return step if alone else math.gcd(step, self.n_inputs(split))

    def batches(self, rows: Rows) -> int:
        """Micro-batches of a block."""
        return -(-(rows.stop - rows.start) // self.config.execution.micro_batch)

    def document(self) -> dict[str, Any]:
        """What plan.json holds of it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "identity": self.identity,
            "cells": [self._told(cell) for cell in self.cells],
            "kinds": {name: told(self.resolved.ways(name)) for name in self.config.sweep.nodes},
            "graphs": [graph.as_dict() for graph in self.graphs],
            "rois": [
                of.as_dict() | {"classes": list(self.dataset_of(of.dataset).data.classes)}
                for of in self.rois
            ],
            "datasets": [
                {"members": list(d.members)} | {k: getattr(d, k) for k in _OF_DATASET}
                for d in self.resolved.datasets.values()
            ],
            "stages": {
                stage: [s.key for s in shards] if len(shards) <= NAMED else len(shards)
                for stage, shards in self.stages.items()
            },
        }

    def _told(self, cell: Cell) -> dict[str, Any]:
        return {
            **cell.as_dict(),
            "seed": self.dataset(cell).seed,
            **({} if cell.seed is None else {"order": cell.seed}),
            "scores": "nodes" if self.is_nodes(cell) else "edges",
            "graph": self.nodes(cell).graph_place(cell),
        }


_OF_DATASET = ("key", "model", "task", "seed")
