"""How far a cell's mean scores would move with other inputs, and how alike the rankings are that
two disjoint halves of its inputs give.

Scores that fit into memory are resampled at once. Of more, each shard has a range of edges and adds
up its resamples input by input, and one has the ranking, of some edges drawn with a seed. Where not
all scores are stored, there is nothing to resample: intervals are normal ones, from the sums. Of
lists of edges there are intervals of those that all inputs together have kept, an input that does
not list an edge having 0 there, and no ranking: an edge that one input alone lists is strong in one
half only, which says how lists are made and not how alike the halves are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.measures import (
    ResampledMeans,
    interval,
    normal_intervals,
    resamples,
    score_intervals,
)
from edgesweep.engine.statistics.stability import HALVINGS, agreement, half_weights, top_of
from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.stages.attribute import shards_of
from edgesweep.sweeps.stages.base import Done, Stage
from edgesweep.sweeps.stages.listed import listed_scores

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: scores that are resampled at once: 20 bytes each make 1 GB
AT_ONCE = 50_000_000
#: edges of a range, where there are more; 200 resamples of their means take 840 MB
RANGE = 2**18
#: edges whose ranking is compared between halves then, at most
RANKED = 200_000
#: what a shard finds
BOTH, INTERVALS, RANKING, NORMAL, LISTED = "both", "intervals", "ranking", "normal", "listed"
Found = dict[str, np.ndarray]


@dataclass(frozen=True)
class BootstrapShard:
    """Of one cell, a range of its edges. `leaves` are the keys of its attribution shards, `members`
    the inputs of each member task, by name; `finds` one of BOTH, INTERVALS, RANKING, NORMAL,
    LISTED."""

    cell: Cell
    leaves: tuple[str, ...]
    members: tuple[tuple[str, int, int], ...]
    finds: str
    edges: tuple[int, int]
    part: int = 0

    @property
    def key(self) -> str:
        if self.finds in (BOTH, NORMAL, LISTED):
            return self.cell.key
        return f"{self.cell.key}.{self.finds}.{self.part:05d}"


class Bootstrap(Stage[BootstrapShard]):
    """Not of a search, whose scores are of one order of removals, nor of what no input changes."""

    name = "bootstrap"
    title = "intervals of scores"

    def shards(self, plan: Plan) -> Iterator[BootstrapShard]:
        for cell in plan.cells if plan.config.measures.bootstrap else ():
            inputs_matter = cell.tau is None and cell.seed is None
            if inputs_matter:
                yield from _shards_of(plan, cell)

    def needs(self, plan: Plan, shard: BootstrapShard) -> tuple[str, ...]:
        of = groups.reduced if shard.finds in (NORMAL, LISTED) else groups.scores
        return (of(shard.cell.key),)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for shard in plan.stages[self.name]:
            size, key = plan.n_scores(shard.cell), shard.cell.key
            if shard.finds in (BOTH, RANKING):
                of = (HALVINGS, 2)
                yield Planned(run.aggregates, layout.stability(key), of, of, "float64")
            if shard.finds != RANKING and not shard.part:
                chunks = (2, min(RANGE, size))
                yield Planned(run.aggregates, layout.interval(key), (2, size), chunks, "float64")

    def run(self, context: Context, shard: BootstrapShard) -> Done:
        """Intervals of the mean scores and of their ranking, over resampled inputs of each
        member."""
        find = {
            BOTH: _both,
            INTERVALS: _intervals,
            RANKING: _ranking,
            NORMAL: _normal,
            LISTED: _listed,
        }
        found = find[shard.finds](context, shard)
        context.check_alive()
        column = shard.edges[0] if shard.finds == INTERVALS else None
        return [
            write_block(context.run, layout.AGGREGATES, name, 0, values, column)
            for name, values in found.items()
        ], {}


def _shards_of(plan: Plan, cell: Cell) -> Iterator[BootstrapShard]:
    rows = plan.dataset(cell).member_rows("build")
    members = tuple((name, mine.start, mine.stop) for name, mine in rows.items())
    leaves, n = tuple(s.key for s in shards_of(plan, cell)), plan.n_scores(cell)
    if cell.is_sparse:
        if n * len(plan.dataset(cell).data.build) <= AT_ONCE:
            yield BootstrapShard(cell, leaves, members, LISTED, (0, n))
    elif plan.config.scores.keep != "all":
        yield BootstrapShard(cell, (), members, NORMAL, (0, n))
    elif n * len(plan.dataset(cell).data.build) <= AT_ONCE:
        yield BootstrapShard(cell, leaves, members, BOTH, (0, n))
    else:
        yield BootstrapShard(cell, leaves, members, RANKING, (0, n))
        for part, low in enumerate(range(0, n, RANGE)):
            edges = (low, min(low + RANGE, n))
            yield BootstrapShard(cell, leaves, members, INTERVALS, edges, part)


def resampled_bytes(plan: Plan, shard: BootstrapShard) -> int:
    """Of scores at once, or of the means of all resamples and one block of inputs."""
    n_inputs, n = len(plan.dataset(shard.cell).data.build), plan.n_scores(shard.cell)
    if shard.finds in (BOTH, LISTED):
        return 20 * n_inputs * n
    if shard.finds == NORMAL:
        return 64 * n * len(shard.members)
    width = min(n, RANKED) if shard.finds == RANKING else shard.edges[1] - shard.edges[0]
    block = 4 * n * plan.leaf_rows(shard.cell)
    return 8 * plan.config.measures.bootstrap * (3 * width + n_inputs) + block


# --- what a shard finds -----------------------------------------------------------------------


def _both(context: Context, shard: BootstrapShard) -> Found:
    scores, key = np.concatenate([rows for _, rows in _scores(context, shard)]), shard.cell.key
    among = _groups(shard)
    halved = _finite_means(half_weights(among, context.config.seed), scores)
    stability = agreement(halved, top_of(scores.shape[1]))
    return {
        layout.interval(key): _ends(context, scores, among),
        layout.stability(key): stability,
    }


def _listed(context: Context, shard: BootstrapShard) -> Found:
    """Edges that are none have NaN."""
    records = [context.log.record("attribute", key)["writes"] for key in shard.leaves]
    ends = _reduced(context).read(layout.AGGREGATES, layout.edges(shard.cell.key))
    low_high = np.full((2, len(ends)), np.nan)
    scores = listed_scores(context, shard.cell, records, ends)
    low_high[:, ends[:, 0] >= 0] = _ends(context, scores, _groups(shard))
    return {layout.interval(shard.cell.key): low_high}


def _ends(context: Context, scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Of the mean of scores `[input, edge]`, `[2, edge]`."""
    measures, seed = context.config.measures, context.config.seed
    n, level = measures.bootstrap, measures.level
    return np.stack(score_intervals(scores, n=n, level=level, seed=seed, groups=among))


