"""What the engine asks of a network: sites, the sections between them, and their derivatives.

A *site* is a place whose value, `[inputs, positions, width]`, can be read and replaced; sites have
names, an order and widths of their own. The *parents* of a chosen site are the chosen sites that it
is computed from through no other one, and its *section* is the function from their values to its
own. `logits` is the last target: its section ends at the *final* value, and `Network.logits` makes
of that what the metric reads. Everything over features (`engine.features`) runs on this alone.

`pull_back` is a section's vector-Jacobian product at several points at once. The transformer has
its own in closed form (`engine.network.pullback`); `SectionSlopes` is the one for any network.
Conformance: tests/network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: of any site, of its own width, for any rows
Value = Float[Tensor, "... _"]
Values = Mapping[str, Value]

LOGITS = "logits"


class SiteError(ValueError):
    """A site that the network does not have; one line."""


class Site(Protocol):
    """A place of a network."""

    @property
    def name(self) -> str:
        """As people write it: `resid3`, `hidden0`."""


class Sites(Protocol):
    """The places of a network; known by its configuration, without weights.

    Attributes:
        first: name of the site that everything is computed from; always chosen.
    """

    first: str

    def named(self, pattern: str) -> list[str]:
        """The site of that name; of `resid*`, one for each layer. Raises SiteError."""

    def chosen(self, names: Iterable[str]) -> tuple[Any, ...]:
        """The named sites and the first, in forward order. Raises SiteError."""

    def parents(self, chosen: Sequence[Any], target: str) -> tuple[Any, ...]:
        """The chosen sites that a site (or `logits`) is computed from, in forward order."""

    @property
    def cuts(self) -> tuple[str, ...]:
        """Sites that all of the network runs through and that may be chosen beside any others."""

    def width(self, site: str) -> int:
        """Numbers at one position."""

    def layer(self, site: str) -> int:
        """The layer that its value comes from; -1 for the first."""


@dataclass(frozen=True)
class Inputs:
    """A batch, ready for the network.

    Attributes:
        embed: `[inputs, positions, width]`, the value of the first site.
        contexts: per layer, the keyword arguments its attention takes (mask, positions), where its
            weights are.
        read: position of each input whose logits the metric reads.
        real: `[inputs, positions]`, False at padding.
    """

    embed: Value
    contexts: Sequence[dict[str, Any]]
    read: Int[Tensor, " inputs"]
    real: Bool[Tensor, "inputs positions"]

    def context(self, layer: int, rows: Int[Tensor, " rows"] | None = None) -> dict[str, Any]:
        """The attention arguments of a layer, for the given inputs in the given order."""
        context = self.contexts[layer]
        if rows is None:
            return context
        return {name: _take(value, rows) for name, value in context.items()}

    def at_read(
        self, value: Float[Tensor, "*lead inputs positions d"], rows: Tensor | None = None
    ) -> Float[Tensor, "*lead inputs d"]:
        """A value at each input's read position; `rows`: the input that each row belongs to."""
        read = self.read if rows is None else self.read[rows]
        index = torch.arange(len(read), device=value.device)
        return value[..., index, read.to(value.device), :]


def moved(value: Any, device: torch.device) -> Any:
    """The same with all tensors in it on a device."""
    if isinstance(value, dict):
        return {name: moved(v, device) for name, v in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(v, device) for v in value)
    return value.to(device) if isinstance(value, Tensor) else value


def _take(value: Any, rows: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_take(v, rows) for v in value)
    if isinstance(value, Tensor) and value.shape[0] > 1:
        return value.index_select(0, rows.to(value.device))
    return value


@dataclass(frozen=True)
class Pulled:
    """The cotangent of a parent, summed over steps: `at` at each target's position, and `before`
    at every position; None: nowhere else."""

    at: Float[Tensor, "targets width"]
    before: Float[Tensor, "targets positions width"] | None = None


class Slopes(Protocol):
    """A section, linearised at several steps of one input.

    Attributes:
        x: the target's value (of the logits, the final one), `[steps, positions, width]`.
        causal: no position reads a later one.
    """

    x: Value
    causal: bool

    def pull(
        self,
        g: Float[Tensor, "targets steps width"],
        position: Int[Tensor, " targets"],
        rows: int,
    ) -> dict[str, Pulled]:
        """Cotangents of every parent from those of the target at single positions, ascending.

        Args:
            rows: (target, step) rows that may be held at all positions at once.
        """


