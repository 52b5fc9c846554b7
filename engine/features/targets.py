"""What edges end at: active features, error nodes and the logits, each a cotangent at one position.

Values of a target as a function of x, the value of its site:

    feature (j, p)   f_j(p); its gradient is slope_j(x(p)) e_j (`engine.dictionaries.base`)
    error (p)        ⟨ḡ(p), ε(p)⟩ with ḡ of the site's own path (`engine.features.nodes`); its
                     gradient is ḡ − Σ_j slope_j(x(p)) ⟨d_j, ḡ⟩ e_j
    logits           the metric

The first is in activation units, the others in those of the metric, and an edge's weight is one of

    value         the contribution to the target's value, in its own units (Dhimoïla 2024, section
                  5.1: the activation value of r', as for single features in 5.2)
    attribution   the same in units of the metric: a feature's contributions are multiplied by what
                  its change is worth, Attr(f_j(p)) / (f_j,clean − f_j,patch)(p) = ⟨d_j, ḡ(p)⟩, and
                  by 0 where it has not changed
    metric        the contribution to the metric of the run that is clean but for this target, which
                  sees the interpolated parents (5.1, footnote 5): the gradient is multiplied by the
                  metric's there, one downstream pass a target and step
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.nodes import Downstream
from edgesweep.engine.features.values import split
from edgesweep.engine.network.base import Site, Value

Index = Int[Tensor, " some"]
Numbers = Float[Tensor, " some"]


class Targets(Protocol):
    """Targets of one site, for one input.

    Attributes:
        node: number of each in its site, ascending; the error's is the number of features.
        position: of each, ascending within a node.
    """

    node: Int[Tensor, " targets"]
    position: Int[Tensor, " targets"]

    def cotangents(self, some: Index) -> Float[Tensor, "some steps width"]:
        """Gradients of some targets at their positions, along the path."""

    def factor(self, some: Index) -> Numbers:
        """What takes an edge's raw weight to the units that it is asked for in."""

    def change(self, some: Index) -> Numbers:
        """Value at the clean parents minus that at their patch values."""


@dataclass(frozen=True)
class AlongPath:
    """A site's value as its parents move from patch to clean.

    Attributes:
        x: at the steps of the quadrature.
        start: at the patch parents.
    """

    x: Float[Tensor, "steps positions width"]
    start: Float[Tensor, "positions width"]


class SiteTargets:
    """Nodes of a site as targets, by value in their own units.

    Args:
        number: of the input.
        gradient: ḡ of this input.
        positions: which target positions are wanted.
    """

    def __init__(
        self,
        ends: FeatureBatch,
        site: Site,
        number: int,
        along: AlongPath,
        gradient: Float[Tensor, "positions width"],
        positions: Int[Tensor, " wanted"],
    ) -> None:
        self.dictionary, self.along = ends.features.dictionary(site.name), along
        self.gradient, self.clean = gradient, ends.clean.values(site.name)[number]
        self.clean_error = ends.clean.error(site.name)[number]
        active = ends.active[site.name].of_input(number)
        kept = torch.isin(active.position, positions).nonzero().flatten()
        kept = kept[torch.argsort(active.feature[kept], stable=True)]
        errors = positions.new_full((len(positions),), self.dictionary.n_features)
        self.node = torch.cat([active.feature[kept], errors])
        self.position = torch.cat([active.position[kept], positions])
        self._clean_f, moved = active.clean[kept], active.clean[kept] != active.patch[kept]
        self.moved = torch.cat([moved, torch.ones_like(errors, dtype=torch.bool)])
        self.slopes = self.dictionary.slopes(along.x)

    @cached_property
    def _errors(self) -> Float[Tensor, "steps positions width"]:
        """Gradients of the error targets."""
        out = torch.zeros_like(self.along.x)
        for p in self.position[self.node == self.dictionary.n_features].tolist():
            out[:, p] = self.of_error(p, self.gradient[p].expand(len(out), -1))
        return out

    def of_error(
        self, p: int, gradient: Float[Tensor, "steps width"]
    ) -> Float[Tensor, "steps width"]:
        """The gradient of ⟨gradient, ε(p)⟩, by the features that have a slope there."""
        slopes = self.slopes[:, p]
        features = slopes.any(0).nonzero().flatten()
        along = slopes[:, features] * (gradient @ self.dictionary.decoder[features].T)
        return gradient - along @ self.dictionary.directions(features)

    def is_error(self, some: Index) -> Bool[Tensor, " some"]:
        return self.node[some] == self.dictionary.n_features

    def of_features(self, node: Index, position: Index) -> Float[Tensor, "some steps width"]:
        """slope_j e_j."""
        slopes = self.slopes[:, position, node].T
        return slopes[..., None] * self.dictionary.directions(node)[:, None]

    def cotangents(self, some: Index) -> Float[Tensor, "some steps width"]:
        error, node, position = self.is_error(some), self.node[some], self.position[some]
        out = self.gradient.new_zeros(len(some), *self.along.x.shape[::2])
        out[~error] = self.of_features(node[~error], position[~error])
        if error.any():
            out[error] = self._errors[:, position[error]].transpose(0, 1)
        return out

    def factor(self, some: Index) -> Numbers:
        return self.gradient.new_ones(len(some))

    def change(self, some: Index) -> Numbers:
        error, node, position = self.is_error(some), self.node[some], self.position[some]
        out = self.gradient.new_zeros(len(some))
        features, column = torch.unique(node[~error], return_inverse=True)
        start = self.dictionary.encode_some(self.along.start, features)
        out[~error] = self._clean_f[some[~error]] - start[position[~error], column]
        if error.any():
            out[error] = self._error_change[position[error]]
        return out

    @cached_property
    def _error_change(self) -> Float[Tensor, " positions"]:
        start = split(self.dictionary, self.along.start)[1]
        return ((self.clean_error - start) * self.gradient).sum(-1)


