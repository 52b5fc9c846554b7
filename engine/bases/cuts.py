"""A network as a chain of pieces between cuts, and of sections between node layers.

A *cut* is a tensor that everything later is computed from; a *node layer* is a chosen cut, and a
*section* the pieces from one to the next. Of an MLP or CNN the cuts are its sites and `logits`; of
a transformer `embed`, and after each layer's attention and MLP the stream `mid0`, `resid0`, …, then
`logits`. Where attention and MLP run side by side there is no `mid`. A cut that no later piece
mixes over positions is read at the position of the answer alone: what lies elsewhere acts on
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from edgesweep.engine.bases.constant import Constant, folded
from edgesweep.engine.bases.forms import Affine, Form, Units, gated_slopes, slope_of
from edgesweep.engine.network.base import LOGITS, Inputs, SiteError, Value
from edgesweep.engine.network.feedforward import FeedForward
from edgesweep.engine.network.feedforward_net import Dense
from edgesweep.engine.network.layers import Layer, NoNorm
from edgesweep.engine.network.transformer import Model

Rows = Tensor | None
Step = Callable[[Value, Inputs, Rows], Value]


@dataclass(frozen=True)
class Piece:
    """What lies between two neighbouring cuts.

    Attributes:
        end: the cut after it, of that width.
        run: from the cut before it.
        mixes: whether a position reads others.
        form: its closed form, where it has one.
    """

    end: str
    width: int
    run: Step
    mixes: bool = False
    form: Form | None = None


@dataclass(frozen=True, eq=False)
class Chain:
    """A network as pieces.

    Attributes:
        hf: the module whose biases are folded.
        prepare: see `engine.network.base.Network`.
        first, width: its first cut.
    """

    hf: nn.Module
    prepare: Callable[[Tensor, Bool[Tensor, "inputs positions"]], Inputs]
    first: str
    width: int
    pieces: tuple[Piece, ...]

    @cached_property
    def widths(self) -> dict[str, int]:
        """Of all cuts, in forward order."""
        return {self.first: self.width} | {piece.end: piece.width for piece in self.pieces}

    def section(self, start: str, end: str) -> Section:
        """The pieces from one cut to a later one."""
        names = list(self.widths)
        return Section(self, start, end, self.pieces[names.index(start) : names.index(end)])

    def is_read(self, name: str) -> bool:
        """Whether a cut is read at the position of the answer alone."""
        later = self.pieces[list(self.widths).index(name) :]
        return not any(piece.mixes for piece in later)

    def start(self, inputs: Inputs) -> Value:
        """The first cut's value."""
        return narrowed(inputs.embed, inputs) if self.is_read(self.first) else inputs.embed

    def real(self, name: str, inputs: Inputs) -> Bool[Tensor, "inputs positions"]:
        """Which positions of a cut's value are of the input."""
        return inputs.real[:, :1] | True if self.is_read(name) else inputs.real


@dataclass(frozen=True, eq=False)
class Section:
    """The function from one cut to another."""

    chain: Chain
    start: str
    end: str
    pieces: tuple[Piece, ...]

    @property
    def mixes(self) -> bool:
        return any(piece.mixes for piece in self.pieces)

    def __call__(
        self, f: Value, inputs: Inputs, rows: Rows = None, c: Constant | None = None
    ) -> Value:
        """`[rows, positions, width]` of its end.

        Args:
            rows: the input that each row belongs to; None: row i is input i.
            c: the folded constant at each row and position; None: 1.
        """
        for piece in self.pieces:
            with folded(self.chain.hf, c):
                f = piece.run(f, inputs, rows)
            if piece.mixes and self.chain.is_read(piece.end):
                f = narrowed(f, inputs, rows)
                c = None if c is None else narrowed(c, inputs, rows)
        return f


def narrowed(value: Value, inputs: Inputs, rows: Rows = None) -> Value:
    """A value at the position of each answer, `[rows, 1, width]`."""
    return inputs.at_read(value, rows)[:, None]


# --- by the kind of network -------------------------------------------------------------------


