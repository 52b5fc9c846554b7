"""The shards of a plan, stage by stage, in the order in which they are handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgesweep.engine.blockmodel import chain_seeds
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import (
    AttributeShard,
    BlockShard,
    BootstrapShard,
    Cell,
    DictionaryShard,
    EvaluateShard,
    MeanShard,
    ProbeShard,
    ReduceShard,
    ReferenceShard,
    Shard,
)
from edgesweep.sweeps.plan.resolve import Dataset

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.plan import Plan


def shards_of(plan: Plan) -> Iterator[Shard]:
    """Every shard of a plan."""
    yield from _dictionary_shards(plan)
    for dataset in plan.resolved.datasets.values():
        for features in plan.feature_digests(dataset):
            if plan.mean_is_used:
                yield from _mean_shards(plan, dataset, features)
            yield from _reference_shards(plan, dataset, features)
    for cell in plan.cells:
        yield from _attribute_shards(plan, cell)
        yield from _reduce_shards(plan, cell)
        yield from _evaluate_shards(plan, cell)
        yield from _probe_shards(plan, cell)
        yield from _bootstrap_shards(plan, cell)
        yield from _block_shards(plan, cell)


def _dictionary_shards(plan: Plan) -> Iterator[Shard]:
    for features in plan.resolved.features.values():
        for dictionary in features.trained():
            yield DictionaryShard(features.model, dictionary.site, dictionary.digest)


def _mean_shards(plan: Plan, dataset: Dataset, features: str) -> Iterator[Shard]:
    pooled = plan.config.data.mean_positions == "pooled"
    for index, group in enumerate(dataset.build_groups(pooled)):
        yield MeanShard(dataset.key, group, index, features)


def _reference_shards(plan: Plan, dataset: Dataset, features: str) -> Iterator[Shard]:
    for patch in plan.config.evaluate.eval_patch:
        for rows in plan.rows(dataset, "eval"):
            yield ReferenceShard(dataset.key, patch, rows, features)


def _attribute_shards(plan: Plan, cell: Cell) -> Iterator[AttributeShard]:
    """Of scores that are lists, a shard may have some of the target positions only."""
    blocks = plan.config.features.position_shards if cell.is_sparse else 1
    rows = plan.build_rows(cell)
    for block in range(blocks):
        for index, mine in enumerate(rows):
            yield AttributeShard(cell, mine, block * len(rows) + index, block, blocks)


def _reduce_shards(plan: Plan, cell: Cell) -> Iterator[Shard]:
    shards = list(_attribute_shards(plan, cell))
    if cell.is_sparse:  # members are had together, over the same edges
        yield ReduceShard(cell, "all", tuple(s.key for s in shards))
        return
    for subset in plan.dataset(cell).subsets:
        leaves = tuple(s.key for s in shards if subset in ("all", s.rows.member))
        yield ReduceShard(cell, subset, leaves)


def _evaluate_shards(plan: Plan, cell: Cell) -> Iterator[Shard]:
    circuits = [c.key for c in plan.circuits(cell)]
    size = plan.config.execution.circuits_per_batch
    for condition in plan.conditions():
        for rows in plan.rows(plan.dataset(cell), "eval"):
            for index, start in enumerate(range(0, len(circuits), size)):
                group = tuple(circuits[start : start + size])
                yield EvaluateShard(cell, group, index, condition, rows)


def _block_shards(plan: Plan, cell: Cell) -> Iterator[Shard]:
    """The chains, and the evaluation of what they find: its circuit is known only by then."""
    if not plan.has_blocks(cell):
        return
    seed = int(digest({"seed": plan.config.seed, "cell": asdict(cell)})[:8], 16)
    for chain, chain_seed in enumerate(chain_seeds(seed, plan.config.blocks.chains)):
        yield BlockShard(cell, chain, chain_seed, plan.fitted_patch)
    for condition in plan.block_conditions(cell):
        for rows in plan.rows(plan.dataset(cell), "eval"):
            yield EvaluateShard(cell, (), 0, condition, rows)


def _probe_shards(plan: Plan, cell: Cell) -> Iterator[ProbeShard]:
    """Single edges: of a circuit (minimality), and of the full model (interpolation)."""
    measures, dataset = plan.config.measures, plan.dataset(cell)
    if measures.minimality and not plan.is_nodes(cell):
        for rows in plan.rows(dataset, "eval"):
            yield ProbeShard(cell, "minimality", plan.fitted_patch, rows)
    if measures.interpolate and cell.method == "eap":
        for rows in plan.rows(dataset, "build"):
            yield ProbeShard(cell, "interpolation", cell.build_patch, rows)


def _bootstrap_shards(plan: Plan, cell: Cell) -> Iterator[BootstrapShard]:
    """Not of a search, whose scores are of one order of removals, nor of what no input changes."""
    inputs_matter = cell.tau is None and cell.seed is None
    if not plan.config.measures.bootstrap or not inputs_matter or cell.features:
        return
    n, dataset = plan.config.data.n_build, plan.dataset(cell)
    members = tuple((m * n, (m + 1) * n) for m in range(len(dataset.members)))
    yield BootstrapShard(cell, tuple(s.key for s in _attribute_shards(plan, cell)), members)
