"""What a run will cost, before it starts: passes, bytes on disk, an actor's memory at its peak."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from edgesweep.engine.memory import PROCESS_BYTES
from edgesweep.storage import layout
from edgesweep.storage.fold import AGGREGATIONS, WORDS
from edgesweep.storage.packing.scores import bytes_of
from edgesweep.sweeps.config.schema import NUMBER_BYTES, Scores
from edgesweep.sweeps.granularity.kinds import kind_of
from edgesweep.sweeps.interactions.cost import disk_bytes as interactions_on_disk
from edgesweep.sweeps.interactions.cost import memory_bytes as interaction_bytes
from edgesweep.sweeps.interactions.cost import told as interactions_told
from edgesweep.sweeps.plan.cells import GivenCell
from edgesweep.sweeps.plan.rebuilding import rebuilt_specs
from edgesweep.sweeps.regions.cost import disk_bytes as rois_on_disk
from edgesweep.sweeps.regions.cost import memory_bytes as roi_bytes
from edgesweep.sweeps.regions.cost import told as rois_told
from edgesweep.sweeps.regions.parted.cost import disk_bytes as parted_on_disk
from edgesweep.sweeps.searches import rounds_of, searches_of
from edgesweep.sweeps.soundness.finished import SMALL_SHARDS
from edgesweep.sweeps.stages.bootstrap import resampled_bytes
from edgesweep.sweeps.stages.rebuild import rebuild_bytes

if TYPE_CHECKING:
    from edgesweep.sweeps.granularity.base import Nodes
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset

RECORD_BYTES = 1500
SMALL_BYTES = 2e9
#: one edge of a list, compressed
LISTED_BYTES = 14
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
    forwards = backwards = flop = seconds = 0.0
    for name, stage in plan.all_stages.items():
        for shard in plan.stages[name]:
            passes = stage.passes(plan, shard)
            forwards, backwards = forwards + passes.forwards, backwards + passes.backwards
            flop, seconds = flop + passes.flop, seconds + passes.seconds
            if both := passes.forwards + passes.backwards:
                flop += both * _pass_flop(plan, _dataset_of(plan, shard))
    execution = plan.config.execution
    rate = EFFICIENCY * matrix_rate(execution.threads) * execution.actors
    return Estimate(
        math.ceil(forwards),
        math.ceil(backwards),
        disk_bytes(plan),
        actor_bytes(plan),
        flop / rate + seconds / execution.actors,
    )


def _dataset_of(plan: Plan, shard: Any) -> Dataset:
    """The prompts that a shard runs."""
    if (cell := getattr(shard, "cell", None)) is not None:
        return plan.dataset(cell)
    if (key := getattr(shard, "dataset", None)) is not None:
        return plan.dataset_of(key)
    return next(d for d in plan.resolved.datasets.values() if d.model == shard.model)


def _pass_flop(plan: Plan, dataset: Dataset) -> float:
    """Floating-point operations of one forward of a micro-batch; a backward to activations takes
    about as many. Logits are had at one position an input."""
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


def disk_bytes(plan: Plan) -> int:
    """Of the run directory when done."""
    return sum(_disk_bytes(plan))


def is_small(plan: Plan) -> bool:
    """Whether all of a run's data is read whenever it is resumed: that takes seconds."""
    n_shards = sum(map(len, plan.stages.values()))
    return n_shards <= SMALL_SHARDS and disk_bytes(plan) <= SMALL_BYTES