@singledispatch
def chain_of(network: Any) -> Chain:
    """A network, loaded in float64 or as it is to be run."""
    raise SiteError(f"{type(network).__name__} is no chain of pieces")


@chain_of.register
def _(network: FeedForward) -> Chain:
    names, hf = network.sites.names, network.hf
    pieces = [
        Piece(name, network.sites.width(name), _ignoring(block), form=_dense(block))
        for name, block in zip(names[1:], hf.blocks, strict=True)
    ]
    n_outputs = hf.output.out_features
    last = Piece(LOGITS, n_outputs, _ignoring(hf.output), form=_affine(hf.output))
    return Chain(hf, network.prepare, names[0], network.sites.width(names[0]), (*pieces, last))


@chain_of.register
def _(network: Model) -> Chain:
    width, parallel = network.d_model, network.spec.parallel
    pieces: list[Piece] = []
    for index, layer in enumerate(network.layers):
        if parallel:
            pieces.append(Piece(f"resid{index}", width, _side_by_side(layer, index), mixes=True))
            continue
        pieces.append(Piece(f"mid{index}", width, _attention(layer, index), mixes=True))
        pieces.append(Piece(f"resid{index}", width, _mlp(layer), form=_mlp_form(layer)))
    unembed: Any = network.hf.get_output_embeddings()  # type: ignore[operator]
    form = _affine(unembed) if network.unembeds_by_a_map else None
    last = Piece(LOGITS, unembed.weight.shape[0], _ignoring(network.unembed), form=form)
    return Chain(network.hf, network.prepare, "embed", width, (*pieces, last))


def _ignoring(function: Callable[[Value], Value]) -> Step:
    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        return function(f)

    return run


def _attention(layer: Layer, index: int) -> Step:
    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        z = layer.attend(*layer.project(f), inputs.context(index, rows))
        return f + layer.write(z)[0]

    return run


def _mlp(layer: Layer) -> Step:
    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        return f + layer.mlp(f)

    return run


def _side_by_side(layer: Layer, index: int) -> Step:
    attention = _attention(layer, index)

    def run(f: Value, inputs: Inputs, rows: Rows) -> Value:
        return attention(f, inputs, rows) + layer.mlp(f)

    return run


# --- closed forms ------------------------------------------------------------------------------

#: names of the modules of an MLP: what reads (a gate before it, if there is one), what writes
_LAYOUTS: Sequence[tuple[tuple[str, ...], str]] = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
)


def _dense(block: nn.Module) -> Form | None:
    if not isinstance(block, Dense):
        return None
    return Units(*_map(block.map), slope_of(block.act))


def _affine(module: nn.Module) -> Affine:
    return Affine(*_map(module))


def _mlp_form(layer: Layer) -> Form | None:
    """Where no norm stands before it or after it, and its modules are known."""
    mlp = layer.plain_mlp
    if mlp is None or not isinstance(layer.norm_mlp, NoNorm):
        return None
    return form_of_mlp(mlp)


def form_of_mlp(mlp: nn.Module) -> Units | None:
    """Of an MLP that adds to its stream; None for a layout that is not known."""
    for reads, writes in _LAYOUTS:
        if all(hasattr(mlp, name) for name in (*reads, writes)):
            break
    else:
        return None
    act: Any = getattr(mlp, "act_fn", None) or getattr(mlp, "act", None)
    weights, biases = zip(*(_map(getattr(mlp, name)) for name in reads), strict=True)
    write, write_bias = _map(getattr(mlp, writes))
    gated = len(reads) == 2
    read_bias = None if biases[0] is None else torch.cat(biases)
    slope = gated_slopes(act) if gated else slope_of(act)
    write = torch.cat([write, write]) if gated else write
    return Units(torch.cat(weights, 1), read_bias, slope, write, write_bias, residual=True)


def _map(module: Any) -> tuple[Tensor, Tensor | None]:
    """A linear map's matrix, `[d_in, d_out]`, and bias."""
    weight: Tensor = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return weight.detach(), None if module.bias is None else module.bias.detach()
