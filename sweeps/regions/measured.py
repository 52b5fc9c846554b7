"""What runs without regions come to: points of curves, matrices of classes, areas beside those of
random blocks; with intervals over the evaluation inputs, the same resamples for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.measures import interval, resamples
from edgesweep.engine.regions.ablation import SIDES, Ablation, area
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions import shards
from edgesweep.sweeps.regions.told import metrics_of, of_partition, of_units, planned
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.regions.shards import AblationShard
    from edgesweep.sweeps.view import View

NAN = float("nan")


@dataclass(frozen=True)
class _Ran:
    """A committed shard: `values` `[ablation, input, metric]`, `units` `[ablation, input]`, the
    classes of inputs, and how many regions the partition has."""

    shard: AblationShard
    plan: list[Ablation]
    values: np.ndarray
    units: np.ndarray
    labels: np.ndarray
    n_regions: int

    @property
    def fixed(self) -> Row:
        told = of_partition(self.shard.which, self.n_regions)
        return {**told, "eval_patch": self.shard.patch}

    def side(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and units gone of a curve's points, `[point, input]`."""
        at = [i for i, ablation in enumerate(self.plan) if ablation.side == side]
        return self.values[at, :, 0].astype(np.float64), self.units[at].astype(np.float64)


def _ran(view: View) -> Iterator[_Ran]:
    for shard in view.plan.stages[shards.ABLATION]:
        if shard.key not in view.done[shards.ABLATION]:
            continue
        found = files.read_tensors(view.run, view.log, shards.ABLATION, shard.key)
        n_regions = view.log.record(shards.PARTITIONS, shard.which.key)["n_regions"]
        values, units, labels = (found[name].numpy() for name in ("values", "units", "labels"))
        plan = planned(view.plan.config, shard.of)
        yield _Ran(shard, plan, values, units, labels, n_regions)


def _weights(view: View, n: int) -> np.ndarray:
    """Of the inputs in each resample, `[resamples, inputs]`; none where none are asked for."""
    config = view.plan.config
    return resamples(n, config.measures.bootstrap, config.seed)


def _ends(view: View, samples: np.ndarray) -> tuple[float, float]:
    if not len(samples):
        return NAN, NAN
    low, high = interval(samples, view.plan.config.measures.level)
    return float(low), float(high)


# --- points ------------------------------------------------------------------------------------


def ablation_rows(view: View) -> Iterator[Row]:
    """A row a point, metric, and class of inputs."""
    metrics = metrics_of(view.plan.config)
    for ran in _ran(view):
        weights = _weights(view, len(ran.labels))
        for ablation, values, units in zip(ran.plan, ran.values, ran.units, strict=True):
            fixed = {**ran.fixed, **_of_ablation(ablation, ran.n_regions)}
            fixed["share_of_units"] = float(units.astype(np.float64).mean())
            for place, metric in enumerate(metrics):
                of_metric = {**fixed, "metric": metric}
                means = _means(view, values[:, place], weights, ran, ablation)
                yield from (of_metric | row for row in means)


def _of_ablation(ablation: Ablation, n: int) -> Row:
    told = {"side": ablation.side, "tau": ablation.tau, "of": ablation.of}
    return told | {"n_regions": ablation.n_regions(n) if ablation.side in SIDES else -1}


def _means(
    view: View, values: np.ndarray, weights: np.ndarray, ran: _Ran, ablation: Ablation
) -> Iterator[Row]:
    """Over all inputs; where it is by class, over those of each class."""
    by_class = [] if ablation.side in SIDES else range(ran.shard.of.n_classes)
    for on in by_class or [-1]:
        mine = np.ones(len(values), dtype=bool) if on < 0 else ran.labels == on
        some = values[mine].astype(np.float64)
        told = {"on": on, "value": float(some.mean()) if len(some) else NAN, "n_inputs": len(some)}
        low, high = NAN, NAN
        if on < 0:  # a class has few inputs, and its matrix is read as a whole
            low, high = _ends(view, weights @ some)
        yield {**told, "low": low, "high": high}


# --- areas -------------------------------------------------------------------------------------


def area_rows(view: View) -> Iterator[Row]:
    """A row a partition, patch and side: of random blocks the mean over draws."""
    found: dict[tuple[str, str, int, str], list[_Ran]] = {}
    for ran in _ran(view):
        which = ran.shard.which
        key = (which.of.key, which.partition, which.asked, ran.shard.patch)
        found.setdefault(key, []).append(ran)
    for side in SIDES:
        random = {k: _areas(view, of, side) for k, of in found.items() if k[1] == "random"}
        for key, of in found.items():
            beside = random.get((key[0], "random", key[2], key[3]))
            yield _area_row(view, of, side, _areas(view, of, side), beside)


@dataclass(frozen=True)
class _Areas:
    """Of each draw `[draw]`, and of the mean over draws in each resample `[resample]`."""

    each: np.ndarray
    resampled: np.ndarray


def _areas(view: View, draws: list[_Ran], side: str) -> _Areas:
    each, resampled = [], []
    weights = _weights(view, len(draws[0].labels))
    for ran in draws:
        values, units = ran.side(side)
        each.append(area(units.mean(1), values.mean(1)))
        resampled.append(area(weights @ units.T, weights @ values.T))
    return _Areas(np.array(each), np.mean(resampled, axis=0))


def _area_row(view: View, draws: list[_Ran], side: str, mine: _Areas, random: _Areas | None) -> Row:
    low, high = _ends(view, mine.resampled)
    beside = beside_low = beside_high = NAN
    if random is not None:
        beside = float(mine.each.mean() - random.each.mean())
        beside_low, beside_high = _ends(view, mine.resampled - random.resampled)
    which = draws[0].shard.which
    return {
        **of_units(which.of),
        "partition": which.partition,
        "asked": which.asked,
        "n_blocks": draws[0].n_regions,
        "eval_patch": draws[0].shard.patch,
        "side": side,
        "area": float(mine.each.mean()),
        "low": low,
        "high": high,
        "spread": float(mine.each.std(ddof=1)) if len(mine.each) > 1 else NAN,
        "beside_random": beside,
        "beside_low": beside_low,
        "beside_high": beside_high,
        "n_inputs": len(draws[0].labels),
    }