def _disk_bytes(plan: Plan) -> Iterator[int]:
    yield RECORD_BYTES * sum(map(len, plan.stages.values()))
    for dataset in plan.resolved.datasets.values():
        for _, nodes in plan.ways(dataset.model) if plan.mean_is_used else ():
            yield _mean_bytes(plan, dataset, nodes)
    yield interactions_on_disk(plan)
    yield rois_on_disk(plan)
    yield parted_on_disk(plan)
    n_metrics = len(plan.config.evaluate.metric)
    for cell in plan.cells:
        n_edges, dataset = plan.nodes(cell).max_edges, plan.dataset(cell)
        n_build, n_eval = len(dataset.data.build), len(dataset.data.evaluation)
        n_scores, n_circuits = plan.n_scores(cell), len(plan.circuits(cell))
        if cell.is_sparse:
            yield LISTED_BYTES * n_build * plan.position_shards(cell) * (cell.keep or 0)
        else:
            yield math.ceil(n_build * bytes_of(plan.config.scores, n_scores))
            yield 8 * WORDS * n_scores * len(plan.build_rows(cell))
        yield n_edges * cell.is_refined
        masks = 1 + len(plan.ran_conditions())
        yield n_circuits * masks * -(-n_edges // 8)
        yield 8 * n_scores * len(dataset.subsets) * (len(AGGREGATIONS) + len(layout.COUNTS))
        yield 8 * n_eval * n_metrics * len(plan.conditions()) * n_circuits
        yield 8 * n_eval * n_metrics * len(plan.block_conditions(cell))
        n_rebuilt = plan.config.measures.rebuild * len(rebuilt_specs(plan, cell))
        yield (n_rebuilt + _searched(plan, cell)) * (-(-n_edges // 8) + 8 * n_eval * n_metrics)


def _searched(plan: Plan, cell: Cell) -> int:
    """Circuits that searches for sizes may run."""
    reach = plan.config.evaluate.reach
    if reach is None:
        return 0
    return sum(rounds_of(plan, search) * reach.at_once for search in searches_of(plan, cell))


def _mean_bytes(plan: Plan, dataset: Dataset, nodes: Nodes) -> int:
    positions = 1 if plan.config.data.pooled else dataset.length
    rows, columns = nodes.mean_shape()
    return 4 * len(dataset.build_groups(plan.config.data.pooled)) * positions * rows * columns


def actor_bytes(plan: Plan) -> int:
    """An actor's memory at the peak of its largest shard."""
    resampled = [resampled_bytes(plan, shard) for shard in plan.stages.get("bootstrap", ())]
    resampled += [rebuild_bytes(plan, shard) for shard in plan.stages.get("rebuild", ())]
    return PROCESS_BYTES + max(
        [
            *(_cell_bytes(plan, cell) for cell in plan.cells),
            *resampled,
            *interaction_bytes(plan),
            *roi_bytes(plan),
            0,
        ]
    )


def _cell_bytes(plan: Plan, cell: Cell) -> int:
    nodes, dataset = plan.nodes(cell), plan.dataset(cell)
    means = _mean_bytes(plan, dataset, nodes) if plan.mean_is_used else 0
    return nodes.actor_bytes(plan, cell, means)


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _drawn(plan: Plan, dataset: Dataset) -> str:
    return f", seed {dataset.seed}" if len(plan.config.seeds) > 1 else ""


#: ways to store scores that a person may choose from
CHOICES = (
    Scores(),
    Scores(bits=7, codec="lz4"),
    Scores(keep=0.1, bits=7, codec="lz4"),
    Scores(keep=0.01, bits=7, codec="lz4"),
    Scores(keep="none"),
)
#: of scores, from which on another way to store them is suggested
MUCH_BYTES = 100e9


def _searches_told(plan: Plan) -> Iterator[str]:
    """How many circuits searches for sizes may run; `passes` has them all."""
    reach, shards = plan.config.evaluate.reach, plan.stages.get("reach", ())
    if reach is None or not shards:
        return
    rounds = {(shard.search, shard.number) for shard in shards if not shard.spare}
    n = len({search for search, _ in rounds})
    yield (
        f"reach: {n} searches for {', '.join(f'{level:g}' for level in reach.levels)}, "
        f"{reach.at_once} circuits a round, at most {reach.at_once * len(rounds)} circuits; passes "
        "count them all"
    )


def _scores_told(plan: Plan) -> Iterator[str]:
    """What the scores of single inputs take, stored this way and others."""
    sizes = [
        (len(plan.dataset(cell).data.build), plan.n_scores(cell))
        for cell in plan.cells
        if not cell.is_sparse
    ]
    if not sizes:
        return
    mine = plan.config.scores
    ways = {_named(how): how for how in (mine, *CHOICES)}
    taken = {name: sum(n * bytes_of(how, e) for n, e in sizes) for name, how in ways.items()}
    told, *others = (f"{_in_bytes(n)} with {name}" for name, n in taken.items())
    yield f"scores: {told} (and {'; '.join(others)})"
    if taken[_named(mine)] > MUCH_BYTES:
        yield (
            "  that is much; --set scores.bits=7 --set scores.codec=lz4 is suggested, or these and "
            "--set scores.keep=0.1: means, circuits and results stay the same"
        )


def _fits_told(plan: Plan) -> Iterator[str]:
    """How many block models are fitted, and what of them are what the others are held against."""
    counts = {
        name: sum(s.n_fits for s in plan.stages.get(name, ())) for name in ("blocks", "nulls")
    }
    if counts["blocks"]:
        yield (
            f"block models: {counts['blocks']} chains, and {counts['nulls']} more of random "
            "graphs, halves and given partitions; about a second each at 2,000 edges"
        )


def _spans_told(plan: Plan) -> Iterator[str]:
    """Which weights lie on which GPU of an actor, where it has several."""
    execution = plan.config.execution
    if execution.gpus_per_actor == 1:
        return
    devices = [f"GPU {i}" for i in range(execution.gpus_per_actor)]
    for label, model in plan.resolved.models.items():
        spans = [
            f"{span.device}: {span}, {_in_bytes(NUMBER_BYTES[execution.dtype] * span.n_params)}"
            for span in model.source.spans(devices)
        ]
        yield f"{label} over {len(spans)} of an actor's {len(devices)} GPUs: {'; '.join(spans)}"


def _named(how: Scores) -> str:
    if how.keep == "none":
        return "keep none"
    return f"keep {how.keep}, bits {how.bits}, codec {how.codec}"


def _in_bytes(n: float) -> str:
    """1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def describe(plan: Plan) -> str:
    """What `--dry-run` prints."""
    cost = estimate(plan)
    lines = [f"run {plan.run_id}", f"cells: {len(plan.cells)}"]
    for cell in plan.cells:
        steps = "" if cell.steps is None else f", {cell.steps} steps ({cell.rule})"
        if isinstance(cell, GivenCell):
            steps = f" {cell.given}"
        elif cell.tau is not None:
            steps += f", tau {cell.tau:g}"
        steps += f", {cell.candidates} edges" if cell.is_refined else ""
        lines.append(
            f"  {cell.key}: {cell.model}, {cell.task}{_drawn(plan, plan.dataset(cell))}, "
            f"{cell.nodes}, {cell.method}{steps}, {cell.build_patch}, {cell.build_metric}; "
            f"{len(plan.circuits(cell))} circuits x {len(plan.conditions())} conditions"
        )
    lines += [*interactions_told(plan), *rois_told(plan)]
    shards = {stage: len(items) for stage, items in plan.stages.items() if items}
    lines.append(
        f"shards: {sum(shards.values())} ({', '.join(f'{k} {v}' for k, v in shards.items())})"
    )
    several = len(plan.config.sweep.nodes) > 1
    lines += [
        f"  {dataset.task} for {dataset.model}{_drawn(plan, dataset)}{f', {name}' * several}: "
        f"{plan.shard_rows(dataset, 'build', nodes)} of {plan.config.data.n_build} build prompts "
        f"at once, {plan.eval_shard_rows} of {plan.config.data.n_eval} evaluation prompts"
        for dataset in plan.resolved.datasets.values()
        for name, nodes in plan.ways(dataset.model)
    ]
    lines += [
        f"left out: {method} over {name}, which it does not attribute"
        for name in plan.config.sweep.nodes
        for method in plan.config.sweep.method
        if method not in kind_of(plan.config, name).methods
    ]
    lines += list(_fits_told(plan))
    lines += [
        *_searches_told(plan),
        f"passes: {cost.forwards} forwards, {cost.backwards} backwards of a micro-batch of "
        f"{plan.config.execution.micro_batch} (an ablated run counts once a circuit)",
        f"time: about {_duration(cost.seconds)} with {plan.config.execution.actors} actors of "
        f"{plan.config.execution.threads} thread(s) as fast as this machine's",
        f"disk: {cost.disk_bytes / 1e6:.1f} MB",
        *_scores_told(plan),
        f"memory: {cost.actor_bytes / 1e9:.2f} GB an actor at its peak, "
        f"{plan.config.execution.actors} actors",
        *_spans_told(plan),
    ]
    return "\n".join(lines)