def _intervals(context: Context, shard: BootstrapShard) -> Found:
    means = ResampledMeans(_weights(context, shard), shard.edges[1] - shard.edges[0])
    for first, rows in _scores(context, shard):
        means.add(first, rows.astype(np.float64))
    ends = interval(means.means(), context.config.measures.level)
    return {layout.interval(shard.cell.key): np.stack(ends)}


def _ranking(context: Context, shard: BootstrapShard) -> Found:
    """Of some edges, drawn with the seed; as large a share of them is the strongest."""
    n, draw = shard.edges[1], np.random.default_rng(context.config.seed)
    some = np.sort(draw.choice(n, min(n, RANKED), replace=False))
    means = ResampledMeans(half_weights(_groups(shard), context.config.seed), len(some))
    for first, rows in _scores(context, shard):
        means.add(first, rows[:, some].astype(np.float64))
    top = max(1, round(top_of(n) * len(some) / n))
    return {layout.stability(shard.cell.key): agreement(means.means(), top)}


def _normal(context: Context, shard: BootstrapShard) -> Found:
    committed, key = _reduced(context), shard.cell.key
    names = [name for name, _, _ in shard.members]
    of = [layout.group(key, name) for name in names] if len(names) > 1 else [key]
    means, rms, n = (
        np.stack([committed.read(layout.AGGREGATES, layout.folded(g, what)) for g in of])
        for what in ("mean", "rms", "n")
    )
    low, high = normal_intervals(means, rms, n.astype(np.float64), context.config.measures.level)
    return {layout.interval(key): np.stack([low, high])}


def _reduced(context: Context) -> Committed:
    """By a log of its own: a worker's is as it was when it first looked, maybe for another cell."""
    return Committed(context.run, stores=(layout.AGGREGATES,))


def _finite_means(weights: np.ndarray, scores: np.ndarray) -> np.ndarray:
    means = ResampledMeans(weights, scores.shape[1])
    means.add(0, scores.astype(np.float64))
    return means.means()


def _weights(context: Context, shard: BootstrapShard) -> np.ndarray:
    among = _groups(shard)
    return resamples(len(among), context.config.measures.bootstrap, context.config.seed, among)


def _groups(shard: BootstrapShard) -> np.ndarray:
    """The member task of each input."""
    sizes = [stop - start for _, start, stop in shard.members]
    return np.repeat(np.arange(len(sizes)), sizes)


def _scores(context: Context, shard: BootstrapShard) -> Iterator[tuple[int, np.ndarray]]:
    """(first input, scores `[input, edge]`) of the cell's leaves, in order, over the shard's range
    of edges."""
    stage, name = "refine" if shard.cell.is_refined else "attribute", layout.scores(shard.cell.key)
    for key in shard.leaves:
        for write in context.log.record(stage, key)["writes"]:
            if write["array"] == name:
                yield write["start"], read_block(context.run, write, shard.edges)
