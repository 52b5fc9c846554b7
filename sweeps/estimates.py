"""What a run will cost, before it starts: passes, bytes on disk, an actor's memory at its peak."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from engine.memory import PROCESS_BYTES, Footprint
from engine.methods import METHODS, Settings
from storage.fold import AGGREGATIONS, STATS
from sweeps.cells import AttributeShard, Cell, EvaluateShard, MeanShard, ReferenceShard, Shard
from sweeps.plan import Plan
from sweeps.prepare import COUNTS
from sweeps.resolve import Dataset

RECORD_BYTES = 1500


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan.

    Attributes:
        forwards, backwards: passes of one micro-batch; an ablated run of one circuit is a forward.
        disk_bytes: of the run directory when done.
        actor_bytes: resident memory of one actor at its peak.
    """

    forwards: int
    backwards: int
    disk_bytes: int
    actor_bytes: int


def estimate(plan: Plan) -> Estimate:
    """Counted from shapes; nothing is loaded."""
    passes = [_passes(plan, shard) for shards in plan.stages.values() for shard in shards]
    forwards, backwards = (math.ceil(sum(kind)) for kind in zip(*passes, strict=True))
    return Estimate(forwards, backwards, sum(_disk_bytes(plan)), actor_bytes(plan))


def _passes(plan: Plan, shard: Shard) -> tuple[float, float]:
    """Forwards and backwards of one shard."""
    micro_batch = plan.config.execution.micro_batch
    if isinstance(shard, AttributeShard):
        cell = shard.cell
        cost = METHODS[cell.method].passes(
            plan.model(cell).graph, Settings(steps=cell.steps or 1), cell.build_patch
        )
        n = _batches(shard.rows.stop - shard.rows.start, micro_batch)
        return n * cost.forwards, n * cost.backwards
    if isinstance(shard, ReferenceShard):
        n = _batches(shard.rows.stop - shard.rows.start, micro_batch)
        return n * (2 + (shard.eval_patch == "counterfactual")), 0
    if isinstance(shard, EvaluateShard):
        n = _batches(shard.rows.stop - shard.rows.start, micro_batch)
        n_circuits = max(len(shard.circuits), 1)
        return n * (n_circuits + (shard.condition.eval_patch == "counterfactual")), 0
    if isinstance(shard, MeanShard):
        return 1, 0
    return 0, 0


def _batches(rows: int, micro_batch: int) -> int:
    return -(-rows // micro_batch)


def _disk_bytes(plan: Plan) -> Iterator[int]:
    yield RECORD_BYTES * sum(map(len, plan.stages.values()))
    for dataset in plan.resolved.datasets.values():
        if plan.mean_is_used:
            yield _mean_bytes(plan, dataset)
    n_metrics = len(plan.metrics())
    for cell in plan.cells:
        n_edges, dataset = plan.model(cell).graph.n_edges, plan.dataset(cell)
        n_build, n_eval = len(dataset.data.build), len(dataset.data.evaluation)
        yield 4 * n_build * n_edges
        yield 8 * len(STATS) * n_edges * (n_build // plan.shard_rows(dataset, "build"))
        yield 8 * n_edges * len(dataset.subsets) * (len(AGGREGATIONS) + len(COUNTS))
        n_conditions = len(plan.conditions())
        yield 8 * n_eval * n_metrics * n_conditions * len(plan.circuits(cell))
        yield 8 * n_eval * n_metrics * len(plan.block_conditions(cell))


def _mean_bytes(plan: Plan, dataset: Dataset) -> int:
    model = plan.resolved.models[dataset.model]
    pooled = plan.config.data.mean_positions == "pooled"
    positions = 1 if pooled else dataset.length
    groups = len(dataset.build_groups(pooled))
    return 4 * groups * positions * len(model.graph.sources) * model.sizes.d_model


NUMBER_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def actor_bytes(plan: Plan) -> int:
    """An actor's memory at the peak of its largest shard."""
    return max(_cell_bytes(plan, cell) for cell in plan.cells)


def _cell_bytes(plan: Plan, cell: Cell) -> int:
    model, dataset = plan.model(cell), plan.dataset(cell)
    execution = plan.config.execution
    build, evaluation = (
        Footprint(
            model.sizes,
            model.source.spec,
            min(execution.micro_batch, plan.shard_rows(dataset, split)),
            dataset.length,
            NUMBER_BYTES[execution.dtype],
        )
        for split in ("build", "eval")
    )
    n_edges = model.graph.n_edges
    shard = 8 * plan.shard_rows(dataset, "build") * n_edges + 3 * 8 * len(STATS) * n_edges
    batch = _circuit_sizes(plan, cell)[-execution.circuits_per_batch :]
    work = max(build.attribution_bytes(cell.method) + shard, evaluation.evaluation_bytes(batch))
    means = _mean_bytes(plan, dataset) if plan.mean_is_used else 0
    return PROCESS_BYTES + build.weights_bytes + work + means


def _circuit_sizes(plan: Plan, cell: Cell) -> list[int]:
    """A bound on the sources that each circuit reads, ascending: its edges where they are known.

    Node ablation reads no more: pruned, every node of a circuit is the source of one of its edges.
    """
    n_edges = plan.model(cell).graph.n_edges
    return sorted(
        min(int(c.threshold), n_edges) if c.selection.startswith("topk") else n_edges
        for c in plan.circuits(cell)
    )


def describe(plan: Plan) -> str:
    """What `--dry-run` prints."""
    cost = estimate(plan)
    lines = [f"run {plan.run_id}", f"cells: {len(plan.cells)}"]
    for cell in plan.cells:
        steps = "" if cell.steps is None else f", {cell.steps} steps ({cell.rule})"
        lines.append(
            f"  {cell.key}: {cell.model}, {cell.task}, {cell.nodes}, {cell.method}{steps}, "
            f"{cell.build_patch}, {cell.build_metric}; {len(plan.circuits(cell))} circuits x "
            f"{len(plan.conditions())} conditions"
        )
    shards = {stage: len(items) for stage, items in plan.stages.items() if items}
    lines.append(
        f"shards: {sum(shards.values())} ({', '.join(f'{k} {v}' for k, v in shards.items())})"
    )
    lines += [
        f"  {dataset.task} for {dataset.model}: {plan.shard_rows(dataset, 'build')} of "
        f"{plan.config.data.n_build} build prompts a shard, "
        f"{plan.shard_rows(dataset, 'eval')} of {plan.config.data.n_eval} evaluation prompts"
        for dataset in plan.resolved.datasets.values()
    ]
    lines += [
        f"passes: {cost.forwards} forwards, {cost.backwards} backwards of a micro-batch of "
        f"{plan.config.execution.micro_batch} (an ablated run counts once a circuit)",
        f"disk: {cost.disk_bytes / 1e6:.1f} MB",
        f"memory: {cost.actor_bytes / 1e9:.2f} GB an actor at its peak, "
        f"{plan.config.execution.actors} actors",
    ]
    return "\n".join(lines)
