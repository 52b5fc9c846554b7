"""An MLP, each of whose later directions is computed from other earlier ones.

    F̂_i = v(Σ_j m_ij f̂_j C⁺_j W + μ W + b) · W_out C′_i + the residual

What a later direction sees is summed over the directions that its mask keeps, or where these are
more than half taken from the sum over all: the cost is that of at most half of the interactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.forms import Units
from edgesweep.engine.bases.rotation import Basis
from edgesweep.engine.network.base import Value


class MaskedUnits:
    """One MLP section on one batch.

    Args:
        bases: of its start and its end.
        f: its start's value.
    """

    def __init__(self, form: Units, bases: tuple[Basis, Basis], f: Value) -> None:
        start, end = bases
        self._form, self._shape = form, f.shape[:-1]
        self._f_hat = start.encoded(f).flatten(0, -2)
        self._read = start.decode[:, form.at] @ form.read
        self._still = form.seen(start.mean[None])
        self._whole = self._still + self._f_hat @ self._read
        self._write = end.encode if form.write is None else form.write @ end.encode
        added = -end.mean if form.write_bias is None else form.write_bias - end.mean
        self._passes: Tensor | None = None
        if form.adds is not None:
            added = added + start.mean[form.adds]
            self._passes = start.decode[:, form.adds] @ end.encode
        self._added = added @ end.encode

    def reached(
        self, rows: Mapping[bytes, list[int]]
    ) -> Iterator[tuple[bytes, Float[Tensor, "*rows some"]]]:
        """F̂_i of some directions under the row of the mask that they have."""
        for row, columns in rows.items():
            kept = torch.from_numpy(np.frombuffer(row, bool).copy()).to(self._f_hat.device)
            values = self._form.value(self._seen(kept))
            found = values @ self._write[: values.shape[1], columns] + self._added[columns]
            if self._passes is not None:
                found = found + (self._f_hat * kept) @ self._passes[:, columns]
            yield row, found.unflatten(0, self._shape)

    def _seen(self, kept: Tensor) -> Tensor:
        most = 2 * int(kept.sum()) > len(kept)
        some = (~kept if most else kept).nonzero()[:, 0]
        part = self._f_hat[:, some] @ self._read[some]
        return self._whole - part if most else self._still + part
