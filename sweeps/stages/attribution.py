"""What an actor does for means, attribution and reduction. One function a kind of shard.

A number's way: prompts -> scores [input, edge] -> one chunk of the cell's `scores` and one row of
its `partials`; the driver commits both; the reducer folds the committed rows in a fixed tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from edgesweep.engine.features.values import node_mean_partials
from edgesweep.engine.measures import ranking_stability, score_intervals
from edgesweep.engine.methods import METHODS, Attribution
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import MeanPartial, Patch, mean_groups, mean_partials
from edgesweep.storage import fold, layout
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.sweeps.context import Context, with_halving
from edgesweep.sweeps.granularity.featurework import lists_of_edges, reduce_lists, scores_of_nodes
from edgesweep.sweeps.plan.cells import AttributeShard, BootstrapShard, Cell, MeanShard, ReduceShard
from edgesweep.sweeps.plan.points import settings_of
from edgesweep.sweeps.prepare import read_candidates
from edgesweep.tasks import Example

Writes = list[dict[str, Any]]
Extra = dict[str, Any]


def run_mean(context: Context, shard: MeanShard) -> tuple[Writes, Extra]:
    """The mean over one group of build prompts, in the model's precision: of what every source
    writes, or of every feature and error term."""
    settings = context.settings
    prompts = context.prompts(shard.dataset, "build")
    groups = mean_groups(prompts, pooled=settings.pooled)
    mine = [p for p, group in zip(prompts, groups, strict=True) if group == shard.group]
    label = settings.datasets[shard.dataset]
    partials: Callable[..., dict[str, MeanPartial]] = (
        partial(node_mean_partials, context.feature_model(label))
        if shard.features
        else partial(mean_partials, context.model(label))
    )

    def compute(micro_batch: int) -> np.ndarray:
        how = {"pooled": settings.pooled, "over": settings.mean_over, "micro_batch": micro_batch}
        return partials(mine, **how)[shard.group].mean()

    mean, micro_batch = with_halving(settings.micro_batch, compute)
    context.check_alive()
    name = layout.mean(shard.source, shard.index)
    table = mean.astype("float64" if settings.dtype == "float64" else "float32")
    return [write_block(context.run, layout.MEANS, name, 0, table)], {"micro_batch": micro_batch}


def run_attribute(context: Context, shard: AttributeShard) -> tuple[Writes, Extra]:
    """Scores of a block of inputs, and their partial sums."""
    rows, cell = shard.rows, shard.cell
    if cell.is_sparse:
        return lists_of_edges(context, shard)
    prompts = context.prompts(cell.dataset, "build")[rows.start : rows.stop]

    def compute(micro_batch: int) -> dict[str, np.ndarray]:
        parts = list(_attributions(context, shard.cell, prompts, micro_batch))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    found, micro_batch = with_halving(context.settings.micro_batch, compute)
    sums = fold.partial(found["scores"])
    context.check_alive()
    names = {name: layout.per_input(cell.key, name) for name in ("scores", *layout.PER_INPUT)}
    writes = [
        write_block(context.run, layout.ATTRIBUTIONS, path, rows.start, found[name])
        for name, path in names.items()
    ]
    partials = layout.partials(cell.key)
    writes.append(write_block(context.run, layout.AGGREGATES, partials, shard.index, sums[None]))
    n_bad = _n_bad(context, cell, found["scores"])
    return writes, {"micro_batch": micro_batch, "n_bad": n_bad}


def _n_bad(context: Context, cell: Cell, scores: np.ndarray) -> int:
    """Scores that are not finite, of edges that were looked at."""
    bad = ~np.isfinite(scores)
    if cell.is_refined:
        bad &= read_candidates(context.run, cell)
    return int(bad.sum())


def _attributions(
    context: Context, cell: Cell, prompts: tuple[Example, ...], micro_batch: int
) -> Iterator[dict[str, np.ndarray]]:
    if cell.features:
        yield from scores_of_nodes(context, cell, prompts, micro_batch)
        return
    model, method = context.model(cell.model), METHODS[cell.method]
    patch: Patch = context.patch(cell.build_patch, cell.dataset, "build")
    candidates = read_candidates(context.run, cell) if cell.is_refined else None
    rows = micro_batch * context.settings.circuits_per_batch
    settings = settings_of(cell, candidates=candidates, rows=rows)
    step = len(prompts) if method.whole else micro_batch
    for start in range(0, len(prompts), step):
        batch = PromptBatch.make(prompts[start : start + step])
        yield _as_arrays(method.attribute(model, batch, patch, cell.build_metric, settings))


def _as_arrays(found: Attribution) -> dict[str, np.ndarray]:
    """On the CPU; scores float32, the rest float64."""
    arrays = {"scores": found.scores.float().cpu().numpy()}
    for name in layout.PER_INPUT:
        arrays[name] = getattr(found, name).to(torch.float64).cpu().numpy()
    return arrays


def run_reduce(context: Context, shard: ReduceShard) -> tuple[Writes, Extra]:
    """The fold of the committed partials, in the fixed tree over the shards' order."""
    if shard.cell.is_sparse:
        return reduce_lists(context, shard)
    log = context.log

    def leaves() -> Iterator[tuple[int, np.ndarray]]:
        for index, key in enumerate(shard.leaves):
            writes = log.record(shard.leaf_stage, key)["writes"]
            mine = next(w for w in writes if w["array"] == layout.partials(shard.cell.key))
            yield index, read_block(context.run, mine)[0]

    first = next(leaves())[1]
    folded = fold.finish(fold.fold(leaves(), len(shard.leaves), first.shape[1]))
    context.check_alive()
    return [
        write_block(context.run, layout.AGGREGATES, layout.folded(shard.group, name), 0, values)
        for name, values in folded.items()
    ], {}


def run_bootstrap(context: Context, shard: BootstrapShard) -> tuple[Writes, Extra]:
    """Intervals of the mean scores and of their ranking, over resampled inputs of each member."""
    settings, log, cell = context.settings, context.log, shard.cell
    blocks = []
    for key in shard.leaves:
        writes = log.record(shard.leaf_stage, key)["writes"]
        mine = next(w for w in writes if w["array"] == layout.scores(cell.key))
        blocks.append(read_block(context.run, mine))
    scores = np.concatenate(blocks)
    sizes = [stop - start for start, stop in shard.members]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    low, high = score_intervals(
        scores, n=settings.bootstrap, level=settings.level, seed=settings.seed, groups=groups
    )
    stability = ranking_stability(scores, n=settings.bootstrap, seed=settings.seed, groups=groups)
    context.check_alive()
    return [
        write_block(context.run, layout.AGGREGATES, name, 0, values)
        for name, values in (
            (layout.interval(cell.key), np.stack([low, high])),
            (layout.stability(cell.key), stability),
        )
    ], {}
