"""Attribution: scores of every edge or node, input by input.

A number's way: prompts -> scores [input, edge], a leaf at a time -> chunks of the cell's `scores`,
as far as they are kept, and of each shard one row of its `partials`, a node of the fixed tree over
all leaves; the driver commits both; the reducer folds the committed rows in the tree's upper part.
Cells that look at some edges only are attributed once another cell's scores have said which.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.storage import fold, layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import write_block
from edgesweep.storage.fold import WORDS
from edgesweep.storage.packing.scores import chunk_columns, planned_scores, write_scores
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.actor.sums import partial_of
from edgesweep.sweeps.candidates import ranking_of, read_candidates, write_candidates, write_given
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell, GivenCell, Rows
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class AttributeShard:
    """Scores of a block of inputs, `leaf` of them at a time; `index` counts the cell's shards. Of
    `blocks` ranges of target positions it has the `block`-th."""

    cell: Cell
    rows: Rows
    index: int
    leaf: int
    block: int = 0
    blocks: int = 1

    @property
    def leaves(self) -> list[range]:
        """The inputs of each leaf."""
        ends = self.rows.stop
        starts = range(self.rows.start, ends, self.leaf)
        return [range(start, min(start + self.leaf, ends)) for start in starts]

    @property
    def key(self) -> str:
        part = "" if self.blocks == 1 else f".{self.block:03d}"
        return sys.intern(f"{self.cell.key}.{self.rows.key}{part}")  # many hold it


def shards_of(plan: Plan, cell: Cell) -> Iterator[AttributeShard]:
    """A cell's shards. Of scores that are lists, one may have some of the target positions only."""
    rows, blocks, leaf = plan.build_rows(cell), plan.position_shards(cell), plan.leaf_rows(cell)
    for block in range(blocks):
        for index, mine in enumerate(rows):
            yield AttributeShard(cell, mine, block * len(rows) + index, leaf, block, blocks)


class Attribute(Stage[AttributeShard]):
    """Of cells that look at all edges."""

    name = "attribute"
    title = "attribution"
    runs_model = True
    refined = False

    def shards(self, plan: Plan) -> Iterator[AttributeShard]:
        for cell in plan.cells:
            if cell.is_refined == self.refined:
                yield from shards_of(plan, cell)

    def groups(self, plan: Plan, shard: AttributeShard) -> Iterable[str]:
        return groups.scores(shard.cell.key), groups.scores(shard.cell.key, shard.rows.member)

    def needs(self, plan: Plan, shard: AttributeShard) -> tuple[str, ...]:
        return plan.values(shard.cell, shard.cell.build_patch)

    def prepare(self, run: RunDirectory, plan: Plan) -> None:
        """Graphs that are known before any score, each once, and circuits that are given."""
        mine = [cell for cell in plan.cells if cell.is_refined == self.refined]
        for cell in {plan.nodes(cell).graph_place(cell): cell for cell in mine}.values():
            plan.nodes(cell).prepare(run, cell)
        for cell in mine:
            if isinstance(cell, GivenCell):
                write_given(run, plan, cell)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            if cell.is_refined == self.refined:
                yield from (_lists if cell.is_sparse else _tables)(run, plan, cell)

    def run(self, context: Context, shard: AttributeShard) -> Done:
        """Scores of a block of inputs, and their partial sums."""
        return (_run_lists if shard.cell.is_sparse else _run_tables)(context, shard)

    def passes(self, plan: Plan, shard: AttributeShard) -> Passes:
        return plan.nodes(shard.cell).passes(plan, shard)


class Refine(Attribute):
    """Of cells that look at some edges: first those that EAP ranks highest."""

    name = "refine"
    title = "attribution of candidates"
    refined = True

    def needs(self, plan: Plan, shard: AttributeShard) -> tuple[str, ...]:
        return (*super().needs(plan, shard), groups.candidates(shard.cell.key))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for cell in plan.cells:
            if cell.is_refined:
                yield Gate(
                    groups.candidates(cell.key),
                    (groups.reduced(ranking_of(cell).key),),
                    partial(write_candidates, cell=cell),
                )


# --- tables of scores -------------------------------------------------------------------------


def _tables(run: RunDirectory, plan: Plan, cell: Cell) -> Iterator[Planned]:
    n_scores, n = plan.n_scores(cell), len(plan.dataset(cell).data.build)
    how, rows = plan.config.scores, plan.build_chunk(cell)
    yield from planned_scores(run, cell.key, (n, n_scores), rows, how)
    beside = (len(layout.PER_INPUT),)
    path, chunks = layout.per_input(cell.key), (plan.build_shard_chunk(cell), *beside)
    yield Planned(run.attributions, path, (n, *beside), chunks, "float64")
    yield planned_partials(run, layout.partials(cell.key), len(plan.build_rows(cell)), n_scores)


