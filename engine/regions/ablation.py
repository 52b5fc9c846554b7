"""What a network does without some of its regions (*Emerging Structures*, section 4.2).

1. *Per input*: an input's regions in the order of their attribution, largest first; the first
   ⌊τB⌋ take their patch value (figure 7, left), or all but these do (right). Accuracy against τ,
   and against the share of units that are gone, for regions differ in size.
2. *Per class*: a region's label is the class with the largest mean attribution of it, over inputs
   that are not those it is tested on. Without a class: its regions take their patch value; only a
   class: those of all others do. Accuracy on each class (figure 8).

A region's attribution is the mean over its units, as published, or their sum. Dead units are no
region's: they have the value that they always have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from edgesweep.engine.bases.ablation import top1
from edgesweep.engine.metrics import logit_diff, nll
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.regions.site import MICRO_BATCH, UnitSite
from edgesweep.tasks import Example

SIDES = ("ablate", "keep")
MODES = ("without", "only")
#: what can be measured: name -> of outputs and answers, `[inputs]`
METRICS: Mapping[str, Callable[[Tensor, PromptBatch], Tensor]] = {
    "accuracy": top1,
    "nll": nll,
    "logit_diff": logit_diff,
}
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

    @property
    def n_live(self) -> int:
        return int((self.of >= 0).sum())

    def scores(self, attributions: np.ndarray, how: str = "mean") -> np.ndarray:
        """Of each region the mean attribution of its units, or the sum, `[inputs, regions]`."""
        total = np.zeros((self.n + 1, len(attributions)))
        np.add.at(total, self.of, attributions.T)
        scale = self.sizes[:, None] if how == "mean" else 1
        return (total[: self.n] / scale).T

    def units(self, regions: np.ndarray) -> np.ndarray:
        """Which units are of some regions: from `[…, regions]` to `[…, units]`."""
        padded = np.concatenate([regions, np.zeros_like(regions[..., :1])], axis=-1)
        return padded[..., self.of]


def answers_of(examples: Sequence[Example]) -> tuple[PromptBatch, ...]:
    """Their answers alone, by so many examples as are run at once."""
    found = []
    for start in range(0, len(examples), MICRO_BATCH):
        batch = PromptBatch.make(examples[start : start + MICRO_BATCH])
        nothing = batch.clean.flatten(1)[:, :0]
        found.append(replace(batch, prompts=(), clean=nothing, patch=nothing))
    return tuple(found)


@dataclass(frozen=True)
class HeldOut:
    """What the regions are tested on.

    Attributes:
        values, patch: the site's numbers, `[inputs, width]`.
        attributions: `[inputs, units]`.
        answers: see `answers_of`.
    """

    site: UnitSite
    values: Tensor
    patch: Tensor
    attributions: np.ndarray
    answers: tuple[PromptBatch, ...]

    @property
    def labels(self) -> np.ndarray:
        """The class of each input: the first of its right answers."""
        return torch.cat([batch.good[:, 0] for batch in self.answers]).numpy()

    @torch.no_grad()
    def measured(self, out: np.ndarray, metrics: Sequence[str]) -> np.ndarray:
        """Metrics of each input without some units, `[inputs, metrics]`.

        Args:
            out: which are gone, `[inputs or 1, units]`.
        """
        parts, start = [], 0
        for batch in self.answers:
            rows = slice(start, start := start + len(batch.good))
            gone = out if len(out) == 1 else out[rows]
            outputs = self.site.outputs(
                self.site.without(self.values[rows], self.patch[rows], gone)
            )
            found = [METRICS[name](outputs.double(), batch) for name in metrics]
            parts.append(torch.stack(found, -1).cpu().numpy())
        return np.concatenate(parts)


@dataclass(frozen=True)
class Ablation:
    """What is left out.

    Attributes:
        side: `ablate` the first regions of each input, `keep` only these; `without` the regions of
            a class, with `only` these.
        tau: the share of regions; NaN where it is by class.
        of: the class; −1 where it is by input.
    """

    side: str
    tau: float = float("nan")
    of: int = -1

    def n_regions(self, n: int) -> int:
        """⌊τB⌋."""
        return int(self.tau * n + 1e-9)


def ablations(taus: Sequence[float], n_classes: int) -> list[Ablation]:
    """All that is run of a partition, in order."""
    by_input = [Ablation(side, tau=float(tau)) for side in SIDES for tau in taus]
    return by_input + [Ablation(mode, of=number) for mode in MODES for number in range(n_classes)]


def gone(ablation: Ablation, regions: Regions, rank: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The units that take their patch value, `[inputs or 1, units]`.

    Args:
        rank: of each region among an input's, 0 the strongest, `[inputs, regions]`.
        labels: the class of each region, `[regions]`.
    """
    n = ablation.n_regions(regions.n) if ablation.side in SIDES else 0
    out = {
        "ablate": lambda: rank < n,
        "keep": lambda: rank >= n,
        "without": lambda: (labels == ablation.of)[None],
        "only": lambda: (labels != ablation.of)[None],
    }[ablation.side]()
    return regions.units(out)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Of each region among an input's, 0 the largest score; ties by number."""
    order = np.argsort(-scores, axis=1, kind="stable")
    found: np.ndarray = np.argsort(order, axis=1, kind="stable")
    return found


def run_without(
    regions: Regions,
    labels: np.ndarray,
    tested: HeldOut,
    plan: Sequence[Ablation],
    metrics: Sequence[str],
    how: str = "mean",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each ablation its metrics `[inputs, metrics]`, and the share of each input's live units
    that took their patch value `[inputs]`."""
    rank = ranks(regions.scores(tested.attributions, how))
    for ablation in plan:
        out = gone(ablation, regions, rank, labels)
        share = np.broadcast_to(out.sum(1) / regions.n_live, len(tested.values))
        yield tested.measured(out, metrics), share


def class_labels(means: np.ndarray) -> np.ndarray:
    """The class with the largest mean attribution of each region, `[regions]`.

    Args:
        means: of each class, `[classes, regions]`; NaN of a class that has no inputs.
    """
    found: np.ndarray = np.nanargmax(means, axis=0)
    return found


def area(units: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The area under a metric against the share of units that are gone, by trapezoids; of accuracy
    less is better where the strongest regions go first.

    Args:
        units, values: `[…, points]`.
    """
    order = np.argsort(units, axis=-1, kind="stable")
    x, y = (np.take_along_axis(part, order, -1) for part in (units, values))
    found: np.ndarray = np.trapezoid(y, x, axis=-1)
    return found
