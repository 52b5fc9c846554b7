"""The plan: every cell and every shard of a run, and the identity that its id is the hash of.

A plan is a pure function of a resolved config. A shard is a block of rows of one member task; its
rows fill Zarr chunks whole, so their number divides the member's prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from engine.blockmodel import chain_seeds
from engine.methods import METHODS
from engine.methods.ig_inputs import RULE
from sweeps.canonical import digest
from sweeps.cells import (
    STAGES,
    AttributeShard,
    BlockShard,
    Cell,
    CircuitSpec,
    Condition,
    EvaluateShard,
    MeanShard,
    ReduceShard,
    ReferenceShard,
    Rows,
    Shard,
)
from sweeps.config import Config, ConfigError
from sweeps.resolve import Dataset, Resolved, ResolvedModel

#: raised when the meaning of a stored number changes
SCHEMA_VERSION = 1
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
        return self.resolved.datasets[cell.model, cell.task]

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
        for shard in _shards(self):
            shards[shard.stage].append(shard)
        return {stage: tuple(items) for stage, items in shards.items()}

    @property
    def mean_is_used(self) -> bool:
        return "mean" in (*self.config.sweep.build_patch, *self.config.evaluate.eval_patch)

    def conditions(self) -> list[Condition]:
        """Ablations under patches, of whole circuits."""
        evaluate = self.config.evaluate
        return list(
            itertools.starmap(Condition, itertools.product(evaluate.ablation, evaluate.eval_patch))
        )

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
        return blocks.fit != "none" and cell.method in blocks.method

    @property
    def fitted_patch(self) -> str:
        """The evaluation patch whose pruned circuit is fitted: the first."""
        return self.config.evaluate.eval_patch[0]

    def circuits(self, cell: Cell) -> list[CircuitSpec]:
        """The circuits of a cell, in the config's order, thresholds ascending."""
        grids = self.config.evaluate.thresholds()
        return [
            CircuitSpec(cell.key, aggregation, selection, threshold)
            for aggregation in self.config.evaluate.aggregation
            for selection in self.config.evaluate.selection
            for threshold in grids[selection]
        ]

    def metrics(self) -> tuple[str, ...]:
        """Metrics of circuits."""
        return self.config.evaluate.metric

    def reference_metrics(self) -> tuple[str, ...]:
        """Those of the references: also what a run says of the model's own skill."""
        return tuple(dict.fromkeys((*self.metrics(), "logit_diff", "accuracy")))

    def shard_rows(self, cell_or_dataset: Cell | Dataset, split: str) -> int:
        """Inputs a shard."""
        dataset = (
            cell_or_dataset
            if isinstance(cell_or_dataset, Dataset)
            else self.dataset(cell_or_dataset)
        )
        data = self.config.data
        n = data.n_build if split == "build" else data.n_eval
        return rows_a_shard(n, self.target_rows(dataset))

    def target_rows(self, dataset: Dataset) -> int:
        """Inputs of a shard as asked for, or of some 4 MB of scores."""
        if asked := self.config.execution.shard_inputs:
            return asked
        rows = SHARD_BYTES // (4 * self.resolved.models[dataset.model].graph.n_edges)
        return min(max(rows, SHARD_INPUTS[0]), SHARD_INPUTS[1])

    def rows(self, dataset: Dataset, split: str) -> list[Rows]:
        """The blocks of inputs of a split; none holds two members."""
        data = self.config.data
        n = data.n_build if split == "build" else data.n_eval
        step = self.shard_rows(dataset, split)
        return [
            Rows(member, m * n + start, m * n + start + step)
            for m, member in enumerate(dataset.members)
            for start in range(0, n, step)
        ]

    def document(self) -> dict[str, Any]:
        """What plan.json holds of it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "identity": self.identity,
            "cells": [cell.as_dict() for cell in self.cells],
            "datasets": [
                {"key": d.key, "model": d.model, "task": d.task, "members": list(d.members)}
                for d in self.resolved.datasets.values()
            ],
            "stages": {stage: [s.key for s in shards] for stage, shards in self.stages.items()},
        }


def make_plan(resolved: Resolved) -> Plan:
    """All cells of a resolved config.

    Raises:
        ConfigError: the prompts cannot be split into shards of a sensible size.
    """
    cells = (_cell(resolved, *point) for point in _points(resolved))
    plan = Plan(resolved, tuple(dict.fromkeys(cells)))
    for dataset in resolved.datasets.values():
        _check_split(plan, dataset, "build", resolved.config.data.n_build)
        _check_split(plan, dataset, "eval", resolved.config.data.n_eval)
    return plan


def _check_split(plan: Plan, dataset: Dataset, split: str, n: int) -> None:
    """Refuse a number of prompts, such as a large prime, that falls into shards of a few rows."""
    target = plan.target_rows(dataset)

    def is_poor(number: int) -> bool:
        return 4 * rows_a_shard(number, target) < min(number, target)

    if is_poor(n):
        near = next(
            m for step in itertools.count(1) for m in (n - step, n + step) if not is_poor(m)
        )
        raise ConfigError(
            f"data.n_{split}: {n} prompts cannot be split evenly into shards of about {target}; "
            f"the nearest number that can is {near}"
        )


def _points(resolved: Resolved) -> Iterator[tuple[Any, ...]]:
    sweep = resolved.config.sweep
    return itertools.product(
        resolved.datasets.values(),
        sweep.nodes,
        sweep.method,
        sweep.steps,
        sweep.build_patch,
        sweep.build_metric,
    )


def _cell(
    resolved: Resolved,
    dataset: Dataset,
    nodes: str,
    method: str,
    steps: int,
    build_patch: str,
    build_metric: str,
) -> Cell:
    """Steps of a method that takes none are None, so they make no further cells."""
    takes = "steps" in METHODS[method].takes
    return Cell(
        model=dataset.model,
        task=dataset.task,
        dataset=dataset.key,
        nodes=nodes,
        method=method,
        steps=steps if takes else None,
        build_patch=build_patch,
        build_metric=build_metric,
        rule=RULE if takes else "",
    )


def identity_of(resolved: Resolved) -> dict[str, Any]:
    """What changes numbers. Not here: executor, address, actors, GPUs, caps, interpreters."""
    config = resolved.config
    execution = config.execution
    sweep = config.sweep.model_dump(mode="json", exclude={"model", "task"})
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "seed": config.seed,
        "models": {m.label: m.source.digest for m in resolved.models.values()},
        "tasks": {f"{d.model}/{d.task}": d.fingerprint for d in resolved.datasets.values()},
        "sweep": sweep,
        "evaluate": config.evaluate.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json"),
        "blocks": config.blocks.model_dump(mode="json"),
        "numerics": {
            "dtype": execution.dtype,
            "threads": execution.threads,
            "micro_batch": execution.micro_batch,
            "circuits_per_batch": execution.circuits_per_batch,
            "shard_inputs": execution.shard_inputs,
        },
    }


def rows_a_shard(n: int, target: int) -> int:
    """The divisor of `n` nearest to `target` by ratio: chunks must fill whole, members apart."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return min(divisors, key=lambda d: (max(d / target, target / d), d))