class AttributedTargets(SiteTargets):
    """The same, in units of the metric by what their change is worth."""

    def factor(self, some: Index) -> Numbers:
        error, node, position = self.is_error(some), self.node[some], self.position[some]
        out = self.gradient.new_ones(len(some))
        along = self.dictionary.decoder[node[~error]] * self.gradient[position[~error]]
        out[~error] = along.sum(-1)
        return out * self.moved[some]


class MetricTargets:
    """Nodes of a site as targets, by the metric of the run in which they alone have moved.

    Args:
        targets: the same, by value.
        rows: (target, step) pairs in one downstream pass.
    """

    def __init__(
        self,
        targets: SiteTargets,
        ends: FeatureBatch,
        metric: str,
        site: Site,
        number: int,
        rows: int,
    ) -> None:
        self._of, self._ends, self._metric = targets, ends, metric
        self._site, self._number, self._rows = site, number, rows
        self._downstream = Downstream(ends.features.model, ends.inputs, ends.run)
        self.node, self.position = targets.node, targets.position
        dictionary = targets.dictionary
        every = torch.cat([targets.along.start[None], targets.clean[None], targets.along.x])
        self._f, self._epsilon = split(dictionary, every)

    def cotangents(self, some: Index) -> Float[Tensor, "some steps width"]:
        gradient = self._through_metric(some)[0]
        error, node, position = self._of.is_error(some), self.node[some], self.position[some]
        out = torch.zeros_like(gradient)
        along = gradient[~error] @ self._of.dictionary.decoder[node[~error]][..., None]
        out[~error] = along * self._of.of_features(node[~error], position[~error])
        for i in error.nonzero().flatten().tolist():
            out[i] = self._of.of_error(int(position[i]), gradient[i])
        return out

    def factor(self, some: Index) -> Numbers:
        return self._f.new_ones(len(some))

    def change(self, some: Index) -> Numbers:
        ends = self._through_metric(some)[1]
        return ends[:, 1] - ends[:, 0]

    def _through_metric(
        self, some: Index
    ) -> tuple[Float[Tensor, "some steps width"], Float[Tensor, "some two"]]:
        """The metric's gradient at each target's position at every step, and its values with the
        target's parents at their patch values and clean."""
        size = max(1, self._rows // len(self._f))
        parts = [self._pass(part) for part in some.split(size)]
        gradients, values = (torch.cat(part) for part in zip(*parts, strict=True))
        return gradients[:, 2:], values[:, :2]

    def _pass(self, some: Index) -> tuple[Tensor, Tensor]:
        """One downstream pass over some targets: patch parents, clean parents, then the steps."""
        x = self._of.clean.repeat(len(some), len(self._f), 1, 1)
        x[torch.arange(len(some)), :, self.position[some]] += self._shift(some)
        rows = some.new_full((len(some) * len(self._f),), self._number)
        gradient, value = self._downstream.gradient(
            self._site, x.flatten(0, 1), rows, self._ends.objective(self._metric, rows)
        )
        gradient = gradient.unflatten(0, x.shape[:2])
        at = gradient[torch.arange(len(some)), :, self.position[some]]
        return at, value.unflatten(0, x.shape[:2])

    def _shift(self, some: Index) -> Float[Tensor, "some rows width"]:
        """What the target's own change adds to its site's value at its position."""
        error, node, position = self._of.is_error(some), self.node[some], self.position[some]
        epsilon = self._epsilon[:, position].transpose(0, 1)
        out = epsilon - epsilon[:, 1:2]
        f = self._f[:, position[~error], node[~error]].T
        decoder = self._of.dictionary.decoder[node[~error]]
        out[~error] = (f - f[:, 1:2])[..., None] * decoder[:, None]
        return out


class LogitsTarget:
    """The metric, read off the final value.

    Args:
        final: the final value at the steps of the quadrature.
        start: λ at the patch values of the parents.
        positions: which target positions are wanted; the read position may not be one of them.
    """

    def __init__(
        self,
        ends: FeatureBatch,
        metric: str,
        number: int,
        final: Value,
        start: Numbers,
        positions: Int[Tensor, " wanted"],
    ) -> None:
        read = int(ends.inputs.read[number])
        self.position = positions[positions == read]
        self.node = torch.zeros_like(self.position)
        which = positions.new_full((len(final),), number)
        objective = ends.objective(metric, which)
        with torch.enable_grad():
            at_read = final[:, read].detach().requires_grad_()
            value = objective(ends.features.model.unembed(at_read)).sum()
            self._gradient = torch.autograd.grad(value, at_read)[0][None]
        one = which[:1]
        self._change = ends.objective(metric, one)(ends.logits[one]) - start

    def cotangents(self, some: Index) -> Float[Tensor, "some steps width"]:
        return self._gradient[some]

    def factor(self, some: Index) -> Numbers:
        return self._gradient.new_ones(len(some))

    def change(self, some: Index) -> Numbers:
        return self._change[some]
