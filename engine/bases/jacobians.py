"""Second moments of a section's Jacobian, M′ and Λ_0 (LIB equations 19 and 27), a batch at a time.

    M′ = (1/N) Σ_x Σ_t Σ_{i,s} g gᵀ,    g = ∂F̂_{i,s}/∂f_t,    F̂ = (F(f, c) − c μ′) C′

with i over directions of the later layer, s over its positions, t and N over positions of this one.
Λ_0 is the same of the derivative along the constant, (μ, 1). One cotangent C′_i is pulled back for
each (i, s), many at once. Where positions do not mix, each is a row of its own, and nothing is
summed that has to be told apart. With stochastic sources (`engine.bases.sources`) one cotangent
φ_s C′_i stands for all s.

Equation 12 misses the hat on f of the later layer. Pinned by tests/bases/test_bases.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgesweep.engine.bases.attention import Attention
from edgesweep.engine.bases.chain import Section
from edgesweep.engine.bases.closed.attended import Later, SecondMoment
from edgesweep.engine.bases.forms import Affine, Directions, Form, Outlet
from edgesweep.engine.bases.moments import Sums, squared
from edgesweep.engine.bases.rotation import Basis
from edgesweep.engine.network.base import Inputs, Value

#: numbers of one batch of cotangents
BATCH_NUMBERS = 2**21
#: numbers of what an attention's second moment is made of that are held at once, which a core's own
#: cache holds
HELD_NUMBERS = 2**17


@dataclass(frozen=True)
class Batch:
    """Inputs at the start of a section.

    Attributes:
        f: `[rows, positions, d]`.
        inputs: what the rows are rows of.
        real: which positions are of the input.
        real_out: the same of the section's end.
        row: the input that each row belongs to.
    """

    f: Value
    inputs: Inputs
    real: Bool[Tensor, "rows positions"]
    real_out: Bool[Tensor, "rows positions_out"]
    row: Tensor

    @classmethod
    def of(cls, section: Section, f: Value, inputs: Inputs) -> Batch:
        """Values at a section's start; where positions do not mix, each real one is a row."""
        chain = section.chain
        real = chain.real(section.start, inputs).expand(f.shape[:2])
        row = torch.arange(len(f), device=f.device)
        if section.mixes:
            return cls(f, inputs, real, chain.real(section.end, inputs), row)
        one = real.new_ones(int(real.sum()), 1)
        return cls(f[real][:, None], inputs, one, one, row[:, None].expand_as(real)[real])

    def part(self, some: slice) -> Batch:
        """Some of its rows."""
        cut = (self.real[some], self.real_out[some], self.row[some])
        return Batch(self.f[some], self.inputs, *cut)

    @property
    def n_positions(self) -> int:
        """N, of its inputs."""
        return int(self.real.sum())


@dataclass(frozen=True)
class Pulled:
    """Cotangents of some directions `i` at one output position, pulled back.

    Attributes:
        i: which of the later directions.
        f: `[i, rows, positions, d]`.
        c: `[i, rows, positions]`.
    """

    i: slice
    f: Float[Tensor, "i rows positions d"]
    c: Float[Tensor, "i rows positions"]


