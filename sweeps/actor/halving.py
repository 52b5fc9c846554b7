"""Where memory does not suffice: all of a shard again, with half the micro-batch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def with_halving(micro_batch: int, compute: Callable[[int], T]) -> tuple[T, int]:
    """`compute(micro_batch)`; where memory does not suffice, all of it again with half.

    Returns:
        The result, and the micro-batch it was had with.

    Raises:
        MemoryError: not even one input at a time fits.
    """
    while True:
        result = _unless_out_of_memory(compute, micro_batch)
        if result is not None:
            return result[0], micro_batch
        # Only here, after the except block, does nothing pin the tensors any more.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if micro_batch == 1:
            raise MemoryError("out of memory with one input at a time; give the actor more memory")
        micro_batch //= 2


def _unless_out_of_memory(compute: Callable[[int], T], micro_batch: int) -> tuple[T] | None:
    try:
        return (compute(micro_batch),)
    except (MemoryError, torch.OutOfMemoryError):
        return None
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            return None
        raise
