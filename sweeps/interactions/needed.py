"""How many edges of a section, or directions of a layer, the network needs, on evaluation prompts
in the run's own precision. A shard searches one section: what it tries next hangs on what it
found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.engine.bases.ablation import (
    SCORES,
    AblatedSection,
    ablated_nodes,
    by_chance,
    spliced,
    strongest,
)
from edgesweep.engine.bases.cuts import Chain, chain_of
from edgesweep.engine.bases.search import bisected, is_enough, log_sizes
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import LOGITS, Inputs, Value
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.loading import value_at
from edgesweep.sweeps.interactions.shards import (
    DIRECTIONS,
    NEEDED,
    DirectionShard,
    NeededShard,
    bases_of,
    folded,
    of_layer,
)
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.interactions.graphs import Layered
    from edgesweep.sweeps.plan.plan import Plan

#: inputs that are held at once; directions of which every number is kept in turn
EVAL_BATCH, EVERY = 1024, 16


Loaded = list[tuple[PromptBatch, Inputs, Value]]


def _loaded(context: Context, of: Layered, layer: str) -> tuple[Chain, Loaded]:
    """The evaluation prompts with a layer's values."""
    chain = chain_of(context.model(of.model))
    prompts, found = context.prompts(of.dataset, "eval"), []
    for first in range(0, len(prompts), EVAL_BATCH):
        batch = PromptBatch.make(prompts[first : first + EVAL_BATCH])
        inputs = chain.prepare(batch.clean, batch.real)
        found.append((batch, inputs, value_at(chain, layer, inputs)))
    return chain, found


class EdgesNeeded(Stage[NeededShard]):
    """One shard a section."""

    name = NEEDED
    title = "edges that are needed"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[NeededShard]:
        for graph in plan.graphs:
            for start, end in graph.of.sections:
                yield NeededShard(graph, start, end)

    def needs(self, plan: Plan, shard: NeededShard) -> tuple[str, ...]:
        return (folded(shard.graph, shard.start),)

    @torch.inference_mode()
    def run(self, context: Context, shard: NeededShard) -> Done:
        search = _Search(context, shard)
        needed, asked = bisected(shard.total, search.passes)
        search.passes(log_sizes(search.n, context.config.edges_needed.points))
        sizes = sorted(search.scores)
        tensors = {
            "sizes": torch.tensor(sizes),
            "edges": torch.tensor([search.kept[k] for k in sizes]),
            "scores": torch.stack([search.scores[k] for k in sizes]),
            "base": search.base,
            "asked": torch.tensor(asked),
        }
        told = {"needed": needed, "possible": search.n}
        return files.write_tensors(context, self.name, shard.key, tensors, **told)

    def passes(self, plan: Plan, shard: NeededShard) -> Passes:
        n = plan.n_inputs("eval") * len(plan.dataset_of(shard.dataset).members)
        of = shard.graph.of
        tried = plan.config.edges_needed.points + np.log2(shard.total)
        flop = 4.0 * n * of.width(shard.start) * max(of.widths) * of.width(shard.end) / 2
        return Passes(flop=float(tried * flop))

    def alike(self, shard: NeededShard) -> str:
        return shard.start

    def whose(self, plan: Plan, shard: NeededShard) -> str:
        return f"{shard.graph.basis.kind} of {shard.graph.of.model} from {shard.start}"


