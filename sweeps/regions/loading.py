"""What a shard of regions works on: a site's numbers for some inputs, and their attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgesweep.engine.bases.moments import fold
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.patches import resample_partners
from edgesweep.engine.regions.ablation import HeldOut, answers_of
from edgesweep.engine.regions.site import UnitSite, patch_values
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions.shards import MEANS
from edgesweep.tasks import Example

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.cells import Rows
    from edgesweep.sweeps.regions.sites import UnitsOf

#: a split's name
BUILD, EVAL = "build", "eval"


@dataclass(frozen=True)
class Units:
    """A site's numbers for some inputs.

    Attributes:
        values, patch: `[inputs, width]`.
        classes: what is attributed of each input, `[inputs]`.
        labels: the true classes, `[inputs]`.
    """

    of: UnitsOf
    site: UnitSite
    examples: Sequence[Example]
    values: Tensor
    patch: Tensor
    classes: np.ndarray
    labels: np.ndarray

    def attributions(self) -> np.ndarray:
        """Of each unit to its input's class, float64 `[inputs, units]`."""
        quadrature = points(self.of.rule, self.of.steps)
        return self.site.attributions(self.values, self.patch, self.classes, quadrature)

    def slopes(self) -> Tensor:
        """Of the class to the site's numbers, along the path, `[inputs, width]`."""
        classes = torch.as_tensor(self.classes, device=self.values.device)
        return self.site.slopes(
            self.values, self.patch, classes, points(self.of.rule, self.of.steps)
        )

    def samples(self) -> np.ndarray:
        """What goes together: attributions or activations, float64 `[inputs, units]`."""
        if self.of.of == "attribution":
            return self.attributions()
        return self.site.by_unit(self.values.double().cpu().numpy())

    def rows(self, chosen: np.ndarray) -> Units:
        """Some of the inputs."""
        at = torch.as_tensor(chosen)
        examples = [self.examples[i] for i in chosen]
        tensors = self.values[at], self.patch[at]
        return replace(
            self,
            examples=examples,
            values=tensors[0],
            patch=tensors[1],
            classes=self.classes[chosen],
            labels=self.labels[chosen],
        )


def site_of(context: Context, of: UnitsOf) -> UnitSite:
    return UnitSite.of(context.model(of.model), of.site, of.unit)  # type: ignore[arg-type]


def units_of(
    context: Context, of: UnitsOf, split: str, means: Sequence[str], rows: Rows | None = None
) -> Units:
    """Of a split's inputs, or of a block of them; the patch is that of attribution."""
    site, examples = site_of(context, of), context.prompts(of.dataset, split)
    some = list(examples if rows is None else examples[rows.start : rows.stop])
    values = site.values(some)
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values).all(1)).nonzero()[0, 0])
        raise ValueError(f"activations at {of.site} are not finite, first of input {bad}")
    patch = _patched(context, of, site, of.build_patch, means, some, examples)
    labels = np.array([example.good[0] for example in some])
    classes = labels if of.target == "label" else site.predicted(values)
    return Units(of, site, some, values, patch, classes, labels)


def held_out(context: Context, of: UnitsOf, patch: str, means: Sequence[str]) -> HeldOut:
    """The evaluation inputs, with what ablated units take; their attributions are those of the
    site's own patch."""
    units = units_of(context, of, EVAL, means)
    taken = units.patch
    if patch != of.build_patch:
        every = units.examples
        taken = _patched(context, of, units.site, patch, means, every, every)
    return HeldOut(
        units.site, units.values, taken, units.attributions(), answers_of(units.examples)
    )


def _patched(
    context: Context,
    of: UnitsOf,
    site: UnitSite,
    kind: str,
    means: Sequence[str],
    some: Sequence[Example],
    split: Sequence[Example],
) -> Tensor:
    """What stands in for a site's numbers on some of a split's inputs, `[inputs, width]`."""
    if kind == "resample":
        partners = resample_partners(split, context.datasets[of.dataset].seed)
        some = [replace(e, patch=partners[e.clean]) for e in some]
        return site.values(some, "patch")
    mean = torch.zeros(len(site.unit_of), device=site.network.device, dtype=site.network.dtype)
    if kind == "mean":
        read = files.parts(context, MEANS, means)
        mean = fold(files.sums_in("values", part) for part in read).mean("values").to(mean)
    return patch_values(site, kind, some, mean)
