"""Partial sums where the scores are: on a GPU by torch, else by numpy; the same bits.

A CPU core takes about a second for an input of the largest models, and what it folds would have to
leave the GPU first. Each step is one rounded operation, in the order of `storage.fold.partial`:
nothing is fused.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgesweep.storage import fold


def partial_of(scores: Tensor) -> np.ndarray:
    """scores `[rows, E]` -> float64 `[7, E]`, as `storage.fold.partial` (`fold.STATS`)."""
    if scores.device.type == "cpu":
        return fold.partial(scores.numpy())
    return folded_by_torch(scores).cpu().numpy()


def folded_by_torch(scores: Tensor) -> Tensor:
    """The same on the device where the scores are, row by row."""
    sums = torch.zeros(
        (len(fold.STATS), scores.shape[1]), dtype=torch.float64, device=scores.device
    )
    n, n_bad, total, squares, magnitudes, largest, largest_abs = sums
    largest.fill_(torch.nan)
    largest_abs.fill_(torch.nan)
    for row in scores:
        wide = row.double()
        good = wide.isfinite()
        value, missing = wide.where(good, 0.0), wide.where(good, torch.nan)
        n += good
        n_bad += ~good
        total += value
        squares += value * value
        magnitudes += value.abs()
        torch.fmax(largest, missing, out=largest)
        torch.fmax(largest_abs, missing.abs(), out=largest_abs)
        largest += 0.0  # no -0.0: which zero is larger hangs on the order
        largest_abs += 0.0
    return sums
