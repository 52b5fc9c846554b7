"""Units of a site of a feed-forward network: their values, attributions, and runs without some.

The attribution of a unit is the integrated gradient of one output along the site's own path from
its patch value to its clean one (*Emerging Structures in Computational Graphs*, section 5.1):

    Attr(u) = Σ_{j∈u} (f_j − f′_j) Σ_k w_k ∂λ/∂f_j at f′ + t_k (f − f′)

λ is an output of the network, such as the logit of a class. Where what follows the site is linear
this is f_j W[y, j] for a zero patch, with any number of steps (tests/regions/test_site.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import Network
from edgesweep.engine.network.feedforward import FeedForward, Layer
from edgesweep.engine.regions.correlation import RegionError
from edgesweep.tasks import Example

Unit = Literal["neuron", "channel"]
#: examples that are run at once
MICRO_BATCH = 256


@dataclass(frozen=True)
class UnitSite:
    """A site taken as units.

    Attributes:
        unit_of: the unit of each of the site's numbers, `[width]`.
    """

    network: FeedForward
    name: str
    unit_of: np.ndarray

    @classmethod
    def of(cls, network: Network, name: str, unit: Unit = "neuron") -> UnitSite:
        """Neurons are the site's numbers; channels those of a convolution, all places in one.

        Raises:
            RegionError: a network that reads tokens; channels of what has none.
            SiteError: no site of the network.
        """
        if not isinstance(network, FeedForward):
            raise RegionError(f"model {network.name!r} is no MLP or CNN; regions are of these")
        layer = network.sites.place(name).number
        width = network.sites.width(name)
        numbers = np.arange(width)
        if unit == "neuron":
            return cls(network, name, numbers)
        shapes = list(network.hf.config.image_shapes())
        if layer >= len(shapes):
            raise RegionError(f"site {name!r} has no channels; use neurons, or a convolution")
        return cls(network, name, numbers // (width // shapes[layer][0]))

    @property
    def n_units(self) -> int:
        return int(self.unit_of.max()) + 1

    @cached_property
    def _place(self) -> Layer:
        return self.network.sites.place(self.name)

    def values(self, examples: Sequence[Example], side: str = "clean") -> Tensor:
        """The site's numbers for one side of examples, `[inputs, width]`."""
        parts = []
        for some in _chunks(examples):
            batch = PromptBatch.make(some)
            inputs = self.network.prepare(getattr(batch, side), batch.real)
            parts.append(self.network.run(inputs).values[self.name][:, 0])
        return torch.cat(parts)

    def outputs(self, values: Tensor) -> Tensor:
        """The network's outputs from the site's numbers, `[inputs, outputs]`."""
        rows = torch.arange(len(values))
        return self.network.unembed(self.network.final(self._place, values[:, None], rows))[:, 0]

    @torch.no_grad()
    def predicted(self, values: Tensor) -> np.ndarray:
        """The largest output of each input, `[inputs]`."""
        parts = (self.outputs(some).argmax(-1) for some in values.split(MICRO_BATCH))
        return torch.cat(list(parts)).cpu().numpy()

    def attributions(
        self, values: Tensor, patch: Tensor, of: np.ndarray, points: Sequence[tuple[float, float]]
    ) -> np.ndarray:
        """Of each unit to an output of each input, float64 `[inputs, units]`.

        Args:
            values, patch: the site's numbers, `[inputs, width]`.
            of: the output, `[inputs]`.
            points: of the quadrature, with their weights.
        """
        parts = zip(
            values.split(MICRO_BATCH),
            patch.split(MICRO_BATCH),
            torch.as_tensor(of, device=values.device).split(MICRO_BATCH),
            strict=True,
        )
        found = [(v - p) * self.slopes(v, p, y, points) for v, p, y in parts]
        return self.by_unit(np.concatenate([part.double().cpu().numpy() for part in found]))

    def slopes(
        self, values: Tensor, patch: Tensor, of: Tensor, points: Sequence[tuple[float, float]]
    ) -> Tensor:
        """Of an output of each input to the site's numbers, their mean along the path from the
        patch value, `[inputs, width]`."""
        total = torch.zeros_like(values)
        for t, weight in points:
            x = (patch + t * (values - patch)).detach().requires_grad_()
            with torch.enable_grad():
                chosen = self.outputs(x).gather(1, of[:, None]).sum()
            total += weight * torch.autograd.grad(chosen, x)[0]
        return total

    def by_unit(self, numbers: np.ndarray) -> np.ndarray:
        """Sums over the numbers of a unit, `[inputs, units]`."""
        if self.n_units == len(self.unit_of):
            return numbers
        total = np.zeros((self.n_units, len(numbers)))
        np.add.at(total, self.unit_of, numbers.T)
        return total.T

    def without(self, values: Tensor, patch: Tensor, out: np.ndarray) -> Tensor:
        """The site's numbers with some units at their patch value; out `[inputs or 1, units]`."""
        chosen = torch.as_tensor(out[:, self.unit_of], device=values.device)
        return torch.where(chosen, patch, values)


def _chunks(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), MICRO_BATCH):
        yield examples[start : start + MICRO_BATCH]


PATCHES = ("zero", "mean", "counterfactual")


def patch_values(site: UnitSite, kind: str, examples: Sequence[Example], mean: Tensor) -> Tensor:
    """What stands in for the site's numbers, `[inputs, width]`.

    Args:
        mean: over the patch sides of the build split, `[width]`.

    Raises:
        RegionError: a kind that is none of `PATCHES`.
    """
    if kind == "counterfactual":
        return site.values(examples, "patch")
    if kind not in PATCHES:
        raise RegionError(f"patch is {kind!r}; allowed: {', '.join(PATCHES)}")
    return (mean if kind == "mean" else torch.zeros_like(mean)).expand(len(examples), -1)
