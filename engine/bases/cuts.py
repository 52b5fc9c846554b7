"""The chain of a network: which cuts it has, and what lies between them.

Of an MLP or CNN the cuts are its sites and `logits`. Of a transformer they are `embed`, then after
each layer's attention and MLP the stream, `mid0`, `resid0`, …, then `logits`; where attention and
MLP run side by side there is no `mid`. With split norms (`engine.bases.split`) there are two more
at each norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from typing import Any

from torch import nn

from edgesweep.engine.bases.attention import Attention
from edgesweep.engine.bases.chain import Chain, Piece, Rows, Step
from edgesweep.engine.bases.closed.modules import affine_of, form_of_mlp, map_of
from edgesweep.engine.bases.forms import Form, Units, slope_of
from edgesweep.engine.bases.split import split_pieces
from edgesweep.engine.network.base import LOGITS, Inputs, SiteError, Value
from edgesweep.engine.network.feedforward import FeedForward
from edgesweep.engine.network.feedforward_net import Dense
from edgesweep.engine.network.layers import Layer, NoNorm
from edgesweep.engine.network.transformer import Model


def chain_of(network: Any, norms: str = "whole", positions: str = "read") -> Chain:
    """A network, loaded in float64 or as it is to be run.

    Args:
        norms: `split` for cuts before and after each norm's division, or `whole`.
        positions: `all`, or `read`: no more than the answer's where no later piece mixes them.

    Raises:
        SiteError: it is no chain of pieces, or has no norms to be split, or no positions.
    """
    if positions == "all" and network.shape is not None:
        raise SiteError("it has no positions; allowed: bases.positions read")
    return replace(_chain_of(network, norms == "split"), everywhere=positions == "all")


@singledispatch
def _chain_of(network: Any, split: bool) -> Chain:
    raise SiteError(f"{type(network).__name__} is no chain of pieces")


@_chain_of.register
def _(network: FeedForward, split: bool) -> Chain:
    if split:
        raise SiteError("it has no norms; allowed: bases.norms whole")
    names, hf = network.sites.names, network.hf
    pieces = [
        Piece(name, network.sites.width(name), _ignoring(block), form=_dense(block))
        for name, block in zip(names[1:], hf.blocks, strict=True)
    ]
    n_outputs = hf.output.out_features
    last = Piece(LOGITS, n_outputs, _ignoring(hf.output), form=affine_of(hf.output))
    return Chain(hf, network.prepare, names[0], network.sites.width(names[0]), (*pieces, last))


@_chain_of.register
def _(network: Model, split: bool) -> Chain:
    if split:
        hf, split_at_norms = split_pieces(network)
        return Chain(hf, network.prepare, "embed", network.d_model, split_at_norms, "ln1.0")
    pieces: list[Piece] = []
    for index, layer in enumerate(network.layers):
        pieces += _layer(layer, index, network)
    unembed: Any = network.hf.get_output_embeddings()  # type: ignore[operator]
    by_a_map = isinstance(network.final_norm, NoNorm) and not network.soft_caps
    form = affine_of(unembed) if by_a_map else None
    last = Piece(LOGITS, len(unembed.weight), _ignoring(network.unembed), form=form, alias="output")
    return Chain(network.hf, network.prepare, "embed", network.d_model, (*pieces, last), "ln1.0")


def _layer(layer: Layer, index: int, network: Model) -> list[Piece]:
    width, last = network.d_model, index + 1 == network.spec.n_layers
    before_logits = "unembed" if isinstance(network.final_norm, NoNorm) else "ln_final"
    alias = before_logits if last else f"ln1.{index + 1}"
    if network.spec.parallel:
        run = _side_by_side(layer, index)
        return [Piece(f"resid{index}", width, run, mixes=True, alias=alias)]
    run, exact = _attention(layer, index), None
    if isinstance(layer.norm_attention, NoNorm) and layer.adds_what_it_writes:
        exact = Attention(layer, index, width)
    return [
        Piece(f"mid{index}", width, run, mixes=True, attention=exact, alias=f"ln2.{index}"),
        Piece(f"resid{index}", width, _mlp(layer), form=_mlp_form(layer), alias=alias),
    ]


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


def _dense(block: nn.Module) -> Form | None:
    if not isinstance(block, Dense):
        return None
    return Units(*map_of(block.map), slope_of(block.act), block.act)


def _mlp_form(layer: Layer) -> Form | None:
    """Where no norm stands before it or after it, and its modules are known."""
    mlp = layer.plain_mlp
    if mlp is None or not isinstance(layer.norm_mlp, NoNorm):
        return None
    return form_of_mlp(mlp)
