"""Bytes that a piece of work moves, and what this machine can move: is it bound by its memory?

Every operation of torch counts what it reads and what it writes, views apart, as if nothing stayed
in a cache. Work whose bytes a second are near those of a plain copy waits for memory; work that is
far below them computes.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.timing import median_s

#: of the tensor that a plain copy reads; larger than a cache
COPY_BYTES = 2**28


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "empty" in func.__name__:
            return out
        read = list(_tensors([*args, *(kwargs or {}).values()]))
        pages = {t.untyped_storage().data_ptr() for t in read}
        for tensor in _tensors([out]):
            is_view = tensor.untyped_storage().data_ptr() in pages
            if is_view and not func._schema.is_mutable:
                return out  # nothing was moved
            self.n_bytes += _bytes(tensor)
        self.n_bytes += sum(map(_bytes, read))
        return out


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    """Of its numbers that are apart in memory."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, stride in sizes if stride) * tensor.element_size()


def moved_bytes(work: Callable[[], object]) -> int:
    """What one call of `work` moves, backwards not included."""
    with torch.no_grad(), _Counting() as counting:
        work()
    return counting.n_bytes


def copy_rate(device: torch.device) -> float:
    """Bytes a second that a plain copy reads and writes."""
    given = torch.ones(COPY_BYTES // 4, device=device)
    out = torch.empty_like(given)
    return 2 * COPY_BYTES / median_s(lambda: out.copy_(given), 5)
