"""What a run will cost, before it starts: passes, bytes on disk, an actor's memory at its peak."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch

from edgesweep.engine.memory import PROCESS_BYTES, VARIANT_METHODS, Footprint
from edgesweep.engine.methods import METHODS
from edgesweep.storage import layout
from edgesweep.storage.fold import AGGREGATIONS, STATS
from edgesweep.sweeps.granularity.feature_cost import (
    feature_bytes,
    feature_passes,
    training_flop,
    training_passes,
)
from edgesweep.sweeps.plan.cells import (
    AttributeShard,
    Cell,
    DictionaryShard,
    EvaluateShard,
    MeanShard,
    ProbeShard,
    ReferenceShard,
    Rows,
    Shard,
)
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.points import settings_of
from edgesweep.sweeps.plan.resolve import Dataset

RECORD_BYTES = 1500
#: one edge of a list, compressed
LISTED_BYTES = 14
#: patches whose values are those of a run of their own
RUN_PATCHES = frozenset({"counterfactual", "resample", "noise"})
#: what a pass reaches of the rate of a bare matrix product (SmolLM2 and GPT-2-sized, 1 thread)
EFFICIENCY = 0.6


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan.

    Attributes:
        forwards, backwards: passes of one micro-batch; an ablated run of one circuit is a forward.
        disk_bytes: of the run directory when done.
        actor_bytes: resident memory of one actor at its peak.
        seconds: of all its actors on this machine, by the rate of its matrix products; rough.
    """

    forwards: int
    backwards: int
    disk_bytes: int
    actor_bytes: int
    seconds: float


def estimate(plan: Plan) -> Estimate:
    """Counted from shapes; nothing is loaded."""
    shards = [shard for shards in plan.stages.values() for shard in shards]
    passes = [_passes(plan, shard) for shard in shards]
    forwards, backwards = (math.ceil(sum(kind)) for kind in zip(*passes, strict=True))
    work = sum(sum(p) * _pass_flop(plan, s) for p, s in zip(passes, shards, strict=True))
    work += sum(training_flop(plan, s) for s in shards if isinstance(s, DictionaryShard))
    execution = plan.config.execution
    rate = EFFICIENCY * matrix_rate(execution.threads) * execution.actors
    disk = sum(_disk_bytes(plan))
    return Estimate(forwards, backwards, disk, actor_bytes(plan), work / rate)


def _pass_flop(plan: Plan, shard: Shard) -> float:
    """Floating-point operations of one forward of a micro-batch; a backward to activations takes
    about as many. Logits are had at one position an input."""
    datasets = plan.resolved.datasets.values()
    if isinstance(shard, DictionaryShard):
        dataset = next(d for d in datasets if d.model == shard.model)
    elif isinstance(shard, MeanShard | ReferenceShard):
        dataset = next(d for d in datasets if d.key == shard.dataset)
    else:
        dataset = plan.dataset(shard.cell)
    sizes = plan.resolved.models[dataset.model].sizes
    table = sizes.n_vocab * sizes.d_model
    rows = plan.config.execution.micro_batch
    return 2.0 * rows * ((sizes.n_params - table) * dataset.length + table)


@cache
def matrix_rate(threads: int) -> float:
    """Floating-point operations a second of this machine's float32 matrix product, measured now."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(240, 576), torch.ones(576, 1536)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return 2.0 * left.numel() * right.shape[1] / sorted(times)[len(times) // 2]


def _passes(plan: Plan, shard: Shard) -> tuple[float, float]:
    """Forwards and backwards of one shard, each of a micro-batch."""
    if isinstance(shard, AttributeShard):
        cell = shard.cell
        if cell.features:
            return feature_passes(plan, shard)
        graph, settings = plan.model(cell).graph, settings_of(cell)
        cost = METHODS[cell.method].passes(graph, settings, cell.build_patch)
        n = _batches(plan, shard.rows)
        if cell.method in VARIANT_METHODS:
            return n * cost.forwards * _changed_share(plan, shard), 0
        return n * cost.forwards, n * cost.backwards
    if isinstance(shard, ReferenceShard):
        return _batches(plan, shard.rows) * (2 + (shard.eval_patch in RUN_PATCHES)), 0
    if isinstance(shard, EvaluateShard):
        n_circuits = max(len(shard.circuits), 1)
        patch = shard.condition.eval_patch in RUN_PATCHES
        return _batches(plan, shard.rows) * (n_circuits + patch), 0
    if isinstance(shard, ProbeShard):
        return _batches(plan, shard.rows) * _probe_passes(plan, shard), 0
    if isinstance(shard, DictionaryShard):
        return training_passes(plan, shard), 0
    return float(isinstance(shard, MeanShard)), 0


def _changed_share(plan: Plan, shard: AttributeShard) -> float:
    """The share of positions that variants of a run are computed at: from the first change on."""
    if shard.cell.build_patch != "counterfactual":
        return 1.0
    prompts = plan.dataset(shard.cell).data.build[shard.rows.start : shard.rows.stop]
    same = min(
        next((i for i, (a, b) in enumerate(zip(p.clean, p.patch, strict=True)) if a != b), 0)
        for p in prompts
    )
    return 1 - same / max(len(p) for p in prompts)


def _probe_passes(plan: Plan, shard: ProbeShard) -> float:
    """A run that starts at its edge's target counts as half a forward."""
    measures = plan.config.measures
    if shard.kind == "minimality":
        return 2 + measures.minimality / 2
    return 2 + measures.interpolate * measures.fractions / 2


