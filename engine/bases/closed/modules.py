"""Closed forms of modules: linear maps and MLPs, with a norm's affine map before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgesweep.engine.bases.forms import ALL, Affine, Units, gated, gated_slopes, slope_of
from edgesweep.engine.network.layers import Norm

#: names of the modules of an MLP: what reads (a gate before it, if there is one), what writes
_LAYOUTS: Sequence[tuple[tuple[str, ...], str]] = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
)


def affine_of(module: nn.Module, norm: Norm | None = None) -> Affine:
    """Of a linear map; `norm`: whose affine map it reads through."""
    return Affine(*_through(norm, *map_of(module)))


def form_of_mlp(
    mlp: nn.Module, norm: Norm | None = None, at: slice = ALL, adds: slice = ALL
) -> Units | None:
    """Of an MLP that adds to its stream; None for a layout that is not known.

    Args:
        norm: whose affine map it reads through.
        at, adds: which parts of the cut it reads and adds to.
    """
    for reads, writes in _LAYOUTS:
        if all(hasattr(mlp, name) for name in (*reads, writes)):
            break
    else:
        return None
    act: Any = getattr(mlp, "act_fn", None) or getattr(mlp, "act", None)
    weights, biases = zip(*(map_of(getattr(mlp, name)) for name in reads), strict=True)
    write, write_bias = map_of(getattr(mlp, writes))
    has_gate = len(reads) == 2
    bias = None if biases[0] is None else torch.cat(biases)
    read, read_bias = _through(norm, torch.cat(weights, 1), bias)
    if has_gate:
        slope, value, write = gated_slopes(act), gated(act), torch.cat([write, write])
    else:
        slope, value = slope_of(act), act
    return Units(read, read_bias, slope, value, write, write_bias, at, adds)


def map_of(module: Any) -> tuple[Tensor, Tensor | None]:
    """A linear map's matrix, `[d_in, d_out]`, and bias."""
    weight: Tensor = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return weight.detach(), None if module.bias is None else module.bias.detach()


def _through(
    norm: Norm | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """A map of w ⊙ x + b as a map of x."""
    if norm is None:
        return weight, bias
    if norm.bias is not None:
        added = norm.bias.detach() @ weight
        bias = added if bias is None else bias + added
    return norm.weight.detach()[:, None] * weight, bias