# --- shards -----------------------------------------------------------------------------------


def _shards(plan: Plan) -> Iterator[Shard]:
    for dataset in plan.resolved.datasets.values():
        if plan.mean_is_used:
            yield from _mean_shards(plan, dataset)
        yield from _reference_shards(plan, dataset)
    for cell in plan.cells:
        yield from _attribute_shards(plan, cell)
        yield from _reduce_shards(plan, cell)
        yield from _evaluate_shards(plan, cell)
        yield from _block_shards(plan, cell)


def _mean_shards(plan: Plan, dataset: Dataset) -> Iterator[Shard]:
    pooled = plan.config.data.mean_positions == "pooled"
    for index, group in enumerate(dataset.build_groups(pooled)):
        yield MeanShard(dataset.key, group, index)


def _reference_shards(plan: Plan, dataset: Dataset) -> Iterator[Shard]:
    for patch in plan.config.evaluate.eval_patch:
        for rows in plan.rows(dataset, "eval"):
            yield ReferenceShard(dataset.key, patch, rows)


def _attribute_shards(plan: Plan, cell: Cell) -> Iterator[AttributeShard]:
    for index, rows in enumerate(plan.rows(plan.dataset(cell), "build")):
        yield AttributeShard(cell, rows, index)


def _reduce_shards(plan: Plan, cell: Cell) -> Iterator[Shard]:
    shards = list(_attribute_shards(plan, cell))
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
