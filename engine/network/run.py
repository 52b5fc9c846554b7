"""What one forward of a transformer leaves."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.network.architectures import Heads
from edgesweep.engine.network.layers import Stream

Logits = Float[Tensor, "inputs vocab"]


@dataclass
class Run:
    """What one forward computed. Every list has one entry a layer.

    `z` (heads before W_O), `scales` (post-norm scale of the heads, or None), `attention` and `mlps`
    (what the blocks added to the stream) are always kept; `ports` and `streams` only on request:
    queries, keys, values; the stream before attention; the stream read by the MLP.
    """

    embed: Stream
    z: list[Heads] = field(default_factory=list)
    scales: list[Stream | None] = field(default_factory=list)
    attention: list[Stream] = field(default_factory=list)
    mlps: list[Stream] = field(default_factory=list)
    ports: list[tuple[Heads, Heads, Heads]] = field(default_factory=list)
    streams: list[tuple[Stream, Stream]] = field(default_factory=list)
    final: Stream | None = None
    logits: Logits | None = None
