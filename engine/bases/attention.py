"""The Jacobian of an attention section without vector-Jacobian products of its maps.

    F̂_s = (r_s + Σ_h z_h(s) O_h + c b − c μ′) C′,     z_h(s) = Σ_t A_h(s, t) v_h(t)

and f = (x, r), of which the ports read x, or both are one.
With V_h, K_h, Q_h the maps of values, keys and queries from (f, c), biases in the last row, a
derivative of F̂_s at position t, `[d + 1, k]`, is

    J_t = Σ_h A_h(s, t) V_h O_h C′ + Σ_h (K_h ∂_h(t)) ⊗ L_h(t) O_h C′
        + [t = s] (C′ + Σ_h Σ_u (Q_h Q̇_h(u)) ⊗ v_h(u) O_h C′)

where the weight's own derivatives are had as in `engine.network.attention`: ∂_h(t) is that of the
logarithm of the largest weight of (h, s) by the key at t, L_h(t) = z_h − v_h(t) but at the largest,
Q̇_h(u) that of A_h(s, u) by the query. Only these take derivatives through the family's own scores,
masks and rotary tables, as many as positions, whatever k is. What is left of an input is some
weights of maps that all inputs share, and a matrix of as many ranks as heads times positions.
Attributions sum over t before anything of the size of a map is made; `closed.attended` has the
Jacobian's second moment.

Exact, with biases folded. Pinned by tests/bases/test_attention.py to one autograd call for each
direction and position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgesweep.engine.bases.forms import ALL, Directions, Outlet
from edgesweep.engine.network.base import Inputs
from edgesweep.engine.network.layers import Layer, Norm

if TYPE_CHECKING:
    from edgesweep.engine.bases.jacobians import Batch

#: numbers of the attributions that are held at once, which a core's own cache holds
HELD_NUMBERS = 2**17


@dataclass(frozen=True)
class Reads:
    """The maps of queries, keys and values from some directions in (f, c), and what these add.

    Attributes:
        query, key: `[heads, m, d_head]`.
        through: what passes into F̂ whatever the weights are: the residual, the output's bias and
            the centre, and then each head's values, `[1 + heads, m, k]`.
    """

    query: Float[Tensor, "heads m e"]
    key: Float[Tensor, "heads m e"]
    through: Float[Tensor, "1+heads m k"]


@dataclass(frozen=True)
class Seen:
    """One output position of some rows, linearised.

    Attributes:
        rows: of the batch. at: the position.
        pattern: A.
        by_key: ∂. by_query: Q̇.
        value: v.
    """

    rows: Int[Tensor, " rows"]
    at: Int[Tensor, " rows"]
    pattern: Float[Tensor, "rows heads t"]
    by_key: Float[Tensor, "rows heads t e"]
    by_query: Float[Tensor, "rows heads t e"]
    value: Float[Tensor, "rows heads t e"]

    def part(self, some: slice | Tensor) -> Seen:
        """Some of its rows."""
        return Seen(**{name: value[some] for name, value in self.__dict__.items()})

    def parts(self, size: int) -> Iterator[Seen]:
        """So many rows at a time."""
        for first in range(0, len(self.rows), size):
            yield self.part(slice(first, first + size))

    def looked(self, weights: Float[Tensor, "rows t m"]) -> Float[Tensor, "m rows 1+heads"]:
        """Σ_t of weights: of the position itself, and of what each head sees."""
        heads = torch.einsum("rht,rtm->mrh", self.pattern, weights)
        own = weights[torch.arange(len(weights), device=weights.device), self.at]
        return torch.cat([own.T[..., None], heads], -1)

    def left(self, v: Float[Tensor, "rows heads t k"]) -> Float[Tensor, "rows heads t k"]:
        """L of values: what z gains with the logarithm of the largest weight, by the key at t."""
        top, where = self.pattern.max(dim=-1, keepdim=True)
        others = self.pattern.scatter(-1, where, 0.0)
        mean = (others[..., None, :] @ v) / others.sum(-1)[..., None, None].clamp(min=1e-300)
        left = self.pattern[..., None, :] @ v - v
        index = where[..., None].expand(-1, -1, -1, v.shape[-1])
        return left.scatter(2, index, top[..., None] * (v.gather(2, index) - mean))

    def queried(
        self, v: Float[Tensor, "rows heads t k"]
    ) -> tuple[Float[Tensor, "rows heads n e"], Float[Tensor, "rows heads n k"]]:
        """Two factors of Σ_u Q̇(u) ⊗ v(u), of as few ranks as there are."""
        length, e = self.by_query.shape[2:]
        if length <= e:
            return self.by_query, v
        eye = torch.eye(e, dtype=v.dtype, device=v.device)
        return eye.expand(*v.shape[:2], -1, -1), self.by_query.mT @ v


@dataclass(frozen=True)
class Attention:
    """A section of one layer's attention.

    Attributes:
        layer, index: the layer, and its number.
        norm: whose affine map the ports read through; None: none.
        at, adds: x and r in f, of width `width`.
    """

    layer: Layer
    index: int
    width: int
    norm: Norm | None = None
    at: slice = field(default_factory=lambda: ALL)
    adds: slice = field(default_factory=lambda: ALL)

    def attributions(
        self,
        batch: Batch,
        into: Directions,
        outlet: Outlet,
        weights: Float[Tensor, "rows positions k1"],
        alpha: float,
    ) -> Iterator[tuple[int, Int[Tensor, " some"], Float[Tensor, "some k_out k1"]]]:
        """(number of an output position, which real rows, Σ_t weights_t ∘ ∂F̂/∂(directions at t)) at
        α·(f, c), some rows at a time."""
        reads, written = self.reads(into, outlet), self.layer.w_out @ outlet.encode
        size = max(1, HELD_NUMBERS // reads.through[0].numel())
        for s, seen in self.seen(batch, alpha):
            for some in seen.parts(size):
                found = _attributed(reads, some, some.value @ written, weights[some.rows])
                yield s, some.rows, found.permute(1, 2, 0)

    # --- maps ----------------------------------------------------------------------------------
    def reads(self, into: Directions, outlet: Outlet) -> Reads:
        ports = self.layer.ports
        x = into.vectors[:, self.at]
        if self.norm is not None:
            x = x * self.norm.weight
            if self.norm.bias is not None:
                x = x + into.c[:, None] * self.norm.bias
        mapped = torch.einsum("md,ped->pme", x, ports.weight)
        mapped = mapped + into.c[:, None] * ports.bias[:, None]
        query, key, value = mapped.split(self._sizes)
        own = into.vectors[:, self.adds] @ outlet.encode
        if self.layer.constant is not None:
            own = own + torch.outer(into.c, self.layer.constant @ outlet.encode)
        own = own - torch.outer(into.c, outlet.shift)
        heads = self._each(value) @ (self.layer.w_out @ outlet.encode)
        return Reads(query, self._each(key), torch.cat([own[None], heads]))

    @property
    def _sizes(self) -> list[int]:
        spec = self.layer.spec
        return [spec.n_heads, spec.n_kv_heads, spec.n_kv_heads]

    def _each(self, of_groups: Tensor) -> Tensor:
        """Of each head what its group has, in the first dimension."""
        return of_groups.repeat_interleave(self.layer.spec.n_heads // len(of_groups), dim=0)

    # --- derivatives of the weights -------------------------------------------------------------
    def seen(self, batch: Batch, alpha: float = 1.0) -> Iterator[tuple[int, Seen]]:
        """(number of the output position, what real ones see)."""
        query, key, value = self._ports(batch.f, alpha)
        n, length = batch.f.shape[:2]
        at = torch.arange(length, device=batch.f.device).expand(n, -1)
        if batch.real_out.shape[1] == 1:
            at = batch.inputs.read[batch.row][:, None]
        pattern, by_key, by_query = self._tables(query, key, at, batch)
        v = self._each(value.permute(2, 0, 1, 3)).transpose(0, 1)  # [rows, heads, t, e]
        for s in range(at.shape[1]):
            rows = batch.real_out[:, s].nonzero()[:, 0]
            told = (pattern[rows, :, s], by_key[s][rows], by_query[rows, :, s], v[rows])
            yield s, Seen(rows, at[rows, s], *told)

    def _ports(self, f: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[rows, positions, heads, d_head]`, at α·(f, c)."""
        x, ports = f[..., self.at], self.layer.ports
        if self.norm is not None:
            x = x * self.norm.weight
            if self.norm.bias is not None:
                x = x + self.norm.bias
        found = alpha * (torch.einsum("rtd,ped->rtpe", x, ports.weight) + ports.bias)
        query, key, value = found.split(self._sizes, dim=2)
        return query, key, value

    def _tables(
        self, query: Tensor, key: Tensor, at: Int[Tensor, "rows s"], batch: Batch
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """A `[rows, heads, s, t]`, of each s its ∂ `[rows, heads, t, e]`, and all Q̇."""
        query, key = query.detach().requires_grad_(), key.detach().requires_grad_()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            every = self._pattern(query, key, batch.inputs, batch.row)
            index = at[:, None, :, None].expand(-1, every.shape[1], -1, every.shape[3])
            pattern = every.gather(2, index)
        with sdpa_kernel(SDPBackend.MATH):
            by_key = [self._by_key(pattern, key, s) for s in range(at.shape[1])]
            by_query = torch.stack(
                [_by_query(pattern, query, at, t) for t in range(pattern.shape[3])], 3
            )
        return pattern.detach(), by_key, by_query

    def _pattern(
        self, query: Tensor, key: Tensor, inputs: Inputs, rows: Tensor
    ) -> Float[Tensor, "rows heads queries keys"]:
        """A: the core's output for values that tell positions apart."""
        n, d_head = key.shape[1], key.shape[-1]
        parts = []
        for first in range(0, n, d_head):
            size = min(d_head, n - first)
            unit = key.new_zeros(n, d_head)
            unit[first : first + size, :size] = torch.eye(size, dtype=key.dtype)
            z = self.layer.attend(
                query, key, unit[None, :, None].expand_as(key), inputs.context(self.index, rows)
            )
            parts.append(z[..., :size].transpose(1, 2))
        return torch.cat(parts, dim=-1)

    def _by_key(self, pattern: Tensor, key: Tensor, s: int) -> Float[Tensor, "rows heads t e"]:
        """The derivative of the logarithm of each head's largest weight."""
        a = pattern.detach()
        top, where = a[:, :, s].max(dim=-1, keepdim=True)
        log_top = torch.zeros_like(a[:, :, s]).scatter_(-1, where, 1 / top.clamp(min=1e-300))
        rep = a.shape[1] // key.shape[2]
        found = a.new_zeros(*a.shape[:2], *key.shape[1::2])
        for one in range(rep):
            heads, pull = slice(one, None, rep), torch.zeros_like(a)
            pull[:, heads, s] = log_top[:, heads]
            (by,) = torch.autograd.grad(pattern, key, pull, retain_graph=True)
            found[:, heads] = by.transpose(1, 2)
        return found


def _by_query(
    pattern: Tensor, query: Tensor, at: Int[Tensor, "rows s"], t: int
) -> Float[Tensor, "rows heads s e"]:
    """The derivatives of the weights of one key by the queries at `at`."""
    pull = torch.zeros_like(pattern)
    pull[..., t] = 1
    (found,) = torch.autograd.grad(pattern, query, pull, retain_graph=True)
    index = at[:, :, None, None].expand(-1, -1, *found.shape[2:])
    return found.gather(1, index).transpose(1, 2)


def _attributed(
    reads: Reads,
    seen: Seen,
    value: Float[Tensor, "rows heads t k"],
    weights: Float[Tensor, "rows t m"],
) -> Float[Tensor, "m rows k"]:
    """Of values as F̂ reads them."""
    found = torch.bmm(seen.looked(weights), reads.through.transpose(0, 1))
    n, heads, length = seen.pattern.shape
    weights = weights.permute(2, 0, 1)
    by_key = _read_by(reads.key, seen.by_key).mul_(weights)
    left, right = seen.queried(value)
    by_query = _read_by(reads.query, left)
    by_query *= weights[:, torch.arange(n, device=seen.at.device), seen.at][..., None]
    if right is value:  # of the same vectors as what keys move
        eye = torch.eye(length, dtype=value.dtype, device=value.device)
        moved = seen.left(eye.expand(n, heads, -1, -1))
        by_query += torch.einsum("hmrt,rhtu->hmru", by_key, moved)
    else:
        by_query = torch.cat([by_query, by_key], -1)
        right = torch.cat([right, seen.left(value)], 2)
    found.transpose(0, 1).baddbmm_(by_query.permute(2, 1, 0, 3).flatten(2), right.flatten(1, 2))
    return found


def _read_by(
    maps: Float[Tensor, "heads m e"], of: Float[Tensor, "rows heads n e"]
) -> Float[Tensor, "heads m rows n"]:
    found = maps @ of.permute(1, 3, 0, 2).flatten(2)
    return found.unflatten(2, (len(of), -1))
