"""The Jacobian of an attention section without vector-Jacobian products of its maps.

    F̂_s = (r_s + Σ_h z_h(s) O_h + c b − c μ′) C′,     z_h(s) = Σ_t A_h(s, t) v_h(t)

and f = (x, r), of which the ports read x, or both are one.
With D_h = O_h C′ and V_h, K_h, Q_h the maps of values, keys and queries from (f, c), biases in the
last row, a derivative of F̂_s at position t, `[d + 1, k]`, is

    J_t = Σ_h A_h(s, t) V_h D_h + Σ_h (K_h ∂_h(t)) ⊗ L_h(t)
        + [t = s] (C′ + Σ_h Q_h Σ_u Q̇_h(u) ⊗ v_h(u) D_h)

where the weight's own derivatives are had as in `engine.network.attention`: ∂_h(t) is that of the
logarithm of the largest weight of (h, s) by the key at t, L_h(t) = (z_h − v_h(t)) D_h but at the
largest, Q̇_h(u) that of A_h(s, u) by the query. Only these take derivatives through the family's own
scores, masks and rotary tables, as many as positions, whatever k is. Attributions sum over t before
anything of that size is made.

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

#: numbers of the Jacobians that are held at once
HELD_NUMBERS = 2**17


@dataclass(frozen=True)
class Reads:
    """The maps of queries, keys and values from some directions in (f, c), and what these add.

    Attributes:
        query, key: `[heads, m, d_head]`.
        value: through a head's output into F̂, `[heads, m, k]`.
        own: the residual, the output's bias and the centre, `[m, k]`.
    """

    query: Float[Tensor, "heads m e"]
    key: Float[Tensor, "heads m e"]
    value: Float[Tensor, "heads m k"]
    own: Float[Tensor, "m k"]


@dataclass(frozen=True)
class Seen:
    """One output position of some rows, linearised.

    Attributes:
        rows: of the batch. at: the position.
        pattern: A.
        by_key: ∂. left: L.
        by_query: Σ_u Q̇(u) ⊗ v(u) D.
    """

    rows: Int[Tensor, " rows"]
    at: Int[Tensor, " rows"]
    pattern: Float[Tensor, "rows heads t"]
    by_key: Float[Tensor, "rows heads t e"]
    left: Float[Tensor, "rows heads t k"]
    by_query: Float[Tensor, "rows heads e k"]

    def part(self, some: slice) -> Seen:
        """Some of its rows."""
        return Seen(**{name: value[some] for name, value in self.__dict__.items()})


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

    def jacobians(
        self, batch: Batch, outlet: Outlet
    ) -> Iterator[tuple[int, Seen, Float[Tensor, "rows t d1 k"]]]:
        """(number of an output position, which rows, J_t), some real rows at a time, the
        constant's last."""
        eye = torch.eye(self.width + 1, dtype=batch.f.dtype, device=batch.f.device)
        reads = self._reads(Directions(eye[:, :-1], eye[:, -1]), outlet)
        size = max(1, HELD_NUMBERS // (batch.f.shape[1] * reads.own.numel()))
        for s, seen in self._seen(batch, outlet, 1.0):
            for first in range(0, len(seen.rows), size):
                some = seen.part(slice(first, first + size))
                yield s, some, _jacobian(reads, some)

    def attributions(
        self,
        batch: Batch,
        into: Directions,
        outlet: Outlet,
        weights: Float[Tensor, "rows positions k1"],
        alpha: float,
    ) -> Iterator[tuple[int, Int[Tensor, " some"], Float[Tensor, "some k_out k1"]]]:
        """(output position, rows, Σ_t weights_t ∘ ∂F̂/∂(directions at t)) at α·(f, c)."""
        reads = self._reads(into, outlet)
        for s, seen in self._seen(batch, outlet, alpha):
            yield s, seen.rows, _attributed(reads, seen, weights[seen.rows]).transpose(1, 2)

    # --- maps ----------------------------------------------------------------------------------
    def _reads(self, into: Directions, outlet: Outlet) -> Reads:
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
        written = self._each(value) @ self._written(outlet)
        return Reads(query, self._each(key), written, own)

    def _written(self, outlet: Outlet) -> Float[Tensor, "heads e k"]:
        """D."""
        return self.layer.w_out @ outlet.encode

    @property
    def _sizes(self) -> list[int]:
        spec = self.layer.spec
        return [spec.n_heads, spec.n_kv_heads, spec.n_kv_heads]

    def _each(self, of_groups: Tensor) -> Tensor:
        """Of each head what its group has, in the first dimension."""
        return of_groups.repeat_interleave(self.layer.spec.n_heads // len(of_groups), dim=0)

    # --- derivatives of the weights -------------------------------------------------------------
    def _seen(self, batch: Batch, outlet: Outlet, alpha: float) -> Iterator[tuple[int, Seen]]:
        """(number of the output position, what real ones see)."""
        query, key, value = self._ports(batch.f, alpha)
        n, length = batch.f.shape[:2]
        at = torch.arange(length, device=batch.f.device).expand(n, -1)
        if batch.real_out.shape[1] == 1:
            at = batch.inputs.read[batch.row][:, None]
        pattern, by_key, by_query = self._tables(query, key, at, batch)
        v = self._each(value.permute(2, 0, 1, 3)) @ self._written(outlet)[:, None]
        v = v.transpose(0, 1)  # [rows, heads, t, k]
        for s in range(at.shape[1]):
            rows = batch.real_out[:, s].nonzero()[:, 0]
            a = pattern[rows, :, s]
            yield (
                s,
                Seen(
                    rows,
                    at[rows, s],
                    a,
                    by_key[s][rows],
                    _left(a, v[rows]),
                    torch.einsum("rhte,rhtk->rhek", by_query[rows, :, s], v[rows]),
                ),
            )

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


def _left(
    pattern: Float[Tensor, "rows heads t"], v: Float[Tensor, "rows heads t k"]
) -> Float[Tensor, "rows heads t k"]:
    """L: what the output gains with the logarithm of the largest weight, by the key at t."""
    top, where = pattern.max(dim=-1, keepdim=True)
    others = pattern.scatter(-1, where, 0.0)
    mean = (others[..., None, :] @ v) / others.sum(-1)[..., None, None].clamp(min=1e-300)
    left = pattern[..., None, :] @ v - v
    index = where[..., None].expand(-1, -1, -1, v.shape[-1])
    return left.scatter(2, index, top[..., None] * (v.gather(2, index) - mean))


def _jacobian(reads: Reads, seen: Seen) -> Float[Tensor, "rows t m k"]:
    n, heads, length = seen.pattern.shape
    m, k = reads.own.shape
    by_value = seen.pattern.transpose(1, 2).reshape(-1, heads) @ reads.value.reshape(heads, -1)
    by_key = torch.einsum("hme,rhte->rtmh", reads.key, seen.by_key).flatten(0, 1)
    left = seen.left.transpose(1, 2).flatten(0, 1)
    found = torch.baddbmm(by_value.view(-1, m, k), by_key, left).view(n, length, m, k)
    rows = torch.arange(n, device=seen.at.device)
    found[rows, seen.at] += reads.own + _queried(reads, seen)
    return found


def _attributed(
    reads: Reads, seen: Seen, weights: Float[Tensor, "rows t m"]
) -> Float[Tensor, "rows m k"]:
    looked = torch.einsum("rht,rtm->mrh", seen.pattern, weights)
    found = torch.bmm(looked, reads.value.transpose(0, 1)).transpose(0, 1)
    by_key = torch.einsum("hme,rhte->rmht", reads.key, seen.by_key)
    by_key *= weights.transpose(1, 2)[:, :, None]
    found = torch.baddbmm(found, by_key.flatten(2), seen.left.flatten(1, 2))
    rows = torch.arange(len(weights), device=seen.at.device)
    own = reads.own + _queried(reads, seen)
    return found + weights[rows, seen.at, :, None] * own


def _queried(reads: Reads, seen: Seen) -> Float[Tensor, "rows m k"]:
    """Through the query."""
    query = reads.query.transpose(0, 1).flatten(1)
    return query @ seen.by_query.flatten(1, 2)
