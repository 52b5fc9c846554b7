"""Interactions: how much each direction of a node layer acts on each of the next.

    A_{(i,s),j}(x) = Σ_t f̂_{j,t} ∫₀¹ dα ∂F̂_{i,s}/∂f̂_{j,t} |_{α f̂, c = α}
    E²_ij = (1/N) Σ_x Σ_s A²,        N = Σ_x positions of the earlier layer           LIB equation 2

∂/∂f̂_j is the derivative along C⁺_j. The integral is a sum over points; the published runs take one,
α = 1, which is exact for ReLU and linear sections and an approximation for attention, GELU and
norms (LIB section 5 has it "throughout"). With enough points Σ_j A_{(i,s),j} = F̂_{i,s}, j with the
constant's: the `residual` says how far it is missed, in RMS relative to F̂. E² is a mean over
inputs and positions; the published files' own note has a sum. With stochastic sources
(`engine.bases.sources`) a random sum over s stands for all s.

Column 0 is the constant's, which is stored and never counted. Pinned by tests/bases/test_bases.py
to one autograd call for each (i, s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.chain import Section
from edgesweep.engine.bases.forms import Directions, Nodes, Outlet
from edgesweep.engine.bases.jacobians import Batch, pulled_back
from edgesweep.engine.bases.moments import Sums
from edgesweep.engine.bases.rotation import Basis
from edgesweep.engine.bases.sources import Sources

#: numbers of the attributions that are held at once
HELD_NUMBERS = 2**22
#: every output position by itself
EACH = Sources()


@dataclass(frozen=True)
class Interactions:
    """Of one section.

    Attributes:
        mean_square: E² `[k_out, 1 + k_in]`, column 0 the constant's.
        standard_error: of E² over inputs, in the same way; NaN of one input.
        residual: of completeness, relative.
    """

    mean_square: Float[Tensor, "k_out k1"]
    standard_error: Float[Tensor, "k_out k1"]
    residual: Float[Tensor, ""]

    @classmethod
    def of(cls, sums: Sums) -> Interactions:
        """From sums over all inputs."""
        n, positions = sums.sums["inputs"], sums.n
        total, square = sums.sums["square"], sums.sums["fourth"]
        spread = (square - total.square() / n).clamp(min=0) / (n - 1)
        residual = (sums.sums["missed"] / sums.sums["reached"]).sqrt()
        return cls(total / positions, (n * spread).sqrt() / positions, residual)


def interaction_sums(
    section: Section,
    batch: Batch,
    bases: tuple[Basis, Basis],
    nodes: Nodes,
    keep: Callable[[Float[Tensor, "inputs k_out k1"]], None] | None = None,
    sources: Sources = EACH,
) -> Sums:
    """Sums over a batch's inputs, to be folded with those of others.

    Args:
        bases: of the section's start and of its end.
        nodes: points of the path and their weights.
        keep: is given Σ_s A² of each input, in their order.
        sources: of sections that have no closed form.
    """
    start, end = bases
    f_hat = start.encoded(batch.f)
    kept = Batch(start.decoded(f_hat), batch.inputs, batch.real, batch.real_out, batch.row)
    weights = torch.cat([torch.ones_like(f_hat[..., :1]), f_hat], -1) * batch.real[..., None]
    reached = end.encoded(section(kept.f, batch.inputs, batch.row))
    inputs, row = batch.row.unique(return_inverse=True)
    # where an input has one row and one output position, nothing of it has to be held
    alone = keep is None and len(inputs) == len(row) and batch.real_out.shape[1] == 1
    n_held = 0 if alone else len(inputs)
    per_input = kept.f.new_zeros(n_held, end.k, 1 + start.k)
    total, fourth, missed, real = kept.f.new_zeros(4)  # of any shape
    for rows, told, found in attributions(section, kept, bases, weights, nodes, sources):
        whole = _whole(reached[rows], told)
        missed += (found.sum(-1) - whole).square().sum()
        real += whole.square().sum()
        square = found.square_()
        if alone:
            total = total + _summed(square)
            fourth = fourth + _summed(square.square_())
        else:
            per_input.index_add_(0, row[rows], square)
    if keep is not None:
        keep(per_input.clone())
    if not alone:
        total, fourth = per_input.sum(0), per_input.square_().sum(0)
    n = missed.new_tensor(float(len(inputs)))
    sums = {"square": total, "fourth": fourth, "missed": missed, "reached": real, "inputs": n}
    return Sums(batch.n_positions, sums)


def _whole(
    reached: Float[Tensor, "rows positions_out k_out"], told: int | Tensor
) -> Float[Tensor, "rows k_out"]:
    """What attributions add up to."""
    if isinstance(told, int):
        return reached[:, told]
    return torch.einsum("irs,rsi->ri", told, reached)


def _summed(x: Float[Tensor, "rows k_out k1"]) -> Float[Tensor, "k_out k1"]:
    """Over rows, along what lies side by side."""
    return x.sum(0) if x.stride(2) <= x.stride(1) else x.mT.sum(0).mT


def attributions(
    section: Section,
    batch: Batch,
    bases: tuple[Basis, Basis],
    weights: Float[Tensor, "rows positions k1"],
    nodes: Nodes,
    sources: Sources = EACH,
) -> Iterator[tuple[slice | Tensor, int | Tensor, Float[Tensor, "rows k_out k1"]]]:
    """(rows, the number of their output position or what several are summed with, `[k_out, rows,
    positions_out]`, and A), which may be changed."""
    start, end = bases
    into, outlet = Directions.of(start.mean, start.decode), Outlet.of(end.mean, end.encode)
    form = section.pieces[0].form if len(section.pieces) == 1 else None
    if form is not None:
        for rows, slopes in form.slopes(batch.f[:, 0], into, outlet, nodes):
            yield rows, 0, slopes.mul_(weights[rows, 0, None])
        return
    if section.attention is not None and not sources.n:
        yield from _attended(section, batch, into, outlet, weights, nodes)
        return
    size = max(1, HELD_NUMBERS // (end.k * (1 + start.k)))
    for first in range(0, len(batch.f), size):
        rows = slice(first, min(first + size, len(batch.f)))
        some = batch.part(rows)
        for at in sources.weights(some, end.k):
            yield rows, at, _sampled(section, some, into, outlet, weights[rows], nodes, at)


def _attended(
    section: Section,
    batch: Batch,
    into: Directions,
    outlet: Outlet,
    weights: Float[Tensor, "rows positions k1"],
    nodes: Nodes,
) -> Iterator[tuple[Tensor, int, Float[Tensor, "rows k_out k1"]]]:
    """The same of one layer's attention."""
    assert section.attention is not None
    paths = [section.attention.attributions(batch, into, outlet, weights, a) for a, _ in nodes]
    for points in zip(*paths, strict=True):
        s, rows, total = points[0]
        total *= nodes[0][1]
        for (_, share), (_, _, found) in zip(nodes[1:], points[1:], strict=True):
            total.add_(found, alpha=share)
        yield rows, s, total


def _sampled(
    section: Section,
    batch: Batch,
    into: Directions,
    outlet: Outlet,
    weights: Float[Tensor, "rows positions k1"],
    nodes: Nodes,
    at: Float[Tensor, "k rows positions_out"],
) -> Float[Tensor, "rows k_out k1"]:
    """A of weighted output positions, by vector-Jacobian products."""
    found = batch.f.new_zeros(len(batch.f), len(at), weights.shape[-1])
    for alpha, share in nodes:
        for pulled in pulled_back(section, batch, outlet, at, alpha):
            slopes = pulled.f @ into.vectors.T
            slopes[..., 0] += pulled.c
            slopes *= weights
            found[:, pulled.i] += share * slopes.sum(2).transpose(0, 1)
    return found
