"""Where cotangents are while they are pulled through what acts on each position alone."""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.network.base import batched_vjp

Cotangents = Float[Tensor, "targets steps d_model"]


class Places(Protocol):
    """Where cotangents are, and how they are pulled through what acts on each position alone."""

    def vjp(self, fn: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
        """Jᵀ g of `fn` at `x` (`[steps, positions, …]`)."""


class AtPositions:
    """One position a target; cotangents that are 0 are passed over.

    Rows, (target, step) pairs, of one step and position share the point that `fn` is linearised at.
    They are laid out in columns of equal width, of which a point has as many as it needs: narrow
    ones leave few slots empty, wide ones linearise seldom.

    Args:
        position: of each target.
        g: cotangents at them, `[targets, steps, d_model]`.
    """

    def __init__(self, position: Int[Tensor, " targets"], g: Cotangents, n_positions: int) -> None:
        step, target = g.any(-1).T.nonzero(as_tuple=True)
        point = step * n_positions + position[target]
        self._row, order = (target, step), torch.argsort(point, stable=True)
        counts = torch.bincount(point, minlength=g.shape[1] * n_positions)
        width = _best_width(counts)
        columns = -(-counts // width)
        rank = torch.empty_like(point)
        first = (counts.cumsum(0) - counts)[point[order]]
        rank[order] = torch.arange(len(point), device=point.device) - first
        self._slot = rank % width, (columns.cumsum(0) - columns)[point] + rank // width
        points = torch.repeat_interleave(columns)
        self._point, self._width = (points // n_positions, points % n_positions), width

    def vjp(self, fn: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
        table = g.new_zeros(self._width, len(self._point[0]), *g.shape[2:])
        table[self._slot] = g[self._row]
        pulled = batched_vjp(fn, x[self._point], table)
        out = g.new_zeros(*g.shape[:2], *pulled.shape[2:])
        out[self._row] = pulled[self._slot]
        return out


def _best_width(counts: Int[Tensor, " points"]) -> int:
    """The width that costs least: a slot is a backward, a column a forward, which cost the same."""
    widths = torch.arange(1, 1 + max(1, min(64, int(counts.max()))), device=counts.device)
    columns = (-(-counts[:, None] // widths)).sum(0)
    return int(widths[(columns * (widths + 1)).argmin()])


class AtSpan:
    """A span of positions at some steps, for every target."""

    def __init__(self, steps: slice, span: slice) -> None:
        self._at = steps, span

    def vjp(self, fn: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
        return batched_vjp(fn, x[self._at].contiguous(), g)