class After(Protocol):
    """The network after a site, in one run otherwise."""

    def final(self, site: Any, value: Value, rows: Int[Tensor, " rows"]) -> Value:
        """The final value for values of a site; `rows`: the input that each row belongs to."""


class Run(Protocol):
    """What one forward computed; what else a network keeps of it is its own affair.

    Attributes:
        logits: as the metric reads them.
    """

    logits: Any


class Network(Protocol):
    """A network read at sites. See the module's docstring.

    Attributes:
        name: how the user named it.
        sites: its places.
        shape: of the arrays that it reads; None: it reads tokens.
    """

    name: str
    sites: Any
    shape: tuple[int, ...] | None

    @property
    def device(self) -> torch.device:
        """Where inputs, values of sites and logits are."""

    @property
    def dtype(self) -> torch.dtype:
        """What its values are in."""

    def prepare(self, given: Tensor, real: Bool[Tensor, "inputs positions"]) -> Inputs:
        """One side of a batch (`PromptBatch.clean`, `.patch`) as the network takes it."""

    def run(self, inputs: Inputs) -> Any:
        """The plain forward, a `Run`."""

    def site_values(self, run: Any) -> dict[str, Value]:
        """The value of every site in a run, `[inputs, positions, width]`."""

    def section(
        self,
        chosen: Sequence[Any],
        target: str,
        values: Values,
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None = None,
    ) -> Value:
        """The value of a target (of `logits`, the final one) from those of its parents.

        Args:
            values: `[rows, positions, width]`, of at least the target's parents.
            rows: the input that each row belongs to; None: row i is input i.
        """

    def joined(self, chosen: Sequence[Any], target: str) -> tuple[Any, ...] | None:
        """The parents of a target with one site, first, in place of some that it only sees the sum
        of what they write to it (`written`); None where there is no such site."""

    def written(self, site: Any, value: Value) -> Value:
        """What a difference of a site's value adds there."""

    def logits(
        self, final: Value, inputs: Inputs, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows outputs"]:
        """What the metric reads: outputs at the read positions, from the final value."""

    def unembed(self, final: Value) -> Float[Tensor, "*rows outputs"]:
        """Outputs at every position, from the final value."""

    def after(self, inputs: Inputs, run: Any) -> After:
        """The network after each of its sites, in this run otherwise."""

    def pull_back(
        self,
        chosen: Sequence[Any],
        target: str,
        values: Values,
        inputs: Inputs,
        number: int,
        first: int = 0,
    ) -> Slopes:
        """A target's section, linearised.

        Args:
            values: `[steps, positions, width]` of every parent.
            number: of the input.
            first: what lies at earlier positions is not wanted.
        """

    def row_bytes(self, n_positions: int) -> int:
        """What a row of a batch takes while it passes through."""


@torch.enable_grad()
def batched_vjp(fn: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
    """Jᵀ g for a batch of cotangents at the same points.

    Args:
        x: points, `[*points, d_in]`.
        g: `[batch, *points, d_out]`.
    """
    x = x.detach().requires_grad_()
    return torch.autograd.grad(fn(x), x, g, is_grads_batched=True)[0]


class SectionSlopes:
    """`Slopes` of any section, by one backward over it for many cotangents.

    Args:
        section: the target's value from its parents', `[steps, positions, width]`.
        values: of every parent.
    """

    causal = False

    def __init__(self, section: Callable[[Values], Value], values: Values) -> None:
        self._leaves = {name: v.detach().requires_grad_() for name, v in values.items()}
        with torch.enable_grad():
            self._out = section(self._leaves)
        self.x = self._out.detach()

    def pull(
        self,
        g: Float[Tensor, "targets steps width"],
        position: Int[Tensor, " targets"],
        rows: int,
    ) -> dict[str, Pulled]:
        size = max(1, rows // len(self.x))
        parts = [
            self._pull(*some) for some in zip(g.split(size), position.split(size), strict=True)
        ]
        names = list(self._leaves)
        return {
            name: Pulled(found.new_zeros(len(g), found.shape[-1]), found)
            for name, found in zip(names, map(torch.cat, zip(*parts, strict=True)), strict=True)
        }

    def _pull(self, g: Tensor, position: Tensor) -> list[Tensor]:
        """Cotangents of the parents at all positions, `[targets, positions, width]`."""
        dense = g.new_zeros(len(g), *self.x.shape)
        dense[torch.arange(len(g), device=g.device), :, position] = g
        found = torch.autograd.grad(
            self._out,
            list(self._leaves.values()),
            dense,
            is_grads_batched=True,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return [gradient.sum(1) for gradient in found]
