"""Means and second moments of vectors, in parts that fold exactly.

A part is (n, mean, M2 = Σ (f − mean)(f − mean)ᵀ). Two parts fold by the pairwise update (Chan,
Golub and LeVeque 1983), which loses nothing to cancellation, and many in a fixed tree over their
order, so that the bits depend on what the parts are and not on when they came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: columns of a block of the product: of those above the diagonal none is computed twice
BLOCK = 256


@dataclass(frozen=True)
class Moments:
    """Of n vectors of width d, float64."""

    n: int
    mean: Float[Tensor, " d"]
    m2: Float[Tensor, "d d"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "n d"]) -> Moments:
        """Of at least one vector."""
        mean = vectors.mean(0, dtype=torch.float64)
        return cls(len(vectors), mean, squared(vectors - mean))

    def merged(self, other: Moments) -> Moments:
        """Of both parts' vectors."""
        n, step = self.n + other.n, other.mean - self.mean
        between = step * math.sqrt(self.n * other.n / n)
        m2 = torch.outer(between, between).add_(self.m2).add_(other.m2)
        return Moments(n, self.mean + step * (other.n / n), m2)

    def at(self, places: Int[Tensor, " some"]) -> Moments:
        """Of some coordinates."""
        return Moments(self.n, self.mean[places], self.m2[places][:, places])

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """G = (1/n) Σ (f − μ)(f − μ)ᵀ."""
        return self.m2 / self.n


def squared(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """xᵀx, with half the work: it is symmetric."""
    out = x.new_empty(x.shape[1], x.shape[1])
    for start in range(0, x.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        row = x[:, block].T @ x[:, start:]
        out[block, start:] = row
        out[start:, block] = row.T
    return out


@dataclass(frozen=True)
class Sums:
    """Plain sums over n vectors, by name; they fold by adding."""

    n: int
    sums: dict[str, Tensor]

    def merged(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, {k: v + other.sums[k] for k, v in self.sums.items()})

    def mean(self, name: str) -> Tensor:
        return self.sums[name] / self.n


class Part(Protocol):
    """What folds with its like."""

    def merged(self: P, other: P) -> P: ...


P = TypeVar("P", bound=Part)


class Folding(Generic[P]):
    """Parts that are folded as they come, in the tree that pairs neighbours: of n parts at most
    log₂ n are held."""

    def __init__(self) -> None:
        # (how many parts are in it, what it is), each less than half of the one before
        self._waiting: list[tuple[int, P]] = []

    def add(self, part: P) -> None:
        self._waiting.append((1, part))
        while len(self._waiting) > 1 and self._waiting[-2][0] == self._waiting[-1][0]:
            (size, left), (_, right) = self._waiting[-2:]
            self._waiting[-2:] = [(2 * size, left.merged(right))]

    def whole(self) -> P:
        """All parts in one. Raises ValueError if there are none."""
        if not self._waiting:
            raise ValueError("there is nothing to fold")
        _, found = self._waiting[-1]
        for _, before in reversed(self._waiting[:-1]):
            found = before.merged(found)
        return found


def fold(parts: Iterable[P]) -> P:
    """All parts in one. Raises ValueError if there are none."""
    folding: Folding[P] = Folding()
    for part in parts:
        folding.add(part)
    return folding.whole()
