"""A transformer's pieces with its norms split: two more cuts at each (LIB section 5).

    r → (v, r) → (x, r) → r + attention(x)        embed, embed.var, embed.normed, mid0
    r → (v, r) → (x, r) → r + MLP(x)              mid0, mid0.var, mid0.normed, resid0
    r → (v, r) → x → logits                       of the last, residL.normed

Where attention and MLP run side by side, what later pieces read stays side by side too:

    (x, r) → (m, r) → (v, m, r) → (x, m) → m + MLP(x)        m = r + attention(x); mid0 has m and r

All in the network's own coordinates. What reads x applies the norm's affine map first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgesweep.engine.bases.attention import Attention
from edgesweep.engine.bases.chain import Piece, Rows, Step
from edgesweep.engine.bases.closed.modules import affine_of, form_of_mlp
from edgesweep.engine.bases.closed.norms import NormIn, NormOut
from edgesweep.engine.network.base import LOGITS, Inputs, SiteError, Value
from edgesweep.engine.network.layers import Layer, NoNorm, Norm
from edgesweep.engine.network.transformer import Model


class NormMap(nn.Module):
    """w ⊙ x + b, of a norm: a module, so that its bias is folded like all others."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if self.bias is None else x * self.weight + self.bias


def split_pieces(network: Model) -> tuple[nn.Module, tuple[Piece, ...]]:
    """All pieces, and the module whose biases are folded. Raises SiteError."""
    norms = [n for layer in network.layers for n in (layer.norm_attention, layer.norm_mlp)]
    if any(isinstance(norm, NoNorm) for norm in (*norms, network.final_norm)):
        raise SiteError("it has no norms; allowed: bases.norms whole")
    build = _Build(network)
    at, pieces = "embed", list[Piece]()
    for index, layer in enumerate(network.layers):
        pieces += build.attention(at, layer, index)
        pieces += build.mlp(layer, index)
        at = f"resid{index}"
    pieces += build.unembed(at)
    return nn.ModuleList([network.hf, *build.maps]), tuple(pieces)


class _Build:
    """Pieces, layer by layer; `maps`: the norms' affine maps."""

    def __init__(self, network: Model) -> None:
        self.network, self.d = network, network.d_model
        self.parallel = network.spec.parallel
        self.maps: list[NormMap] = []

    def attention(self, before: str, layer: Layer, index: int) -> list[Piece]:
        d, norm = self.d, layer.norm_attention
        one, both = slice(0, d), slice(0, 2 * d) if self.parallel else slice(0, d)
        run = _attention(self._map(norm), layer, index, self.parallel)
        aliases, exact = (f"ln1_out.{index}", f"attn_in.{index}"), None
        if layer.adds_what_it_writes and not self.parallel:
            exact = Attention(layer, index, 2 * d, norm, one, slice(d, 2 * d))
        mid = Piece(f"mid{index}", both.stop, run, True, None, exact, f"ln2.{index}")
        return [*self._norm(before, norm, one, one, d, aliases), mid]

    def mlp(self, layer: Layer, index: int) -> list[Piece]:
        d, norm, mlp = self.d, layer.norm_mlp, layer.plain_mlp
        read = slice(d, 2 * d) if self.parallel else slice(0, d)
        width = 2 * d if self.parallel else d
        form = None
        if mlp is not None:
            form = form_of_mlp(mlp, norm, slice(0, d), slice(d, 2 * d))
        last = index + 1 == self.network.spec.n_layers
        alias = "ln_final" if last else f"ln1.{index + 1}"
        aliases = f"ln2_out.{index}", f"mlp_in.{index}"
        return [
            *self._norm(f"mid{index}", norm, read, slice(0, d), width, aliases),
            Piece(f"resid{index}", d, _mlp(self._map(norm), layer), form=form, alias=alias),
        ]

    def unembed(self, before: str) -> list[Piece]:
        network, norm = self.network, self.network.final_norm
        read = self._map(norm)
        unembed: Any = network.hf.get_output_embeddings()  # type: ignore[operator]

        def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
            return network.unembed_normed(read(f))

        form = None if network.soft_caps else affine_of(unembed, norm)
        aliases = "ln_final_out", "unembed"
        return [
            *self._norm(before, norm, slice(0, self.d), None, self.d, aliases),
            Piece(LOGITS, len(unembed.weight), run, form=form, alias="output"),
        ]

    def _norm(
        self,
        name: str,
        norm: Norm,
        at: slice,
        keeps: slice | None,
        width: int,
        aliases: tuple[str, str],
    ) -> list[Piece]:
        """Two pieces, from a cut of that width."""
        first, then = NormIn(at, norm.centred), NormOut(at, keeps, norm.centred, norm.eps)
        left = self.d if keeps is None else 2 * self.d
        return [
            Piece(
                f"{name}.var", 1 + width, _of(first), form=first, alias=aliases[0], variance=True
            ),
            Piece(f"{name}.normed", left, _of(then), form=then, alias=aliases[1]),
        ]

    def _map(self, norm: Norm) -> NormMap:
        self.maps.append(NormMap(norm))
        return self.maps[-1]


def _of(form: NormIn | NormOut) -> Step:
    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        return form(f)

    return run


def _attention(read: NormMap, layer: Layer, index: int, parallel: bool) -> Step:
    """(x, r) → r + attention(x), and r beside it where the MLP reads r."""

    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        x, r = f.chunk(2, -1)
        z = layer.attend(*layer.project_normed(read(x)), inputs.context(index, rows))
        after = r + layer.write(z)[0]
        return torch.cat([after, r], -1) if parallel else after

    return run


def _mlp(read: NormMap, layer: Layer) -> Step:
    """(x, m) → m + MLP(x)."""

    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        x, m = f.chunk(2, -1)
        return m + layer.mlp_normed(read(x))

    return run
