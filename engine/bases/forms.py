"""Sections whose Jacobians are known: what LIB needs of them without one vector-Jacobian product.

`Affine`   y = f W + c b
`Units`    y = Σ_r h_r(f W + c b) W_out + c b_out, and f itself where there is a residual: an MLP.
           Its Jacobian is W diag(g) W_out (+ 1), with g(pre) the slopes of its hidden units. It may
           read one part of f and add another, as where f = (x, r), normed and not.

A gated MLP, (act(u) ∘ v) W_down, has two such units for each of its own, read by [W_gate W_up] and
written by W_down twice, with slopes act′(u) ∘ v and act(u). With Q = C C ᵀ of the next layer,
K = E[g gᵀ] and ḡ = E[g] over the data, which do not depend on Q:

    M′ = W [(W_out Q W_outᵀ) ∘ K] Wᵀ + (Q + A + Aᵀ),    A = W diag(ḡ) W_out Q       the second with
                                                                                   a residual

of (x, r) the three terms in the blocks xx, rr and xr.

All biases are folded, so along a path to zero the hidden units see α·pre. Float64. Pinned by
tests/bases/test_bases.py to one autograd call a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.bases.moments import Sums, squared

Activation = Callable[[Tensor], Tensor]
#: numbers of a few rows' slopes, which a core's own cache holds
HELD_SLOPES = 2**18
#: rows among which the nearest are looked for
WALKED = 1024
#: all of a vector
ALL = slice(None)
#: points of a path and their weights
Nodes = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Directions:
    """Directions in (f, c), the constant's first.

    Attributes:
        vectors: `[1 + k, d]`.
        c: `[1 + k]`; 1 of the constant's and 0 of all others.
    """

    vectors: Float[Tensor, "k1 d"]
    c: Float[Tensor, " k1"]

    @classmethod
    def of(cls, mean: Float[Tensor, " d"], decode: Float[Tensor, "k d"]) -> Directions:
        """(μ, 1), and (C⁺_j, 0)."""
        c = mean.new_zeros(1 + len(decode))
        c[0] = 1.0
        return cls(torch.cat([mean[None], decode]), c)

    @classmethod
    def constant(cls, mean: Float[Tensor, " d"]) -> Directions:
        """(μ, 1) alone."""
        return cls.of(mean, mean.new_zeros(0, len(mean)))


@dataclass(frozen=True)
class Outlet:
    """What a section's output is read by: F̂ = F C′ − c μ′ C′.

    Attributes:
        encode: C′ `[d′, k′]`.
        shift: μ′ C′ `[k′]`.
    """

    encode: Float[Tensor, "d k"]
    shift: Float[Tensor, " k"]

    @classmethod
    def of(cls, mean: Float[Tensor, " d"], encode: Float[Tensor, "d k"]) -> Outlet:
        return cls(encode, mean @ encode)


class Form(Protocol):
    """A section of one position, in closed form."""

    def statistics(self, f: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        """Sums over vectors, of all that `pulled` needs of the data."""

    def pulled(self, q: Float[Tensor, "e e"], data: Sums) -> Float[Tensor, "d d"]:
        """M′."""

    def constant(self, outlet: Outlet, mean: Float[Tensor, " d"], data: Sums) -> float:
        """The mean square of the derivative of F̂ along (μ, 1)."""

    def slopes(
        self, f: Float[Tensor, "n d"], into: Directions, outlet: Outlet, nodes: Nodes
    ) -> Iterator[tuple[slice | Tensor, Float[Tensor, "rows k_out k1"]]]:
        """The derivatives of F̂ along some directions, averaged over the path α·(f, 1), of a few
        rows at a time, which may be changed."""


@dataclass(frozen=True)
class Affine:
    """y = f W + c b."""

    weight: Float[Tensor, "d e"]
    bias: Float[Tensor, " e"] | None = None

    def statistics(self, f: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        return {}

    def pulled(self, q: Float[Tensor, "e e"], data: Sums) -> Float[Tensor, "d d"]:
        return self.weight @ q @ self.weight.T

    def constant(self, outlet: Outlet, mean: Float[Tensor, " d"], data: Sums) -> float:
        return float(self.jacobian(Directions.constant(mean), outlet).square().sum())

    def slopes(
        self, f: Float[Tensor, "n d"], into: Directions, outlet: Outlet, nodes: Nodes
    ) -> Iterator[tuple[slice, Float[Tensor, "rows k_out k1"]]]:
        jacobian = sum(w for _, w in nodes) * self.jacobian(into, outlet)
        for rows in a_few(len(f), jacobian.numel()):
            yield rows, jacobian.repeat(rows.stop - rows.start, 1, 1)

    def jacobian(self, into: Directions, outlet: Outlet) -> Float[Tensor, "k_out k1"]:
        """The derivatives of F̂ along some directions, which are the same everywhere."""
        moved = into.vectors @ self.weight
        if self.bias is not None:
            moved = moved + torch.outer(into.c, self.bias)
        return (moved @ outlet.encode - torch.outer(into.c, outlet.shift)).T


@dataclass(frozen=True)
class Units:
    """An MLP.

    Attributes:
        read: W `[d, units]`, and read_bias `[units]`.
        slope: from what all units of some rows see, `[n, units]`, to their slopes.
        value: from the same to what they come to, `[n, values]`, which the first rows of W_out
            write.
        write: W_out `[units, d′]`; None: units are what it puts out.
        write_bias: `[d′]`.
        at: the part of f that it reads.
        adds: the part of f that is added to what it writes; None: none.
    """

    read: Float[Tensor, "d units"]
    read_bias: Float[Tensor, " units"] | None
    slope: Activation
    value: Activation
    write: Float[Tensor, "units e"] | None = None
    write_bias: Float[Tensor, " e"] | None = None
    at: slice = field(default_factory=lambda: ALL)
    adds: slice | None = None

    def seen(self, f: Float[Tensor, "n d"]) -> Float[Tensor, "n units"]:
        """What the units see."""
        seen = f[:, self.at] @ self.read
        return seen if self.read_bias is None else seen + self.read_bias

    def statistics(self, f: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        g = self.slope(self.seen(f))
        return {"slope": g.sum(0), "slopes": squared(g)}

    def pulled(self, q: Float[Tensor, "e e"], data: Sums) -> Float[Tensor, "d d"]:
        written = self._written(q)
        inner = written @ self.write.T if self.write is not None else written.clone()
        through = self.read @ inner.mul_(data.sums["slopes"]).div_(data.n) @ self.read.T
        del inner  # as large as the slopes
        if self.adds is None:
            return through
        width = max(self.adds.stop or len(q), self.at.stop or len(self.read))
        found = q.new_zeros(width, width)
        found[self.at, self.at] += through
        found[self.adds, self.adds] += q
        a = self.read @ (data.mean("slope")[:, None] * written)
        found[self.at, self.adds] += a
        found[self.adds, self.at] += a.T
        return found

    def constant(self, outlet: Outlet, mean: Float[Tensor, " d"], data: Sums) -> float:
        still = self._added(Directions.constant(mean), outlet)[0]
        moved = self.seen(mean[None])[0][:, None] * self._written(outlet.encode)
        cross = 2 * (data.mean("slope") @ moved) @ still
        square = ((moved @ moved.T) * data.mean("slopes")).sum()
        return float(still @ still + cross + square)

    def slopes(
        self, f: Float[Tensor, "n d"], into: Directions, outlet: Outlet, nodes: Nodes
    ) -> Iterator[tuple[Tensor, Float[Tensor, "rows k_out k1"]]]:
        """Of a row by those of the row before it, for the units that have another slope there;
        where these are many, from nothing. Of ReLU they are few, in the order of `walk`."""
        seen = self.seen(f)
        g = torch.stack([w * self.slope(alpha * seen) for alpha, w in nodes]).sum(0)
        entering = into.vectors[:, self.at] @ self.read
        if self.read_bias is not None:
            entering = entering + torch.outer(into.c, self.read_bias)
        entering, leaving = entering.T.contiguous(), self._written(outlet.encode)
        still = sum(w for _, w in nodes) * self._added(into, outlet).T.contiguous()
        order, slopes = walk(g), still.clone()
        change = torch.diff(g[order], dim=0, prepend=torch.zeros_like(g[:1]))
        differ = (change != 0).sum(1).tolist()
        units = change.nonzero()[:, 1].split(differ)
        by = change[change != 0][:, None].split(differ)
        for place in a_few(len(f), still.numel()):
            rows = order[place]
            found = still.new_empty(len(rows), *still.shape)
            for n, of_row in enumerate(found, place.start):
                if 2 * differ[n] < g.shape[1]:
                    some = leaving.index_select(0, units[n]) * by[n]
                    slopes.addmm_(some.T, entering.index_select(0, units[n]))
                else:
                    here = g[order[n], :, None]
                    torch.addmm(still, (leaving * here).T, entering, out=slopes)
                of_row.copy_(slopes)
            yield rows, found

    def _added(self, into: Directions, outlet: Outlet) -> Float[Tensor, "k1 k_out"]:
        """The derivatives of all but the units: the residual, the bias and the centre."""
        found = -torch.outer(into.c, outlet.shift)
        if self.adds is not None:
            found = found + into.vectors[:, self.adds] @ outlet.encode
        if self.write_bias is not None:
            found = found + torch.outer(into.c, self.write_bias @ outlet.encode)
        return found

    def _written(self, x: Float[Tensor, "e n"]) -> Float[Tensor, "units n"]:
        return x if self.write is None else self.write @ x


def walk(g: Float[Tensor, "n units"]) -> Int[Tensor, " n"]:
    """An order of rows in which each is the nearest to the one before it, by how many units differ,
    of those that are left of its block of `WALKED`; as they are where slopes are of more than two
    values, and so hardly ever the same."""
    on = g == g.max()
    if not bool((on | (g == g.min())).all()):
        return torch.arange(len(g))
    found = []
    for first in range(0, len(g), WALKED):
        some = on[first : first + WALKED].float()
        both = (some @ some.T).cpu().numpy()
        size = both.diagonal()
        apart = size[:, None] + size - 2 * both
        taken, at = np.zeros(len(some), dtype=np.float32), 0
        for _ in range(len(some)):
            found.append(first + at)
            taken[at] = np.inf
            at = int((apart[at] + taken).argmin())
    return torch.tensor(found)


def a_few(n: int, numbers: int) -> Iterator[slice]:
    """Rows of so many numbers each, a few at a time."""
    size = max(1, HELD_SLOPES // numbers)
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def slope_of(activation: Activation) -> Activation:
    """The derivative of an elementwise function."""

    @torch.enable_grad()
    def slope(seen: Tensor) -> Tensor:
        leaf = seen.detach().requires_grad_()
        return torch.autograd.grad(activation(leaf).sum(), leaf)[0]

    return slope


def gated(activation: Activation) -> Activation:
    """Of a gated MLP, from u and v side by side: act(u) ∘ v."""

    def values(seen: Tensor) -> Tensor:
        gate, up = seen.chunk(2, -1)
        return activation(gate) * up

    return values


def gated_slopes(activation: Activation) -> Activation:
    """Of a gated MLP: act′(u) ∘ v, then act(u), from u and v side by side."""
    slope = slope_of(activation)

    def slopes(seen: Tensor) -> Tensor:
        gate, up = seen.chunk(2, -1)
        return torch.cat([slope(gate) * up, activation(gate)], -1)

    return slopes