class _Search:
    """What is known of a section: `scores` of every input and `kept` edges, by the number that was
    asked for; a number above all asks for the network as it is."""

    def __init__(self, context: Context, shard: NeededShard) -> None:
        graph, wanted = shard.graph, context.config.edges_needed
        self._score, self._more = SCORES[wanted.metric]
        self._within = wanted.within
        chain, self._loaded = _loaded(context, graph.of, shard.start)
        bases = [
            files.read_basis(context.run, context.log, graph.basis, layer)
            for layer in (shard.start, shard.end)
        ]
        section = chain.section(shard.start, shard.end)
        self._ablated = [
            AblatedSection(section, (bases[0].to(f), bases[1].to(f)), f, inputs)
            for _, inputs, f in self._loaded
        ]
        found = files.read_interactions(context.run, context.log, graph, shard.start)
        self._mean_square = found.mean_square[:, 1:]
        self.n = self._mean_square.numel()
        parts = [
            self._score(spliced(chain, shard.start, f, inputs), batch)
            for batch, inputs, f in self._loaded
        ]
        self.base = torch.cat(parts).double().cpu()
        self._check_base(wanted.metric, chain.widths[LOGITS])
        self.scores: dict[int, torch.Tensor] = {}
        self.kept: dict[int, int] = {}

    def _check_base(self, metric: str, n_outputs: int) -> None:
        """What a network that only guesses needs is no interaction."""
        guesses = [by_chance(metric, batch, n_outputs).cpu() for batch, _, _ in self._loaded]
        base, chance = float(self.base.mean()), float(torch.cat(guesses).mean())
        if base < chance if self._more else base > chance:
            raise ValueError(
                f"edges_needed.metric: {metric} of the network as it is, {base:.4g}, is worse than "
                f"by chance, {chance:.4g}; allowed: a network that does its task"
            )

    def passes(self, sizes: Iterable[int]) -> dict[int, bool]:
        """Whether so many edges suffice, for each of some numbers."""
        for k in sizes:
            if k not in self.scores:
                self._try(k)
        return {k: self._passes(k) for k in self.scores}

    def _try(self, k: int) -> None:
        if k > self.n:
            self.scores[k], self.kept[k] = self.base, self.n
            return
        mask = strongest(self._mean_square, k)
        parts = [
            self._score(ablated.logits(mask), batch)
            for ablated, (batch, _, _) in zip(self._ablated, self._loaded, strict=True)
        ]
        self.scores[k], self.kept[k] = torch.cat(parts).double().cpu(), int(mask.sum())

    def _passes(self, k: int) -> bool:
        return bool(is_enough(self.scores[k].mean(), self.base.mean(), self._within, self._more))


class Directions(Stage[DirectionShard]):
    """One shard a layer."""

    name = DIRECTIONS
    title = "directions that are needed"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[DirectionShard]:
        for basis in bases_of(plan):
            for layer in basis.of.rotated:
                yield DirectionShard(basis, layer)

    def needs(self, plan: Plan, shard: DirectionShard) -> tuple[str, ...]:
        return of_layer(shard.basis, shard.layer)

    @torch.inference_mode()
    def run(self, context: Context, shard: DirectionShard) -> Done:
        score, _ = SCORES[context.config.edges_needed.metric]
        chain, loaded = _loaded(context, shard.basis.of, shard.layer)
        basis = files.read_basis(context.run, context.log, shard.basis, shard.layer)
        sizes = [*range(min(EVERY, basis.k)), *(k for k in log_sizes(basis.k, 16) if k >= EVERY)]
        sizes = sorted({*sizes, basis.k})

        def scored(k: int) -> float:
            parts = [
                score(ablated_nodes(chain, shard.layer, basis.to(f), f, k, inputs), batch)
                for batch, inputs, f in loaded
            ]
            return float(torch.cat(parts).double().mean())

        values = torch.tensor([scored(k) for k in sizes], dtype=torch.float64)
        tensors = {"sizes": torch.tensor(sizes), "scores": values}
        return files.write_tensors(context, self.name, shard.key, tensors)

    def passes(self, plan: Plan, shard: DirectionShard) -> Passes:
        n = plan.n_inputs("eval") * len(plan.dataset_of(shard.dataset).members)
        return Passes(-(-n // plan.config.execution.micro_batch) * 24.0)

    def alike(self, shard: DirectionShard) -> str:
        return shard.layer

    def whose(self, plan: Plan, shard: DirectionShard) -> str:
        return f"{shard.basis.kind} of {shard.basis.of.model} at {shard.layer}"
