"""The derivative of one layer's attention, had once and applied to any number of cotangents.

Attention is z_h(p) = Σ_q A_h(p, q) v(q), where A_h(p, ·) is a softmax over scores of query p with
one key each. So, with the family's own scores, masks, rotary tables, norms and soft-capping inside:

    ∂z_h(p)/∂v(q) = A_h(p, q)
    ∂z_h(p)/∂k(q) = L_h(p, q) ⊗ K_h(p, q)                  of rank one
    ∂z_h(p)/∂q_h(p) = Σ_q v(q) ⊗ Q_h(p, q)

1. A is read off the core by values that are unit vectors; Q_h(p, q) = ∂A_h(p, q)/∂q_h(p).
2. Let q* be the key of the largest weight of (h, p). K_h(p, ·) = ∂ log A_h(p, q*)/∂k: it is
   −A(q) ∂s(q)/∂k(q) for q ≠ q*, so L = z − v(q) there, and (1 − A(q*)) ∂s(q*)/∂k(q*) at q*, where
   L = A(q*) (v(q*) − mean of v over the other keys). Nothing is divided by what may be small.
3. A cotangent of z becomes those of queries, keys and values, and by the norm's closed form
   (`engine.network.layers.Norm`) one of the stream that the ports read.

A table costs one call of the core a position, whatever the number of cotangents. Pinned by
tests/features/test_pullback.py to autograd through the layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.network.layers import Layer

Pattern = Float[Tensor, "rows heads queries keys"]
Stream = Float[Tensor, "steps positions d_model"]
Heads = Float[Tensor, "steps positions heads d_head"]

#: numbers of one expanded call of the core, which bounds what making a table holds
CALL_NUMBERS = 2**21


class AttentionSlopes:
    """The attention of one layer, linearised at the streams of several steps of one input. Its
    tables are where the layer is; what it is given and returns is where `stream` is.

    Args:
        stream: what the ports read.
        context: attention arguments for given copies of the input (`steps`, or a multiple).
        positions: queries that cotangents may have; others are taken to have none.

    Attributes:
        z: heads before W_O.
        causal: no query sees a later key.
    """

    def __init__(
        self,
        layer: Layer,
        stream: Stream,
        context: Callable[[int], dict[str, Any]],
        positions: Sequence[int],
    ) -> None:
        self._layer, self._context, self._positions = layer, context, list(positions)
        self._home, stream = stream.device, layer.here(stream)
        with torch.no_grad():
            self._ports = layer.project(stream)
            self._unit, self._r = layer.norm_attention.unit(stream)
        self._rep = layer.spec.n_heads // layer.spec.n_kv_heads
        with torch.no_grad():
            self._pattern = self._real(self._probe(*self._ports[:2]))
        self._by_query, by_key = self._tables()
        with torch.no_grad():
            self._value = self._ports[2].repeat_interleave(self._rep, dim=2).transpose(1, 2)
            z = (self._pattern @ self._value).transpose(1, 2)
            self.z, self._left = z.to(self._home), self._left_factor(z)
            self._fold(by_key)
        self.causal = not bool(self._pattern.triu(1).any())

    # --- tables ------------------------------------------------------------------------------
    def _probe(
        self, query: Heads, key: Float[Tensor, "steps positions kv_heads d_head"]
    ) -> Pattern:
        """A, differentiable: the core's output for values that tell positions apart."""
        _, n, heads, d_head = self._ports[2].shape
        parts = []
        for first in range(0, n, d_head):
            size = min(d_head, n - first)
            unit = key.new_zeros(n, d_head)
            unit[first : first + size, :size] = torch.eye(size)
            value = unit[None, :, None].expand(len(key), n, heads, d_head)
            z = self._layer.attend(query, key, value, self._context(len(key)))
            parts.append(z[..., :size].transpose(1, 2))
        return torch.cat(parts, dim=-1)

    def _real(self, pattern: Pattern) -> Pattern:
        """Queries without cotangents see nothing."""
        out = torch.zeros_like(pattern)
        out[:, :, self._positions] = pattern[:, :, self._positions]
        return out

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Q_h(p, q) and K_h(p, q), `[steps, heads, queries, keys, d_head]`."""
        query = self._ports[0]
        n_steps, n, heads, d_head = query.shape
        by_query = query.new_zeros(n_steps, heads, n, n, d_head)
        by_key = torch.zeros_like(by_query)
        size = max(1, CALL_NUMBERS // (n_steps * n * heads * (d_head + n)))
        for first in range(0, len(self._positions), size):
            self._fill(self._positions[first : first + size], by_query, by_key)
        return by_query, by_key

    @torch.enable_grad()
    def _fill(self, some: list[int], by_query: Tensor, by_key: Tensor) -> None:
        """Rows of both tables: one copy of the steps for each position, as a query of one and as a
        key of the other."""
        query, key = (port.repeat(len(some), 1, 1, 1).requires_grad_() for port in self._ports[:2])
        pattern = self._probe(query, key).unflatten(0, (len(some), -1))
        top, where = pattern.detach().max(dim=-1, keepdim=True)
        log_top = torch.zeros_like(pattern.detach()).scatter_(-1, where, 1 / top)
        for rep in range(self._rep):
            pull = torch.zeros_like(log_top)
            heads = slice(rep, None, self._rep)
            for copy, p in enumerate(some):
                pull[copy, :, heads, p] = log_top[copy, :, heads, p]
            found = torch.autograd.grad(pattern, key, pull, retain_graph=True)[0]
            found = found.unflatten(0, (len(some), -1)).permute(0, 1, 3, 2, 4)
            for copy, p in enumerate(some):
                by_key[:, heads, p] = found[copy]
        pull = torch.zeros_like(log_top)
        for copy, q in enumerate(some):
            pull[copy, :, :, self._positions, q] = 1
        found = torch.autograd.grad(pattern, query, pull)[0].unflatten(0, (len(some), -1))
        for copy, q in enumerate(some):
            by_query[:, :, :, q] = found[copy].transpose(1, 2)

    def _left_factor(self, z: Heads) -> Float[Tensor, "steps heads queries keys d_head"]:
        """L_h(p, q)."""
        top, where = self._pattern.max(dim=-1, keepdim=True)
        others = self._pattern.scatter(-1, where, 0.0)
        mean = (others @ self._value) / others.sum(-1, keepdim=True).clamp(min=1e-30)
        index = where.expand(*where.shape[:-1], self._value.shape[-1])
        at_top = top * (self._value.gather(2, index) - mean)
        left = z.transpose(1, 2)[..., None, :] - self._value[:, :, None]
        return left.scatter(3, index[..., None, :], at_top[..., None, :])

    def _fold(self, by_key: Tensor) -> None:
        """Scale the tables by the norm's r at the key, and keep ⟨port, ·⟩ / d of what the norm
        takes back along x̂."""
        folded = self._layer.folded
        heads, kv = self._layer.spec.n_heads, self._layer.spec.n_kv_heads
        self._query_weight = folded.weight[:heads].flatten(0, 1)
        self._key_value = folded.weight[heads:].flatten(0, 1)
        bias = folded.bias.split([heads, kv, kv])
        d_model = self._unit.shape[-1]
        self._query = (self._ports[0] - bias[0]) / d_model
        key = (self._ports[1] - bias[1]).repeat_interleave(self._rep, dim=2).transpose(1, 2)
        self._bias_value = bias[2].repeat_interleave(self._rep, dim=0)
        r = self._r[:, None, None, :, 0]  # of keys
        self._by_key = by_key * r[..., None]
        self._along_key = (self._by_key * key[:, :, None]).sum(-1) / d_model
        self._weighted = self._pattern * r

    # --- use ---------------------------------------------------------------------------------
    def pull(
        self,
        dz: Float[Tensor, "targets steps queries heads d_head"],
        queries: slice,
        keys: slice,
        steps: slice = slice(None),
        *,
        summed: bool,
    ) -> Float[Tensor, "targets steps keys d_model"] | Float[Tensor, "targets keys d_model"]:
        """The cotangent of the stream at some keys, from that of z at some queries.

        Args:
            queries, steps: where `dz` is; queries within `keys`.
            summed: sum over steps, which costs the projections once for all of them.
        """
        dz, v = self._layer.here(dz), "" if summed else "v"
        at, every = (steps, slice(None), queries, keys), slice(keys.stop)
        within = slice(queries.start - keys.start, queries.stop - keys.start)
        a = torch.einsum("bvphd,vhpqd->vhbpq", dz, self._left[at])
        # a query's own cotangent comes from all keys that it sees, wanted or not
        seen = torch.einsum("bvphd,vhqd->vhbpq", dz, self._value[steps, :, every])
        d_query = torch.einsum("vhbpq,vhpqe->bvphe", seen, self._by_query[steps, :, queries, every])
        d_query = d_query * self._r[steps, queries, :, None]
        d_key = torch.einsum(f"vhbpq,vhpqe->b{v}qhe", a, self._by_key[at])
        d_value = torch.einsum(f"vhpq,bvphd->b{v}qhd", self._weighted[at], dz)
        bias = torch.einsum("bvphd,hd->vhbp", dz, self._bias_value)[..., None]
        along = torch.einsum("vhbpq,vhpq->bvq", seen[..., keys] - bias, self._weighted[at])
        along /= self._unit.shape[-1]
        along += torch.einsum("vhbpq,vhpq->bvq", a, self._along_key[at])
        along[:, :, within] += torch.einsum("bvphe,vphe->bvp", d_query, self._query[steps, queries])
        out = torch.einsum(f"bvq,vqd->b{v}qd", along, self._unit[steps, keys]).neg_()
        both = torch.stack([self._by_group(d_key), self._by_group(d_value)], dim=-3)
        out += both.flatten(-3) @ self._key_value
        at_queries = d_query.sum(1) if summed else d_query
        out[..., within, :] += at_queries.flatten(-2) @ self._query_weight
        return out.to(self._home)

    def _by_group(self, heads: Float[Tensor, "*rows heads d"]) -> Float[Tensor, "*rows groups d"]:
        """Summed over the heads that share a key."""
        return heads if self._rep == 1 else heads.unflatten(-2, (-1, self._rep)).sum(-2)