def _batches(plan: Plan, rows: Rows) -> int:
    return -(-(rows.stop - rows.start) // plan.config.execution.micro_batch)


def _disk_bytes(plan: Plan) -> Iterator[int]:
    yield RECORD_BYTES * sum(map(len, plan.stages.values()))
    for dataset in plan.resolved.datasets.values():
        if plan.mean_is_used:
            yield _mean_bytes(plan, dataset)
    n_metrics = len(plan.metrics())
    for cell in plan.cells:
        n_edges, dataset = plan.model(cell).graph.n_edges, plan.dataset(cell)
        if cell.features:
            n_edges = plan.config.features.edges
        n_build, n_eval = len(dataset.data.build), len(dataset.data.evaluation)
        n_scores = plan.n_scores(cell)
        if cell.is_sparse:
            yield LISTED_BYTES * n_build * plan.config.features.position_shards * (cell.keep or 0)
        else:
            yield 4 * n_build * n_scores
            yield 8 * len(STATS) * n_scores * len(plan.build_rows(cell))
        yield n_edges * (len(plan.circuits(cell)) + cell.is_refined)
        yield 8 * n_scores * len(dataset.subsets) * (len(AGGREGATIONS) + len(layout.COUNTS))
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
    if cell.features:
        return PROCESS_BYTES + feature_bytes(plan, cell, NUMBER_BYTES[execution.dtype])
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
    rows = execution.micro_batch * execution.circuits_per_batch
    batch = _circuit_sizes(plan, cell)[-execution.circuits_per_batch :]
    work = max(
        build.attribution_bytes(cell.method, rows) + shard, evaluation.evaluation_bytes(batch)
    )
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


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _drawn(plan: Plan, dataset: Dataset) -> str:
    return f", seed {dataset.seed}" if len(plan.config.seeds) > 1 else ""


def describe(plan: Plan) -> str:
    """What `--dry-run` prints."""
    cost = estimate(plan)
    lines = [f"run {plan.run_id}", f"cells: {len(plan.cells)}"]
    for cell in plan.cells:
        steps = "" if cell.steps is None else f", {cell.steps} steps ({cell.rule})"
        steps += "" if cell.tau is None else f", tau {cell.tau:g}"
        steps += f", {cell.candidates} edges" if cell.is_refined else ""
        lines.append(
            f"  {cell.key}: {cell.model}, {cell.task}{_drawn(plan, plan.dataset(cell))}, "
            f"{cell.nodes}, {cell.method}{steps}, {cell.build_patch}, {cell.build_metric}; "
            f"{len(plan.circuits(cell))} circuits x {len(plan.conditions())} conditions"
        )
    shards = {stage: len(items) for stage, items in plan.stages.items() if items}
    lines.append(
        f"shards: {sum(shards.values())} ({', '.join(f'{k} {v}' for k, v in shards.items())})"
    )
    lines += [
        f"  {dataset.task} for {dataset.model}{_drawn(plan, dataset)}: "
        f"{plan.shard_rows(dataset, 'build')} of {plan.config.data.n_build} build prompts a shard, "
        f"{plan.shard_rows(dataset, 'eval')} of {plan.config.data.n_eval} evaluation prompts"
        for dataset in plan.resolved.datasets.values()
    ]
    lines += [
        f"passes: {cost.forwards} forwards, {cost.backwards} backwards of a micro-batch of "
        f"{plan.config.execution.micro_batch} (an ablated run counts once a circuit)",
        f"time: about {_duration(cost.seconds)} with {plan.config.execution.actors} actors of "
        f"{plan.config.execution.threads} thread(s) as fast as this machine's",
        f"disk: {cost.disk_bytes / 1e6:.1f} MB",
        f"memory: {cost.actor_bytes / 1e9:.2f} GB an actor at its peak, "
        f"{plan.config.execution.actors} actors",
    ]
    return "\n".join(lines)
