"""What a network does without some of its regions (*Emerging Structures*, section 4.2).

1. *Per input*: an input's regions in the order of their attribution, largest first; the first
   ⌊τB⌋ take their patch value (figure 7, left), or all but these do (right). Accuracy against τ,
   and against the share of units that are gone, for regions differ in size.
2. *Per class*: a region's label is the class with the largest mean attribution of it, over inputs
   that are not those it is tested on. Without a class: its regions take their patch value; only a
   class: those of all others do. Accuracy on each class (figure 8).

A region's attribution is the mean over its units, as published. Dead units are no region's: they
have the value that they always have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.site import UnitSite

SIDES = ("ablate", "keep")
MODES = ("without", "only")
#: in `Regions.of`, the region of a dead unit
DEAD = -1


@dataclass(frozen=True)
class Regions:
    """A partition of the live units of a site.

    Attributes:
        of: the region of each unit, `[units]`, 0, 1, …; `DEAD` for dead ones.
    """

    of: np.ndarray

    @classmethod
    def among(cls, n_units: int, live: np.ndarray, blocks: np.ndarray) -> Regions:
        """From the blocks of the live units."""
        of = np.full(n_units, DEAD)
        of[live] = blocks
        return cls(of)

    @property
    def n(self) -> int:
        return int(self.of.max()) + 1

    @property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.of[self.of >= 0], minlength=self.n)

    def mean(self, attributions: np.ndarray) -> np.ndarray:
        """Of each region the mean attribution of its units, `[inputs, regions]`."""
        total = np.zeros((self.n + 1, len(attributions)))
        np.add.at(total, self.of, attributions.T)
        return (total[: self.n] / self.sizes[:, None]).T

    def units(self, regions: np.ndarray) -> np.ndarray:
        """Which units are of some regions: from `[…, regions]` to `[…, units]`."""
        padded = np.concatenate([regions, np.zeros_like(regions[..., :1])], axis=-1)
        return padded[..., self.of]


@dataclass(frozen=True)
class HeldOut:
    """What the regions are tested on.

    Attributes:
        values, patch: the site's numbers, `[inputs, width]`.
        attributions: `[inputs, units]`.
        labels: `[inputs]`.
    """

    site: UnitSite
    values: Tensor
    patch: Tensor
    attributions: np.ndarray
    labels: np.ndarray

    def right(self, out: np.ndarray) -> np.ndarray:
        """Which inputs are told right without some units, `[inputs]`."""
        left = self.site.without(self.values, self.patch, out)
        found: np.ndarray = self.site.predicted(left) == self.labels
        return found


@dataclass(frozen=True)
class Point:
    """Accuracy without ⌊τB⌋ regions of each input, or with only these.

    Attributes:
        n_regions: ⌊τB⌋.
        units: the mean share of units that took their patch value.
    """

    side: str
    tau: float
    n_regions: int
    units: float
    accuracy: float


def curve(regions: Regions, tested: HeldOut, taus: Sequence[float]) -> Iterator[Point]:
    """Accuracy per τ, of both sides."""
    scores = regions.mean(tested.attributions)
    rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    n_live = int((regions.of >= 0).sum())
    for side in SIDES:
        for tau in taus:
            n = int(tau * regions.n + 1e-9)
            out = regions.units(rank < n if side == "ablate" else rank >= n)
            share = float(out.sum(1).mean()) / n_live
            yield Point(side, float(tau), n, share, float(tested.right(out).mean()))


def class_labels(regions: Regions, attributions: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class with the largest mean attribution of each region, `[regions]`.

    Args:
        attributions: of the build split, `[inputs, units]`.
        classes: of the same inputs, each class at least once.

    Raises:
        RegionError: a class without inputs.
    """
    scores, n = regions.mean(attributions), int(classes.max()) + 1
    for number in range(n):
        if not (classes == number).any():
            raise RegionError(f"class {number} has no input; give more examples")
    means = np.stack([scores[classes == number].mean(0) for number in range(n)])
    found: np.ndarray = means.argmax(0)
    return found


def by_class(regions: Regions, labels: np.ndarray, tested: HeldOut, mode: str) -> np.ndarray:
    """Accuracy on each class (columns) without each class's regions, or with only these (rows),
    `[classes, classes]`; NaN on a class without inputs."""
    n = 1 + int(max(tested.labels.max(), labels.max()))
    rows = []
    for number in range(n):
        out = labels == number if mode == "without" else labels != number
        right = tested.right(regions.units(out)[None])
        rows.append([_mean(right[tested.labels == column]) for column in range(n)])
    return np.array(rows)


def _mean(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else float("nan")


def area(points: Sequence[Point]) -> float:
    """The area under accuracy against the share of units that are gone, by trapezoids; less is
    better where the strongest regions go first."""
    ordered = sorted((point.units, point.accuracy) for point in points)
    x, y = np.array(ordered).T
    return float(np.trapezoid(y, x))
