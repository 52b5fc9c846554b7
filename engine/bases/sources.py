"""Stochastic sources: random signs that stand for all output positions at once (LIB section C).

    Ê²_ij = (1/(R N)) Σ_x Σ_r (Σ_s φ_s A_{(i,s),j})²,         φ = ±1 for each x, r, i and s

and M′ alike, with one cotangent φ_s C′_i in place of one for each s. Both are unbiased, and exact
where positions do not mix, φ² being 1. (C.3 says so of MLPs, which holds for M′ alone unless each
position is squared by itself, as here.) Of mixed positions

    Var[Ê²_ij] = (2/(R N²)) Σ_x [(Σ_s A_s²)² − Σ_s A_s⁴]

which equation 26 has R |D| times too large. φ is drawn for each i, where the paper shares it: less
variance at the same cost. It hangs on the run's seed, on what is measured and on the input, and on
nothing of how inputs are batched. Pinned by tests/bases/test_sources.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.jacobians import Batch, one_by_one


@dataclass(frozen=True)
class Sources:
    """Signs of a batch's inputs.

    Attributes:
        n: R, how many draws; 0: none, every output position by itself.
        seed: the run's.
        name: of what is measured.
        first: the number of the batch's first input.
    """

    n: int = 0
    seed: int = 0
    name: str = ""
    first: int = 0

    def weights(self, batch: Batch, k: int) -> Iterator[Float[Tensor, "k rows positions_out"]]:
        """What later directions at output positions are summed with, for one cotangent each at a
        time: scaled, so that squares of draws add up to a mean."""
        if self.n == 0:
            yield from one_by_one(batch, k)
            return
        for r in range(self.n):
            phi = torch.stack([self._signs(int(row), r, batch, k) for row in batch.row], 1)
            yield phi.to(batch.f) * batch.real_out / self.n**0.5

    def _signs(self, row: int, r: int, batch: Batch, k: int) -> Float[Tensor, "k positions_out"]:
        """Positions come first, so that padding changes no sign before it."""
        told = f"{self.seed}/{self.name}/{self.first + row}/{r}".encode()
        draw = torch.Generator()
        draw.manual_seed(int.from_bytes(hashlib.sha256(told).digest()[:7], "big"))
        shape = (batch.real_out.shape[1], k)
        return 2.0 * torch.randint(0, 2, shape, generator=draw).T - 1.0
