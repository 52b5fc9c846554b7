"""Interactions of each section: sums by blocks of inputs, and their fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.interactions import Interactions, interaction_sums
from edgesweep.engine.bases.jacobians import Batch
from edgesweep.engine.bases.moments import Sums, fold
from edgesweep.engine.methods.quadrature import points
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.loading import batches, value_at
from edgesweep.sweeps.interactions.shards import (
    FOLD,
    SUMS,
    EdgeShard,
    FoldShard,
    blocks,
    folded,
    of_layer,
)
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class EdgeSums(Stage[EdgeShard]):
    """By blocks of inputs."""

    name = SUMS
    title = "interactions"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[EdgeShard]:
        for graph in plan.graphs:
            for start, end in graph.of.sections:
                for rows in blocks(plan, graph.of):
                    yield EdgeShard(graph, start, end, rows)

    def groups(self, plan: Plan, shard: EdgeShard) -> Iterable[str]:
        return (f"interaction sums {shard.graph.key} {shard.start}",)

    def needs(self, plan: Plan, shard: EdgeShard) -> tuple[str, ...]:
        basis = shard.graph.basis
        return (*of_layer(basis, shard.start), *of_layer(basis, shard.end))

    @torch.no_grad()
    def run(self, context: Context, shard: EdgeShard) -> Done:
        sums, used = with_halving(context.micro_batch, partial(_sums, context, shard))
        told = files.of_sums("edges", sums)
        return files.write_tensors(context, self.name, shard.key, told, micro_batch=used)

    def passes(self, plan: Plan, shard: EdgeShard) -> Passes:
        of = shard.graph.of
        k = of.width(shard.end) * shard.graph.steps
        if of.closed[of.layers.index(shard.start)]:
            rows = shard.rows.stop - shard.rows.start
            flop = 2.0 * rows * of.width(shard.start) * max(of.widths) * of.width(shard.end)
            return Passes(plan.batches(shard.rows), flop=flop)
        return Passes(plan.batches(shard.rows), plan.batches(shard.rows) * k)

    def alike(self, shard: EdgeShard) -> str:
        return f"{shard.graph.key}.{shard.start}"

    def whose(self, plan: Plan, shard: EdgeShard) -> str:
        return f"{shard.graph.basis.kind} of {shard.graph.of.model} from {shard.start}"


def _sums(context: Context, shard: EdgeShard, micro_batch: int) -> Sums:
    graph, log = shard.graph, context.log
    bases = (
        files.read_basis(context.run, log, graph.basis, shard.start),
        files.read_basis(context.run, log, graph.basis, shard.end),
    )
    nodes = points(graph.rule, graph.steps)

    def sums() -> Iterator[Sums]:
        for chain, _, inputs in batches(context, graph.of, shard.rows, micro_batch):
            section = chain.section(shard.start, shard.end)
            batch = Batch.of(section, value_at(chain, shard.start, inputs), inputs)
            yield interaction_sums(section, batch, bases, nodes)

    return fold(sums())


class EdgeFold(Stage[FoldShard]):
    """Of all inputs."""

    name = FOLD
    title = "fold of interactions"

    def shards(self, plan: Plan) -> Iterator[FoldShard]:
        for graph in plan.graphs:
            for start, end in graph.of.sections:
                parts = (EdgeShard(graph, start, end, rows) for rows in blocks(plan, graph.of))
                yield FoldShard(graph, start, tuple(part.key for part in parts))

    def groups(self, plan: Plan, shard: FoldShard) -> Iterable[str]:
        return (folded(shard.graph, shard.start),)

    def needs(self, plan: Plan, shard: FoldShard) -> tuple[str, ...]:
        return (f"interaction sums {shard.graph.key} {shard.start}",)

    def run(self, context: Context, shard: FoldShard) -> Done:
        read = files.parts(context, EdgeSums.name, shard.parts)
        found = Interactions.of(fold(files.sums_in("edges", part) for part in read))
        told = {
            "mean_square": found.mean_square,
            "standard_error": found.standard_error,
            "residual": found.residual,
        }
        return files.write_tensors(context, self.name, shard.key, told)

    def alike(self, shard: FoldShard) -> str:
        return shard.graph.key

    def whose(self, plan: Plan, shard: FoldShard) -> str:
        return f"{shard.graph.basis.kind} of {shard.graph.of.model} from {shard.start}"
