"""Networks on evaluation prompts, with edges of one section or of all left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgesweep.engine.bases.ablation import (
    SCORES,
    AblatedSection,
    Logits,
    ablated_chain,
    by_chance,
    mean_positions,
    spliced,
    strongest,
)
from edgesweep.engine.bases.chain import Chain, Section
from edgesweep.engine.bases.needed import Scores, shared_out
from edgesweep.engine.bases.rotation import Basis
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import LOGITS, Inputs, Value
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.loading import at_once, chain_in, value_at

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.interactions.graphs import Graph, Layered
    from edgesweep.sweeps.interactions.shards import Shard

Loaded = list[tuple[PromptBatch, Inputs, Value]]


@dataclass(frozen=True)
class Networks:
    """A network on the evaluation prompts, some at a time.

    Attributes:
        at: the layer whose values are held.
        metric: of `SCORES`.
    """

    chain: Chain
    at: str
    metric: str
    loaded: Loaded

    @classmethod
    def of(cls, context: Context, of: Layered, at: str) -> Networks:
        chain, loaded = chain_in(context, of), Loaded()
        prompts = context.prompts(of.dataset, "eval")
        size = at_once(chain, prompts)
        for first in range(0, len(prompts), size):
            batch = PromptBatch.make(prompts[first : first + size])
            inputs = chain.prepare(batch.clean, batch.real)
            loaded.append((batch, inputs, value_at(chain, at, inputs)))
        return cls(chain, at, context.config.edges_needed.metric, loaded)

    def score(self, run: Callable[[int, Value, Inputs], Logits]) -> Scores:
        """Of each input, of the outputs of `run(number of the batch, value, inputs)`; of nll at all
        positions such that the mean over inputs is that over positions."""
        score, _ = SCORES[self.metric]
        parts = [
            score(run(place, f, inputs), batch)
            for place, (batch, inputs, f) in enumerate(self.loaded)
        ]
        found: Scores = torch.cat(parts).double().cpu().numpy()
        return found / self._positions

    @cached_property
    def _positions(self) -> float:
        """How many an input's score is the sum over, on average."""
        if self.metric != "nll" or not self.chain.everywhere:
            return 1.0
        return mean_positions(batch for batch, _, _ in self.loaded)

    @cached_property
    def base(self) -> Scores:
        """The network's own."""
        return self.score(lambda _, f, inputs: spliced(self.chain, self.at, f, inputs))

    @cached_property
    def guesses(self) -> str:
        """Why what it needs would be no interaction: it does its task worse than by chance. "" of
        one that does better."""
        n_outputs, (_, more) = self.chain.widths[LOGITS], SCORES[self.metric]
        drawn = [by_chance(self.metric, batch, n_outputs).cpu() for batch, _, _ in self.loaded]
        base, chance = float(self.base.mean()), float(torch.cat(drawn).mean())
        if base >= chance if more else base <= chance:
            return ""
        return (
            f"edges_needed.metric: {self.metric} of the network as it is, {base:.4g}, is worse "
            f"than by chance, {chance:.4g}"
        )


@dataclass
class OneSection:
    """A section by its strongest interactions.

    Attributes:
        n: all interactions.
        kept: how many were kept, by how many were asked for: ties are.
        negative: the same of variances that came out negative, where there were some.
    """

    networks: Networks
    sections: list[AblatedSection]
    mean_square: Tensor
    kept: dict[int, int] = field(default_factory=dict)
    negative: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context, shard: Shard[Graph], networks: Networks) -> OneSection:
        section = networks.chain.section(shard.at, shard.end)
        a, b = bases_at(context, shard.of, (shard.at, shard.end))
        ablated = [
            AblatedSection(section, (a.to(f), b.to(f)), f, inputs)
            for _, inputs, f in networks.loaded
        ]
        return cls(networks, ablated, squares(context, shard.of, shard.at))

    @property
    def n(self) -> int:
        return self.mean_square.numel()

    def score(self, size: int) -> Scores:
        """Of each input, with so many; above all of them of the network as it is."""
        if size > self.n:
            self.kept[size] = self.n
            return self.networks.base
        mask = strongest(self.mean_square, size)
        self.kept[size] = int(mask.sum())
        scores = self.networks.score(lambda place, *_: self.sections[place].logits(mask))
        self.negative[size] = sum(section.negative(mask) for section in self.sections)
        return scores


@dataclass(frozen=True)
class Own:
    """Of a section: how many interactions it needs by itself, by the robust rule, and how many
    there are."""

    robust: int
    n: int


@dataclass
class AllSections:
    """All sections at once, each by its strongest interactions: a number of edges is shared out in
    proportion to what each needs by itself."""

    networks: Networks
    layers: tuple[str, ...]
    bases: list[Basis]
    mean_squares: list[Tensor]
    own: Sequence[Own]
    kept: dict[int, int] = field(default_factory=dict)
    negative: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, context: Context, shard: Shard[Graph], networks: Networks, own: Sequence[Own]
    ) -> AllSections:
        layers = shard.layers.layers
        found = [squares(context, shard.of, start) for start in layers[:-1]]
        return cls(networks, layers, bases_at(context, shard.of, layers), found, own)

    @property
    def n(self) -> int:
        return sum(of.n for of in self.own)

    def score(self, size: int) -> Scores:
        """Of each input, with so many; above all of them of the network as it is."""
        if size > self.n:
            self.kept[size] = self.n
            return self.networks.base
        sizes = shared_out(
            size, [min(of.robust, of.n) for of in self.own], [of.n for of in self.own]
        )
        masks = [strongest(e2, k) for e2, k in zip(self.mean_squares, sizes, strict=True)]
        self.kept[size] = int(sum(mask.sum() for mask in masks))

        def run(_: int, f: Value, inputs: Inputs) -> Logits:
            bases = [basis.to(f) for basis in self.bases]
            return ablated_chain(self._sections, bases, f, inputs, masks)

        return self.networks.score(run)

    @cached_property
    def _sections(self) -> list[Section]:
        return [self.networks.chain.section(*pair) for pair in pairwise(self.layers)]


def bases_at(context: Context, graph: Graph, layers: Sequence[str]) -> list[Basis]:
    return [files.read_basis(context.run, context.log, graph.basis, layer) for layer in layers]


def squares(context: Context, graph: Graph, start: str) -> Tensor:
    """E² of a section, without the constant."""
    return files.read_interactions(context.run, context.log, graph, start).mean_square[:, 1:]