def planned_partials(run: RunDirectory, name: str, n: int, n_scores: int) -> Planned:
    """Where `n` packed partials are written."""
    shape = (n, n_scores, WORDS)
    chunks = (1, chunk_columns(1, n_scores, 8 * WORDS), WORDS)
    return Planned(run.aggregates, name, shape, chunks, "uint64")


def _run_tables(context: Context, shard: AttributeShard) -> Done:
    cell, rows = shard.cell, shard.rows
    tree, beside, writes = fold.TreeFold(len(shard.leaves)), [], []
    micro_batch, n_bad = context.micro_batch, 0
    for index, leaf in enumerate(shard.leaves):
        found, used = with_halving(context.micro_batch, partial(_scored, context, cell, leaf))
        tree.add(index, found["sums"])
        beside.append(np.stack([found[name] for name in layout.PER_INPUT], axis=1))
        micro_batch, n_bad = min(micro_batch, used), n_bad + _n_bad(context, cell, found["scores"])
        context.check_alive()
        how = context.config.scores
        writes += write_scores(context.run, cell.key, leaf.start, found["scores"], how)
    sums = tree.result()
    assert sums is not None
    context.check_alive()
    for store, name, start, values in (
        (layout.ATTRIBUTIONS, layout.per_input(cell.key), rows.start, np.concatenate(beside)),
        (layout.AGGREGATES, layout.partials(cell.key), shard.index, fold.pack(sums)[None]),
    ):
        writes.append(write_block(context.run, store, name, start, values))
    return writes, {"micro_batch": micro_batch, "n_bad": n_bad}


def _scored(context: Context, cell: Cell, leaf: range, micro_batch: int) -> dict[str, np.ndarray]:
    """Scores of a leaf and what lies beside them, and the partial `sums`."""
    prompts = context.prompts(cell.dataset, "build")[leaf.start : leaf.stop]
    batches = list(context.nodes(cell).scores(context, cell, prompts, micro_batch))
    scores = torch.cat([batch.pop("scores") for batch in batches])
    sums = partial_of(scores)
    return {**_joined(batches), "scores": scores.cpu().numpy(), "sums": sums}


def _n_bad(context: Context, cell: Cell, scores: np.ndarray) -> int:
    """Scores that are not finite, of edges that were looked at."""
    bad = ~np.isfinite(scores)
    if cell.is_refined:
        bad &= read_candidates(context.run, cell)
    return int(bad.sum())


def _joined(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches one after another."""
    batches = list(parts)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


# --- lists of the largest edges ---------------------------------------------------------------


def _lists(run: RunDirectory, plan: Plan, cell: Cell) -> Iterator[Planned]:
    """Of each input and block of target positions, its largest edges; what they are is not known
    before, so that their number is what bounds them."""
    n, step = len(plan.dataset(cell).data.build), plan.build_chunk(cell)
    n_rows, keep = n * plan.position_shards(cell), cell.keep or 0
    for name, dtype in layout.LISTS.items():
        width = np.dtype(dtype).itemsize
        shape, chunk = (n_rows, keep), (step, chunk_columns(step, keep, width))
        path = layout.listed(cell.key, name)
        yield Planned(run.attributions, path, shape, chunk, dtype, compress=True)
    for name in layout.PER_LIST:
        path = layout.listed(cell.key, name)
        yield Planned(run.attributions, path, (n_rows,), (step,), "float64")
    ends = (plan.n_scores(cell), 2)
    yield Planned(run.aggregates, layout.edges(cell.key), ends, ends, "int64", compress=True)


def _run_lists(context: Context, shard: AttributeShard) -> Done:
    cell = shard.cell
    prompts = context.prompts(cell.dataset, "build")
    first = shard.block * len(prompts) + shard.rows.start

    def compute(micro_batch: int) -> dict[str, np.ndarray]:
        return _joined(context.nodes(cell).lists(context, shard, prompts, micro_batch))

    found, micro_batch = with_halving(context.micro_batch, compute)
    context.check_alive()
    writes = [
        write_block(context.run, layout.ATTRIBUTIONS, layout.listed(cell.key, name), first, values)
        for name, values in found.items()
    ]
    n_bad = int((~np.isfinite(found["weight"]) & (found["target"] >= 0)).sum())
    return writes, {"micro_batch": micro_batch, "n_bad": n_bad}
