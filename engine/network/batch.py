"""Examples as tensors: prompts padded, arrays stacked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from edgesweep.tasks import ArrayExample, Example


@dataclass(frozen=True)
class PromptBatch:
    """Clean and patch sides of one batch, aligned position by position.

    Attributes:
        prompts: where it came from.
        clean, patch: token ids, `[inputs, positions]`; of arrays, `[inputs, *shape]` in float64.
        real: False at padding, the same for both since their lengths agree.
        good, bad: answer ids, `[inputs, answers]`, short rows filled with -1.
    """

    prompts: tuple[Example, ...]
    clean: Shaped[Tensor, "inputs ..."]
    patch: Shaped[Tensor, "inputs ..."]
    real: Bool[Tensor, "inputs positions"]
    good: Int[Tensor, "inputs n_good"]
    bad: Int[Tensor, "inputs n_bad"]

    @classmethod
    def make(
        cls, prompts: Sequence[Example], pad_id: int = 0, side: str = "right"
    ) -> "PromptBatch":
        """Pad to the longest prompt.

        Padding on the right is the default: under a causal mask nothing real sees it.

        Raises:
            ValueError: no prompts, or `side` is neither "left" nor "right".
        """
        if not prompts:
            raise ValueError("a batch needs at least one prompt")
        if side not in ("left", "right"):
            raise ValueError(f"padding side {side!r} is neither 'left' nor 'right'")
        clean = _side([p.clean for p in prompts], prompts[0], pad_id, side)
        patch = _side([p.patch for p in prompts], prompts[0], pad_id, side)
        real = _pad([[1] * len(p) for p in prompts], 0, side).bool()
        good = _pad([p.good for p in prompts], -1, "right")
        bad = _pad([p.bad for p in prompts], -1, "right")
        return cls(tuple(prompts), clean, patch, real, good, bad)

    def __len__(self) -> int:
        return len(self.prompts)

    def at(self, rows: Int[Tensor, " rows"]) -> "PromptBatch":
        """Some of its inputs, in this order; one may come repeatedly."""
        parts = (self.clean, self.patch, self.real, self.good, self.bad)
        prompts = tuple(self.prompts[row] for row in rows.tolist())
        return PromptBatch(prompts, *(part[rows] for part in parts))

    def side(self, rows: Sequence[Sequence[float]]) -> Shaped[Tensor, "inputs ..."]:
        """Other examples' sides as tensors, each as long as the one in its place."""
        if isinstance(self.prompts[0], ArrayExample):
            return _side(rows, self.prompts[0])
        given = self.clean.clone()
        for row, (real, tokens) in enumerate(zip(self.real, rows, strict=True)):
            given[row, real] = torch.tensor(tokens)
        return given


def _side(
    rows: Sequence[Sequence[float]], like: Example, pad_id: int = 0, side: str = "right"
) -> Tensor:
    if isinstance(like, ArrayExample):
        return torch.from_numpy(np.stack([like.array(row) for row in rows]))
    return _pad(rows, pad_id, side)


def _pad(rows: Sequence[Sequence[float]], fill: int, side: str) -> Tensor:
    width = max(map(len, rows))
    table = torch.full((len(rows), width), fill, dtype=torch.long)
    for i, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        table[i, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
    return table
