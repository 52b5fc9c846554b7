"""Edges of one input as a list, of which the largest are kept while they are being found.

An edge is a source, a target, its weight in the units that are asked for, by which it is ranked,
and its raw weight in those of the target. With a cap, the edges of largest |weight| are kept, of
equal ones those that come first in the order of targets, then of sources; what is dropped is
summed, so that nothing vanishes unseen. The kept set does not depend on how the edges were
handed in.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Codes = Int[np.ndarray, " edges"]
Weights = Float[np.ndarray, " edges"]


@dataclass(frozen=True)
class InputEdges:
    """Edges of one input, sorted by target, then by source.

    Attributes:
        source, target: global node numbers (`engine.features.batch`).
        weight, raw: in the units that are asked for; in those of the target.
        source_position, target_position: where edges are kept by position; else None.
        dropped_abs, dropped_sum: Σ |weight| and Σ weight of the edges that were not kept.
    """

    source: Int[np.ndarray, " edges"]
    target: Int[np.ndarray, " edges"]
    weight: Float[np.ndarray, " edges"]
    raw: Float[np.ndarray, " edges"]
    source_position: Int[np.ndarray, " edges"] | None
    target_position: Int[np.ndarray, " edges"] | None
    dropped_abs: float
    dropped_sum: float


class EdgeList:
    """Edges as they come, and the largest of them.

    An end is one number, node × positions + position; an edge's code is target × ends + source.

    Args:
        n_nodes: of the whole graph.
        n_positions: that ends are told apart by; 1 where they are summed.
        keep: how many edges; None: all.
    """

    def __init__(self, n_nodes: int, n_positions: int, keep: int | None) -> None:
        self._n_positions, self._n_ends, self._keep = n_positions, n_nodes * n_positions, keep
        self._parts: list[tuple[Codes, Weights, Weights]] = []
        self._n, self._floor = 0, 0.0
        self._dropped = torch.zeros(2, dtype=torch.float64)

    def add(
        self,
        target: Int[Tensor, " targets"],
        source: Int[Tensor, " sources"],
        weight: Float[Tensor, "targets sources"],
        raw: Float[Tensor, "targets sources"],
    ) -> None:
        """All edges between some ends, of which those that are 0 are none."""
        weight, raw = weight.float(), raw.float()
        some = (weight != 0) | (raw != 0)
        if self._floor > 0:
            large = ~(weight.abs() < self._floor)  # what is no number is large
            self._drop(weight[some & ~large])
            some &= large
        row, column = some.nonzero(as_tuple=True)
        codes = target[row] * self._n_ends + source[column]
        self._parts.append(
            (codes.cpu().numpy(), weight[some].cpu().numpy(), raw[some].cpu().numpy())
        )
        self._n += len(row)
        if self._keep is not None and self._n > 2 * self._keep:
            self._prune(self._keep)

    def _drop(self, weight: Tensor) -> None:
        wide = weight.double()
        self._dropped += torch.stack([wide.abs().sum(), wide.sum()]).cpu()

    def _prune(self, keep: int) -> None:
        codes, weight, raw = self._joined()
        size = np.abs(weight)
        size[np.isnan(size)] = np.inf
        floor = np.partition(size, len(size) - keep)[len(size) - keep] if keep else np.inf
        kept = size > floor
        ties = np.flatnonzero(size == floor)
        kept[ties[np.argsort(codes[ties])[: keep - int(kept.sum())]]] = True
        self._drop(torch.as_tensor(weight[~kept]))
        self._parts, self._n = [(codes[kept], weight[kept], raw[kept])], keep
        self._floor = float(floor)

    def _joined(self) -> tuple[Codes, Weights, Weights]:
        none = np.zeros(0, dtype=np.float32)
        parts = [(np.zeros(0, dtype=np.int64), none, none), *self._parts]
        codes, weight, raw = (np.concatenate(part) for part in zip(*parts, strict=True))
        return codes, weight, raw

    def result(self) -> InputEdges:
        """What was kept."""
        if self._keep is not None and self._n > self._keep:
            self._prune(self._keep)
        codes, weight, raw = self._joined()
        order = np.argsort(codes)
        target, source = np.divmod(codes[order], self._n_ends)
        at_source = at_target = None
        if self._n_positions > 1:
            source, at_source = np.divmod(source, self._n_positions)
            target, at_target = np.divmod(target, self._n_positions)
        dropped_abs, dropped_sum = self._dropped.tolist()
        return InputEdges(
            source,
            target,
            weight[order],
            raw[order],
            at_source,
            at_target,
            dropped_abs,
            dropped_sum,
        )
