"""Interactions of each section: sums by blocks of inputs, and their fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgesweep.engine.bases.interactions import Interactions, interaction_sums
from edgesweep.engine.bases.jacobians import Batch
from edgesweep.engine.bases.moments import Sums, fold
from edgesweep.engine.methods.quadrature import points
from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import write_block
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import Graph
from edgesweep.sweeps.interactions.loading import batches, sources, value_at
from edgesweep.sweeps.interactions.shards import (
    FOLD,
    SUMS,
    Shard,
    blocks,
    chunk_rows,
    edge_sums,
    folded,
    n_units,
    of_layer,
    owner,
)
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class EdgeSums(Stage[Shard[Graph]]):
    """By blocks of inputs."""

    name = SUMS
    title = "interactions"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[Graph]]:
        for graph in plan.graphs:
            for start, _ in graph.of.sections:
                yield from edge_sums(plan, graph, start)

    def groups(self, plan: Plan, shard: Shard[Graph]) -> Iterable[str]:
        return (f"interaction sums {shard.of.key} {shard.at}",)

    def needs(self, plan: Plan, shard: Shard[Graph]) -> tuple[str, ...]:
        basis = shard.of.basis
        return (*of_layer(basis, shard.at), *of_layer(basis, shard.end))

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        """What each input's interactions are kept in, as wide as the layers, for what is cut is not
        known yet."""
        for graph in plan.graphs if plan.config.interactions.keep_inputs else ():
            n = len(plan.dataset_of(graph.of.dataset).data.build)
            for start, end in graph.of.sections:
                each = graph.of.width(end), 1 + graph.of.width(start)
                chunks = (chunk_rows(blocks(plan, graph.of), 4 * each[0] * each[1]), *each)
                name = layout.interaction_inputs(graph.key, start)
                yield Planned(run.attributions, name, (n, *each), chunks)

    @torch.no_grad()
    def run(self, context: Context, shard: Shard[Graph]) -> Done:
        (sums, kept), used = with_halving(context.micro_batch, partial(_sums, context, shard))
        tensors = files.of_sums("edges", sums)
        writes, told = files.write_tensors(context, self.name, shard.key, tensors, micro_batch=used)
        if kept is not None:
            name, first = layout.interaction_inputs(shard.of.key, shard.at), shard.block.start
            writes.append(write_block(context.run, layout.ATTRIBUTIONS, name, first, kept))
        return writes, told

    def passes(self, plan: Plan, shard: Shard[Graph]) -> Passes:
        of = shard.layers
        k = of.width(shard.end) * shard.of.steps
        if of.closed[of.layers.index(shard.at)]:
            rows = shard.block.stop - shard.block.start
            moved = of.width(shard.at) * n_units(plan, of, shard.at) * of.width(shard.end)
            flop = 2.0 * rows * moved
            return Passes(plan.batches(shard.block), flop=flop)
        share = of.share(shard.at, shard.end)
        once = plan.config.bases.sources or plan.dataset_of(shard.dataset).length
        return Passes(plan.batches(shard.block), plan.batches(shard.block) * k * once * share)

    def alike(self, shard: Shard[Graph]) -> str:
        return f"{shard.of.key}.{shard.at}"

    def whose(self, plan: Plan, shard: Shard[Graph]) -> str:
        return owner(shard)


def _sums(
    context: Context, shard: Shard[Graph], micro_batch: int
) -> tuple[Sums, np.ndarray | None]:
    """Sums of a block, and what is kept of each of its inputs, if anything is: NaN where a
    direction was cut."""
    graph, log = shard.of, context.log
    keeps, batches_kept = context.config.interactions.keep_inputs, list[np.ndarray]()
    room = graph.of.width(shard.end), 1 + graph.of.width(shard.at)

    def keep(found: Tensor) -> None:
        spare = [(0, 0), *((0, all_ - n) for all_, n in zip(room, found.shape[1:], strict=True))]
        values = found.cpu().numpy().astype(np.float32)
        batches_kept.append(np.pad(values, spare, constant_values=np.nan))

    bases = (
        files.read_basis(context.run, log, graph.basis, shard.at),
        files.read_basis(context.run, log, graph.basis, shard.end),
    )
    nodes = points(graph.rule, graph.steps)

    def sums() -> Iterator[Sums]:
        for chain, first, inputs in batches(context, graph.of, shard.block, micro_batch):
            section = chain.section(shard.at, shard.end)
            batch = Batch.of(section, value_at(chain, shard.at, inputs), inputs)
            signs = sources(context, f"{graph.key}/{shard.at}", first)
            yield interaction_sums(section, batch, bases, nodes, keep if keeps else None, signs)

    return fold(sums()), np.concatenate(batches_kept) if keeps else None


class EdgeFold(Stage[Shard[Graph]]):
    """Of all inputs."""

    name = FOLD
    title = "fold of interactions"

    def shards(self, plan: Plan) -> Iterator[Shard[Graph]]:
        for graph in plan.graphs:
            for start, _ in graph.of.sections:
                parts = tuple(shard.key for shard in edge_sums(plan, graph, start))
                yield Shard(graph, start, parts=parts)

    def groups(self, plan: Plan, shard: Shard[Graph]) -> Iterable[str]:
        return (folded(shard.of, shard.at),)

    def needs(self, plan: Plan, shard: Shard[Graph]) -> tuple[str, ...]:
        return (f"interaction sums {shard.of.key} {shard.at}",)

    def run(self, context: Context, shard: Shard[Graph]) -> Done:
        read = files.parts(context, EdgeSums.name, shard.parts)
        found = Interactions.of(fold(files.sums_in("edges", part) for part in read))
        told = {
            "mean_square": found.mean_square,
            "standard_error": found.standard_error,
            "residual": found.residual,
        }
        return files.write_tensors(context, self.name, shard.key, told)

    def alike(self, shard: Shard[Graph]) -> str:
        return shard.of.key

    def whose(self, plan: Plan, shard: Shard[Graph]) -> str:
        return owner(shard)