def pulled_back(
    section: Section,
    batch: Batch,
    outlet: Outlet,
    weights: Float[Tensor, "i rows positions_out"],
    alpha: float = 1.0,
) -> Iterator[Pulled]:
    """∂/∂(f, c) of Σ_s weights_{i,s} F̂_{i,s}, at α·(f, 1), some directions at a time."""
    f = (alpha * batch.f).requires_grad_()
    c = torch.full_like(f[..., :1], alpha).requires_grad_()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        out = section(f, batch.inputs, batch.row, c)
    size = max(1, BATCH_NUMBERS // f.numel())
    for first in range(0, outlet.encode.shape[1], size):
        some = slice(first, min(first + size, outlet.encode.shape[1]))
        mine = weights[some]
        cotangent = mine[..., None] * outlet.encode[:, some].T[:, None, None]
        with sdpa_kernel(SDPBackend.MATH):
            by_f, by_c = torch.autograd.grad(
                out, (f, c), cotangent, is_grads_batched=True, retain_graph=True,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        by_c = by_c[..., 0].expand(by_f.shape[:-1]).clone()  # without any bias it is 0, once
        _add_at(by_c, batch, -mine * outlet.shift[some, None, None])
        yield Pulled(some, by_f, by_c)


def _add_at(by_c: Tensor, batch: Batch, added: Float[Tensor, "i rows positions_out"]) -> None:
    """The centre's part, at the positions that outputs are at."""
    if added.shape[-1] == by_c.shape[-1]:
        by_c += added
        return
    rows = torch.arange(by_c.shape[1], device=by_c.device)
    by_c[:, rows, batch.inputs.read[batch.row]] += added[..., 0]


def one_by_one(batch: Batch, k: int) -> Iterator[Float[Tensor, "k rows positions_out"]]:
    """Weights that tell every output position apart."""
    for s in range(batch.real_out.shape[1]):
        weights = batch.f.new_zeros(k, *batch.real_out.shape)
        weights[:, :, s] = batch.real_out[:, s]
        yield weights


def jacobian_sums(
    section: Section,
    batch: Batch,
    outlet: Outlet,
    mean: Float[Tensor, " d"],
    weights: Iterator[Float[Tensor, "k rows positions_out"]],
) -> Sums:
    """N·M′ as `jacobian` and N·Λ_0 as `constant`, over a batch."""
    d = batch.f.shape[-1]
    sums = {"jacobian": batch.f.new_zeros(d, d), "constant": batch.f.new_zeros(())}
    for of in weights:
        for pulled in pulled_back(section, batch, outlet, of):
            g = pulled.f.reshape(-1, d)
            sums["jacobian"] += squared(g)
            sums["constant"] += (pulled.f @ mean + pulled.c).square().sum()
    return Sums(batch.n_positions, sums)


def exact_sums(section: Section, batch: Batch, outlet: Outlet, mean: Float[Tensor, " d"]) -> Sums:
    """The same of every output position: of one layer's attention, alone or before a section that
    is closed, without products."""
    attention, rest = section.pieces[0].attention, section.pieces[1:]
    if attention is None or len(rest) > 1 or any(piece.form is None for piece in rest):
        weights = one_by_one(batch, outlet.encode.shape[1])
        return jacobian_sums(section, batch, outlet, mean, weights)
    moment = SecondMoment(attention, mean, section.pieces[0].width)
    _through_attention(attention, section, batch, outlet, moment)
    return Sums(batch.n_positions, {"jacobian": moment.whole(), "constant": moment.constant})


def _through_attention(
    attention: Attention, section: Section, batch: Batch, outlet: Outlet, moment: SecondMoment
) -> None:
    """Adds the Jacobians of the attention, times those of what follows it."""
    first, rest = section.pieces[0], section.pieces[1:]
    if not rest:
        later = Later(outlet.encode, -outlet.shift)
        for _, seen in attention.seen(batch):
            for some in seen.parts(max(1, HELD_NUMBERS // moment.numbers(seen))):
                moment.add(some, later)
        return
    form = rest[0].form
    assert form is not None
    eye = torch.eye(first.width + 1, dtype=batch.f.dtype, device=batch.f.device)
    into = Directions(eye[:, :-1], eye[:, -1])
    y = Section(section.chain, section.start, first.end, (first,))(batch.f, batch.inputs, batch.row)
    for s, seen in attention.seen(batch):
        for rows, slopes in form.slopes(y[seen.rows, s], into, outlet, [(1.0, 1.0)]):
            moment.add(seen.part(rows), Later(slopes[..., :-1].mT, slopes[..., -1]))


# --- without sampling ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Folded:
    """A section with its last linear pieces taken into what reads it.

    Attributes:
        section: what is left; `form` its closed form, if it has one.
        outlet: of its end.
    """

    section: Section
    form: Form | None
    outlet: Outlet


def folded_tail(section: Section, basis: Basis) -> Folded:
    """Linear pieces at the end have one Jacobian for all inputs: GIB's sections end in some."""
    pieces, encode = list(section.pieces), basis.encode
    shift = basis.mean @ encode
    while len(pieces) > 1 and isinstance(pieces[-1].form, Affine):
        form = pieces.pop().form
        assert isinstance(form, Affine)
        if form.bias is not None:
            shift = shift - form.bias @ encode
        encode = form.weight @ encode
    left = Section(section.chain, section.start, pieces[-1].end, tuple(pieces))
    return Folded(left, pieces[0].form if len(pieces) == 1 else None, Outlet(encode, shift))


def is_closed(section: Section) -> bool:
    """Whether a section's second moment takes no vector-Jacobian product."""
    pieces = list(section.pieces)
    while len(pieces) > 1 and isinstance(pieces[-1].form, Affine):
        pieces.pop()
    return len(pieces) == 1 and pieces[0].form is not None
