"""A network with edges of one section, or directions of one layer, left out (LIB section 4.3).

Edges: with a mask `[k_out, k_in]` over a section's directions, F̂_i is computed from
μ + Σ_j m_ij f̂_j C⁺_j, at all positions alike; then f = μ′ + Σ_i F̂_i C′⁺_i, and the rest of the
network runs as it is. The constant is always kept. Directions with equal rows share a run of the
section, and what one input's F̂_i is under a row is kept for other masks that have the same row. It
is edge ablation of features (`engine.features.ablation`) with C as encoder, C⁺ as decoder, a zero
patch and no errors; tests/bases/test_ablation.py pins one to the other.

All sections at once (`ablated_chain`): each reads what the one before it, ablated, comes to. What
each needs by itself does not add up.

Nodes: f ← μ + Σ_{j < k} f̂_j C⁺_j. The mean is always kept; the published code counts the constant
among its k, so its k is ours + 1, and its 0 has no mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edgesweep.engine.bases.chain import Chain, Section
from edgesweep.engine.bases.closed.masked import MaskedUnits
from edgesweep.engine.bases.forms import Affine, Directions, Form, Outlet, Units
from edgesweep.engine.bases.rotation import Basis
from edgesweep.engine.metrics import nll
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import LOGITS, Inputs, Value

#: at the position of each answer; where all positions are read, at each of them
Logits = Float[Tensor, "inputs *positions outputs"]
#: numbers of a run of several rows at once, and of what is kept of such runs
RUN_NUMBERS, KEPT_NUMBERS = 2**20, 2**22


def top1(logits: Logits, batch: PromptBatch) -> Float[Tensor, " inputs"]:
    """1 where the largest of all outputs at the answer's position is a right answer."""
    if logits.ndim == 3:
        last = batch.real.shape[1] - 1 - batch.real.flip(-1).long().argmax(-1)
        logits = logits[torch.arange(len(logits)), last.to(logits.device)]
    best = logits.argmax(-1, keepdim=True)
    return (best == batch.good.to(logits.device)).any(-1).double()


def cross_entropy(logits: Logits, batch: PromptBatch) -> Float[Tensor, " inputs"]:
    """Nats: of each answer; of outputs at all positions the sum over those that a token follows, to
    be divided by `mean_positions`."""
    if logits.ndim == 2:
        return nll(logits.double(), batch)
    before, following = logits[:, :-1], batch.clean[:, 1:, None].to(logits.device)
    told = before.logsumexp(-1) - before.gather(-1, following)[..., 0]
    return (told.double() * _followed(batch).to(told.device)).sum(1)


def mean_positions(batches: Iterable[PromptBatch]) -> float:
    """How many positions of an input a token follows, on average: a mean over inputs of their sums,
    divided by it, is the mean over all these positions."""
    counts = [_followed(batch).sum(1).double() for batch in batches]
    return float(torch.cat(counts).mean())


def _followed(batch: PromptBatch) -> Bool[Tensor, "inputs positions"]:
    return batch.real[:, :-1] & batch.real[:, 1:]


def by_chance(metric: str, batch: PromptBatch, n_outputs: int) -> Float[Tensor, " inputs"]:
    """What all outputs alike score."""
    if metric == "accuracy":
        return (batch.good >= 0).sum(1).double() / n_outputs
    return torch.full((len(batch.good),), math.log(n_outputs), dtype=torch.float64)


#: how much an ablated network can do: name -> (score of each input, whether more is better)
SCORES = {
    "accuracy": (top1, True),
    "nll": (cross_entropy, False),
}


def spliced(chain: Chain, at: str, value: Value, inputs: Inputs) -> Logits:
    """The outputs when a cut has another value."""
    final = value if at == LOGITS else chain.section(at, LOGITS)(value, inputs)
    return final if chain.everywhere else final[:, 0]


