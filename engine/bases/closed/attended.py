"""The second moment of the Jacobian of one layer's attention, alone or before a closed section.

With B the derivatives of F̂ by what the attention puts out, `[d, k]`, of each row its own where a
closed section follows, else C′; y = v O, and the letters of `attention`, O_0 = 1 and V_0 = 1 of the
residual as of one more head that sees position s alone:

    J_t = (Σ_h A_h(t) V_h O_h + Σ_h K_h ∂_h(t) ⊗ L_h(t) O_h + [t = s] Σ_h Q_h Σ_u Q̇_h(u) ⊗ y_h(u)) B

V, K, Q and O are the same everywhere, so that of the data M′ = Σ J_t J_tᵀ takes, with P = B Bᵀ,

    Σ A_h A_g P        Σ A_h (P O_gᵀ L_g) ⊗ ∂_g        Σ ∂_h (L_h O_h P O_gᵀ L_g) ⊗ ∂_g

and the same with Q̇ and y in place of ∂ and L O: the cost of a row is about that of P, and of the
ranks of the last two. No J_t is made. Pinned by tests/bases/test_attention.py to vector-Jacobian
products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.attention import Attention, Reads, Seen
from edgesweep.engine.bases.forms import Directions, Outlet


@dataclass(frozen=True)
class Later:
    """What reads the attention's output: of all rows, or of each.

    Attributes:
        encode: B. constant: the derivatives of F̂ by c that are not through it.
    """

    encode: Float[Tensor, "*rows d k"]
    constant: Float[Tensor, "*rows k"]


class SecondMoment:
    """Σ J_t J_tᵀ, and Σ |(μ, 1) J_t|² as `constant`, of output positions that are added.

    Args:
        mean: μ of the attention's start. width: d, of its end.
    """

    def __init__(self, attention: Attention, mean: Float[Tensor, " d"], width: int) -> None:
        eye = torch.eye(attention.width, dtype=mean.dtype, device=mean.device)
        out = torch.eye(width, dtype=mean.dtype, device=mean.device)
        outlet = Outlet(out, mean.new_zeros(width))
        self._maps = attention.reads(Directions(eye, 0 * mean), outlet)
        self._point = attention.reads(Directions.constant(mean), outlet)
        self._written = attention.layer.w_out
        heads, e = self._written.shape[:2]
        self._pairs = torch.triu_indices(1 + heads, 1 + heads)
        shared = 1 + heads, heads, width, e
        self._by_value = mean.new_zeros(self._pairs.shape[1], width**2)
        self._by_key, self._by_query = mean.new_zeros(2, *shared)
        self._ranks = mean.new_zeros(3, heads, e, heads, e)
        self.constant = mean.new_zeros(())

    def numbers(self, seen: Seen) -> int:
        """Of one row."""
        heads, e, width = self._written.shape
        return seen.pattern.shape[2] * heads * (width + (1 + heads) * e)

    def add(self, seen: Seen, later: Later) -> None:
        """One output position of some rows."""
        y = seen.value @ self._written
        read = (y.flatten(1, 2) @ later.encode).unflatten(1, y.shape[1:3])
        pulled = (read.flatten(1, 2) @ later.encode.mT).unflatten(1, y.shape[1:3])
        rows = torch.arange(len(seen.rows), device=seen.at.device)
        own = torch.zeros_like(seen.pattern[:, :1])
        own[rows, 0, seen.at] = 1
        shares = torch.cat([own, seen.pattern], 1)
        weights = (shares[:, self._pairs[0]] * shares[:, self._pairs[1]]).sum(-1)
        moment = (later.encode @ later.encode.mT).flatten(-2)
        if moment.ndim == 1:
            weights, moment = weights.sum(0, keepdim=True), moment[None]
        self._by_value.addmm_(weights.T, moment)
        here = shares[rows, :, seen.at]
        left, moved = seen.queried(read)
        self._by_key += _shared(shares[:, :, None], seen.by_key, seen.left(pulled))
        self._by_query += _shared(here[:, :, None, None], left, seen.queried(pulled)[1])
        lost, at_key = seen.left(read), seen.by_key
        each = [x.transpose(1, 2).flatten(0, 1)[:, :, None] for x in (at_key, lost)]
        self._ranks[0] += _ranked(each[0], each[1], each[0], each[1])
        one = [x[rows, :, seen.at][:, :, None] for x in (at_key, lost)]
        self._ranks[1] += _ranked(left, moved, one[0], one[1])
        self._ranks[2] += _ranked(left, moved, left, moved)
        self._add_constant(seen, later, shares, (left, moved, lost))

    def _add_constant(
        self, seen: Seen, later: Later, shares: Tensor, factors: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        left, moved, lost = factors
        point = self._point
        told = shares.mT @ (point.through[:, 0] @ later.encode)
        told += torch.einsum("rhte,he,rhtk->rtk", seen.by_key, point.key[:, 0], lost)
        here = torch.einsum("rhne,he,rhnk->rk", left, point.query[:, 0], moved)
        told[torch.arange(len(told), device=seen.at.device), seen.at] += here + later.constant
        self.constant += told.square().sum()

    def whole(self) -> Float[Tensor, "d d"]:
        """Σ J_t J_tᵀ."""
        maps: Reads = self._maps
        width = maps.through.shape[-1]
        half = torch.zeros_like(maps.through).mT.contiguous()  # [1 + heads, width, d]
        for moment, i, j in zip(self._by_value, *self._pairs.tolist(), strict=True):
            half[i] += moment.view(width, width) @ maps.through[j].T / (2 if i == j else 1)
        for by, port in ((self._by_key, maps.key), (self._by_query, maps.query)):
            half += torch.einsum("hgde,gme->hdm", by, port)
        found = torch.einsum("hmd,hdn->mn", maps.through, half)
        keys, across, queries = self._ranks
        for by, one, other in (
            (keys / 2, maps.key, maps.key),
            (across, maps.query, maps.key),
            (queries / 2, maps.query, maps.query),
        ):
            found += torch.einsum("hme,hegf,gnf->mn", one, by, other)
        return found + found.T


def _shared(
    shares: Float[Tensor, "rows h #g #t"],
    left: Float[Tensor, "rows g t e"],
    right: Float[Tensor, "rows g t d"],
) -> Float[Tensor, "h g d e"]:
    """Σ A_h (right ⊗ left), over rows and t."""
    both = (shares[..., None] * left[:, None]).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)
    found = right.permute(1, 3, 0, 2).flatten(2) @ both  # [g, d, h e]
    return found.unflatten(2, (shares.shape[1], -1)).permute(2, 0, 1, 3)


def _ranked(
    left: Float[Tensor, "rows g n e"],
    read: Float[Tensor, "rows g n k"],
    other_left: Float[Tensor, "rows h m e"],
    other_read: Float[Tensor, "rows h m k"],
) -> Float[Tensor, "g e h e"]:
    """Σ left (read · other) ⊗ other's left."""
    g, h = left.shape[1], other_left.shape[1]
    gram = read.flatten(1, 2) @ other_read.flatten(1, 2).mT
    gram = gram.unflatten(2, (h, -1)).unflatten(1, (g, -1))  # [rows, g, n, h, m]
    right = torch.einsum("rgnhm,rhme->grnhe", gram, other_left)
    found = left.permute(1, 3, 0, 2).flatten(2) @ right.flatten(1, 2).flatten(2)
    return found.unflatten(2, (h, -1))
