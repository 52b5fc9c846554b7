"""`FeedForward`: a network without attention, read at its layers.

Sites are `input`, then what each convolution (`conv0`, …) and each dense layer (`hidden0`, …) puts
out, after its activation and pooling. They are flat vectors at one position, and each is a cut: the
only parent of a site is the chosen one before it. The last layer is what `unembed` is. Sections are
pulled back by batched vector-Jacobian products (`engine.network.base.SectionSlopes`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.network.base import LOGITS, Inputs, SectionSlopes, SiteError, Value, Values
from edgesweep.engine.network.feedforward_net import FeedForwardNet


@dataclass(frozen=True)
class Layer:
    """A site: the layer of that number; `input` is number 0."""

    name: str
    number: int


class FeedForwardSites:
    """The sites of a feed-forward network.

    Args:
        widths: of every site, in forward order.
    """

    first = "input"

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._widths = dict(widths)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in forward order."""
        return tuple(self._widths)

    def named(self, pattern: str) -> list[str]:
        """See `engine.network.base.Sites`."""
        if pattern in ("conv*", "hidden*"):
            return [name for name in self._widths if re.fullmatch(pattern[:-1] + r"\d+", name)]
        return [self.place(pattern).name]

    def place(self, name: str) -> Layer:
        """The site of that name.

        Raises:
            SiteError: there is none.
        """
        if name not in self._widths:
            raise SiteError(f"{name!r} is no site; sites are {', '.join(self._widths)}")
        return Layer(name, self.names.index(name))

    def chosen(self, names: Iterable[str]) -> tuple[Layer, ...]:
        """See `engine.network.base.Sites`."""
        layers = {self.place(name) for name in names} | {self.place(self.first)}
        return tuple(sorted(layers, key=lambda layer: layer.number))

    def parents(self, chosen: Sequence[Layer], target: str) -> tuple[Layer, ...]:
        """See `engine.network.base.Sites`."""
        end = len(self._widths) if target == LOGITS else self.place(target).number
        return ([layer for layer in chosen if layer.number < end][-1],)

    @property
    def cuts(self) -> tuple[str, ...]:
        """See `engine.network.base.Sites`."""
        return ()

    def width(self, site: str) -> int:
        """See `engine.network.base.Sites`."""
        return self._widths[site]

    def layer(self, site: str) -> int:
        """See `engine.network.base.Sites`."""
        return self.place(site).number - 1


@dataclass(frozen=True)
class LayerRun:
    """What one forward computed.

    Attributes:
        values: of every site, `[inputs, 1, width]`.
        logits: the outputs.
    """

    values: Mapping[str, Value]
    logits: Float[Tensor, "inputs outputs"]


class FeedForward:
    """A feed-forward network as a `Network`; its weights are frozen here.

    Args:
        hf: the network.
        name: how the user named it.
    """

    tokenizer = None

    def __init__(self, hf: FeedForwardNet, name: str) -> None:
        self.hf, self.name = hf.eval().requires_grad_(False), name
        self.shape: tuple[int, ...] | None = tuple(hf.config.input_shape)
        self.sites = FeedForwardSites(hf.widths)
        self._blocks = self.hf.blocks

    @property
    def device(self) -> torch.device:
        return self.hf.output.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.output.weight.dtype

    def prepare(
        self, given: Float[Tensor, "inputs ..."], real: Bool[Tensor, "inputs positions"]
    ) -> Inputs:
        """A batch of arrays as flat vectors at one position."""
        x = given.to(self.device, self.dtype).flatten(1)[:, None]
        read = torch.zeros(len(x), dtype=torch.long, device=self.device)
        return Inputs(x, (), read, real.to(self.device))

    def run(self, inputs: Inputs) -> LayerRun:
        values = [inputs.embed]
        for block in self._blocks:
            values.append(block(values[-1]))
        logits = self.logits(values[-1], inputs)
        return LayerRun(dict(zip(self.sites.names, values, strict=True)), logits)

    def site_values(self, run: LayerRun) -> dict[str, Value]:
        return dict(run.values)

    def section(
        self,
        chosen: Sequence[Layer],
        target: str,
        values: Values,
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None = None,
    ) -> Value:
        (parent,) = self.sites.parents(chosen, target)
        last = len(self._blocks) if target == LOGITS else self.sites.place(target).number
        return self._between(values[parent.name], parent.number, last)

    def _between(self, value: Value, first: int, last: int) -> Value:
        """From the value after `first` layers to that after `last`."""
        for block in self._blocks[first:last]:
            value = block(value)
        return value

    def joined(self, chosen: Sequence[Layer], target: str) -> None:
        return None

    def written(self, site: Layer, value: Value) -> Value:
        return value

    def logits(
        self, final: Value, inputs: Inputs, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows outputs"]:
        return self.unembed(final[:, 0])

    def unembed(self, final: Value) -> Float[Tensor, "*rows outputs"]:
        out: Tensor = self.hf.output(final)
        return out

    def after(self, inputs: Inputs, run: Any) -> "FeedForward":
        return self

    def final(self, site: Layer, value: Value, rows: Int[Tensor, " rows"]) -> Value:
        """The last layer but one, for values of a site; see `engine.network.base.After`."""
        return self._between(value, site.number, len(self._blocks))

    def pull_back(
        self,
        chosen: Sequence[Layer],
        target: str,
        values: Values,
        inputs: Inputs,
        number: int,
        first: int = 0,
    ) -> SectionSlopes:
        (parent,) = self.sites.parents(chosen, target)

        def section(given: Values) -> Value:
            return self.section(chosen, target, given, inputs)

        return SectionSlopes(section, {parent.name: values[parent.name]})

    def row_bytes(self, n_positions: int) -> int:
        """Of all layers: their values, and what a backward keeps."""
        numbers = sum(self.sites.width(name) for name in self.sites.names)
        return 4 * numbers * self.hf.output.weight.element_size()