@dataclass
class AblatedSection:
    """One section of a network on one batch of inputs.

    Args:
        bases: of its start and its end, in the network's precision.
        f: its start's value.
    """

    section: Section
    bases: tuple[Basis, Basis]
    f: Value
    inputs: Inputs
    _kept: dict[tuple[int, bytes], Tensor] = field(default_factory=dict)

    def logits(self, mask: Bool[np.ndarray, "k_out k_in"]) -> Logits:
        """The network's outputs under a mask."""
        end = self.bases[1]
        return spliced(
            self.section.chain, self.section.end, end.decoded(self.reached(mask)), self.inputs
        )

    def reached(self, mask: Bool[np.ndarray, "k_out k_in"]) -> Value:
        """F̂ under a mask."""
        if isinstance(self._form, Affine):
            f_hat, slopes = self._map
            return f_hat @ (slopes[:, 1:] * torch.from_numpy(mask).to(slopes)).T + slopes[:, 0]
        told = [(i, row.tobytes()) for i, row in enumerate(mask)]
        if sum(x.numel() for x in self._kept.values()) > KEPT_NUMBERS:
            still = [key for key in dict.fromkeys(told) if key in self._kept]
            self._kept = dict(zip(still, self._block(still), strict=True))
        missing: dict[bytes, list[int]] = {}
        for i, row in told:
            if (i, row) not in self._kept:
                missing.setdefault(row, []).append(i)
        # one block, had before the runs: what stays among what they free would break up the heap
        positions = 1 if self.section.chain.is_read(self.section.end) else self.f.shape[1]
        block = iter(self.f.new_empty(sum(map(len, missing.values())), len(self.f), positions))
        ran = self._run(missing) if self._units is None else self._units.reached(missing)
        for name, columns in ran:
            for i, column in zip(missing[name], columns.unbind(-1), strict=True):
                self._kept[i, name] = next(block).copy_(column)
        return torch.stack([self._kept[key] for key in told], -1)

    def _block(self, keys: list[tuple[int, bytes]]) -> tuple[Tensor, ...]:
        """What is kept of some, in a block of their own: the others' memory is free then."""
        return torch.stack([self._kept[key] for key in keys]).unbind() if keys else ()

    def negative(self, mask: Bool[np.ndarray, "k_out k_in"]) -> int:
        """How many variances that a norm divides by a mask makes negative: of the section's start
        one for each position and distinct row, of its end one for each position."""
        start, end = self.bases
        variances, chain, found = self.section.chain.variances, self.section.chain, 0
        if self.section.start in variances:
            rows = torch.from_numpy(np.unique(mask, axis=0)).to(self.f)
            moved = start.encoded(self.f) * start.decode[:, 0]
            v = moved @ rows.T + start.mean[0]
            found += int(((v < 0) & chain.real(self.section.start, self.inputs)[..., None]).sum())
        if self.section.end in variances:
            v = end.decoded(self.reached(mask))[..., 0]
            found += int(((v < 0) & chain.real(self.section.end, self.inputs)).sum())
        return found

    @cached_property
    def _form(self) -> Form | None:
        return self.section.pieces[0].form if len(self.section.pieces) == 1 else None

    @cached_property
    def _map(self) -> tuple[Value, Float[Tensor, "k_out k1"]]:
        """Of a linear section: f̂, and the slopes of F̂, the constant's first."""
        assert isinstance(self._form, Affine)
        start, end = self.bases
        into, outlet = Directions.of(start.mean, start.decode), Outlet.of(end.mean, end.encode)
        return start.encoded(self.f), self._form.jacobian(into, outlet)

    @cached_property
    def _units(self) -> MaskedUnits | None:
        if not isinstance(self._form, Units):
            return None
        return MaskedUnits(self._form, self.bases, self.f)

    def _run(self, rows: dict[bytes, list[int]]) -> Iterator[tuple[bytes, Tensor]]:
        """F̂_i of some directions under the row of the mask that they have."""
        start, end = self.bases
        f_hat, n = start.encoded(self.f), len(self.f)
        size = max(1, RUN_NUMBERS // self.f.numel())
        names = list(rows)
        for first in range(0, len(names), size):
            some = names[first : first + size]
            masks = torch.from_numpy(np.stack([np.frombuffer(row, bool) for row in some]))
            kept = f_hat * masks.to(f_hat)[:, None, None]
            row = torch.arange(n, device=self.f.device).repeat(len(some))
            found = self.section(start.decoded(kept.flatten(0, 1)), self.inputs, row) - end.mean
            for name, of in zip(some, found.unflatten(0, (len(some), n)), strict=True):
                yield name, of @ end.encode[:, rows[name]]


def ablated_chain(
    sections: Sequence[Section],
    bases: Sequence[Basis],
    f: Value,
    inputs: Inputs,
    masks: Sequence[Bool[np.ndarray, "k_out k_in"]],
) -> Logits:
    """The outputs with edges of every section left out at once: each section reads what the one
    before it, ablated, comes to.

    Args:
        sections: neighbours; bases: of their starts, and of the last one's end. f: the first
            start's value.
    """
    for section, pair, mask in zip(sections, pairwise(bases), masks, strict=True):
        f = pair[1].decoded(AblatedSection(section, pair, f, inputs).reached(mask))
    return spliced(sections[0].chain, sections[-1].end, f, inputs)


def ablated_nodes(chain: Chain, at: str, basis: Basis, f: Value, k: int, inputs: Inputs) -> Logits:
    """The outputs when a layer keeps its first k directions; from all of them on, as it is."""
    if k >= basis.k:
        return spliced(chain, at, f, inputs)
    kept = basis.encoded(f)[..., :k] @ basis.decode[:k]
    return spliced(chain, at, basis.mean + kept, inputs)


def strongest(mean_square: Float[Tensor, "k_out k_in"], k: int) -> Bool[np.ndarray, "k_out k_in"]:
    """The k interactions with the largest E², and all that equal the least of these."""
    values = mean_square.numpy()
    if k >= values.size:
        return np.ones(values.shape, bool)
    if k <= 0:
        return np.zeros(values.shape, bool)
    threshold = np.partition(values, values.size - k, axis=None)[values.size - k]
    found: np.ndarray = values >= threshold
    return found
