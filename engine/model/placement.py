"""A model over several devices of one machine: which of its parts lies where.

The parts of a model in forward order (what embeds; the layers; what unembeds) are cut into as many
spans as there are devices, each contiguous, so that the largest is as small as can be. A matrix is
never cut: what a run passes over a border is the residual stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """What stays together.

    Attributes:
        title: for people.
        modules: names inside the Hugging Face model; "" is all that no other part names.
        n_params: its numbers.
    """

    title: str
    modules: tuple[str, ...]
    n_params: int


@dataclass(frozen=True)
class PlacedSpan:
    """Parts on one device."""

    device: str
    parts: tuple[Part, ...]

    @property
    def n_params(self) -> int:
        return sum(part.n_params for part in self.parts)

    def __str__(self) -> str:
        first, last = self.parts[0].title, self.parts[-1].title
        return first if first == last else f"{first} to {last}"


def spans(parts: Sequence[Part], devices: Sequence[str]) -> tuple[PlacedSpan, ...]:
    """Parts in contiguous spans over devices, the largest as small as possible; a device more than
    that takes nothing has no span. Of equally good ways the first devices take least."""
    sizes = [part.n_params for part in parts]

    @cache
    def best(n_parts: int, n_spans: int) -> tuple[int, int]:
        """The largest of the spans of the first parts, and where the last of them begins."""
        if n_spans == 1 or n_parts == 0:
            return sum(sizes[:n_parts]), 0
        cuts = range(n_parts + 1)
        return min((max(best(cut, n_spans - 1)[0], sum(sizes[cut:n_parts])), cut) for cut in cuts)

    found: list[PlacedSpan] = []
    end = len(parts)
    for n_spans in range(len(devices), 0, -1):
        first = best(end, n_spans)[1]
        if first < end:
            found.insert(0, PlacedSpan(devices[n_spans - 1], tuple(parts[first:end])))
        end = first
    return tuple(found)


def place(hf: nn.Module, placed: Sequence[PlacedSpan]) -> None:
    """Move a model's parts to their devices, one weight after the other: where they are mapped from
    a file, the host never holds them all. Weights that are one stay one."""
    device_of = {
        name: span.device for span in placed for part in span.parts for name in part.modules
    }
    moved: dict[Tensor, Tensor] = {}
    for path, module in hf.named_modules():
        inside = [name for name in device_of if not name or f"{path}.".startswith(f"{name}.")]
        device = device_of[max(inside, key=len)]
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight not in moved:
                moved[weight] = nn.Parameter(weight.to(device), weight.requires_grad)
            setattr(module, name, moved[weight])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
