"""What is known of regions, as tables: a row a unit, a point of a curve, a pair of classes, an
area."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.engine.regions.ablation import (
    DEAD,
    MODES,
    SIDES,
    HeldOut,
    Point,
    Regions,
    area,
    by_class,
    class_labels,
    curve,
)
from edgesweep.storage.atomic import replace, to_json

Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A partition, or the draw-th of several."""

    partition: str
    draw: int
    regions: Regions


@dataclass(frozen=True)
class RegionTables:
    """What was found.

    Attributes:
        units: partition, draw, n_blocks, unit, region (−1: dead), label (class of the region).
        curves: partition, draw, n_blocks, side (ablate, keep), tau, n_regions, units (share that
            took its patch value), accuracy.
        classes: partition, draw, n_blocks, mode (without, only), of, on, accuracy: on inputs of
            class `on`, without the regions of class `of` or with only these.
        areas: partition, draw, n_blocks, side, area (under accuracy against the share of units),
            over_random: less than the mean of random blocks by so much, of the ablate side.
        attributions: partition, region, class, attribution: means over the build split (of the
            first draw).
        facts: n_units, n_dead, n_clipped (copies), accuracy, length (nats), …
    """

    units: pd.DataFrame
    curves: pd.DataFrame
    classes: pd.DataFrame
    areas: pd.DataFrame
    attributions: pd.DataFrame
    facts: dict[str, Any]

    def save(self, folder: Path) -> None:
        """A parquet file each, and facts.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("units", "curves", "classes", "areas", "attributions"):
            table: pd.DataFrame = getattr(self, name)
            replace(folder / f"{name}.parquet", table.to_parquet(index=False))
        replace(folder / "facts.json", to_json(self.facts))

    def summary(self) -> Iterator[str]:
        """A line a partition: what is right without each input's strongest tenth of regions, and
        of a class without its own regions; means over draws."""
        facts = self.facts
        yield (
            f"{facts['n_units']} units, {facts['n_dead']} of them dead; the network tells "
            f"{facts['accuracy']:.2%} right"
        )
        near = self.curves[(self.curves.side == "ablate") & (self.curves.tau <= 0.1 + 0.01)]
        near = near[near.tau == near.tau.max()]
        own = self.classes[
            (self.classes["mode"] == "without") & (self.classes.of == self.classes.on)
        ]
        areas = self.areas[self.areas.side == "ablate"]
        for key, rows in near.groupby(["partition", "n_blocks"], sort=False):
            of_class, area = (
                t[(t.partition == key[0]) & (t.n_blocks == key[1])] for t in (own, areas)
            )
            yield (
                f"{key[0]:<13}{key[1]:>5} blocks: {rows.accuracy.mean():.3f} without the strongest "
                f"{rows.tau.max():.0%}, {of_class.accuracy.mean():.3f} of a class without its own; "
                f"area {area.area.mean():.3f}"
            )


def tables_of(
    found: Sequence[Found],
    build: np.ndarray,
    classes: np.ndarray,
    tested: HeldOut,
    taus: np.ndarray,
    facts: dict[str, Any],
) -> RegionTables:
    """All tables of some partitions.

    Args:
        build: attributions over the build split, `[inputs, units]`, and the `classes` that they are
            of, `[inputs]`.
    """
    parts: dict[str, list[Row]] = {name: [] for name in ("units", "curves", "classes", "means")}
    areas: list[Row] = []
    for one in found:
        key = {"partition": one.partition, "draw": one.draw, "n_blocks": one.regions.n}
        labels = class_labels(one.regions, build, classes)
        points = list(curve(one.regions, tested, taus.tolist()))
        parts["units"] += [key | row for row in _units(one.regions, labels)]
        parts["curves"] += [key | vars(point) for point in points]
        parts["classes"] += [key | row for row in _classes(one.regions, labels, tested)]
        areas += [key | row for row in _areas(points)]
        if one.draw == 0:
            parts["means"] += [key | row for row in _means(one.regions, build, classes)]
    tables = {name: pd.DataFrame(rows) for name, rows in parts.items()}
    return RegionTables(
        tables["units"],
        tables["curves"],
        tables["classes"],
        _beside_random(pd.DataFrame(areas)),
        tables["means"],
        facts,
    )


def _units(regions: Regions, labels: np.ndarray) -> Iterator[Row]:
    of_unit = np.where(regions.of == DEAD, DEAD, labels[regions.of])
    for unit, (region, label) in enumerate(zip(regions.of, of_unit, strict=True)):
        yield {"unit": unit, "region": int(region), "label": int(label)}


def _classes(regions: Regions, labels: np.ndarray, tested: HeldOut) -> Iterator[Row]:
    for mode in MODES:
        table = by_class(regions, labels, tested, mode)
        for (of, on), accuracy in np.ndenumerate(table):
            yield {"mode": mode, "of": of, "on": on, "accuracy": float(accuracy)}


def _areas(points: Sequence[Point]) -> Iterator[Row]:
    for side in SIDES:
        yield {"side": side, "area": area([p for p in points if p.side == side])}


def _beside_random(areas: pd.DataFrame) -> pd.DataFrame:
    """With what each is below the mean of random blocks, of the same side."""
    random = areas[areas.partition == "random"].groupby("side").area.mean()
    return areas.assign(over_random=areas.side.map(random) - areas.area)


def _means(regions: Regions, build: np.ndarray, classes: np.ndarray) -> Iterator[Row]:
    scores = regions.mean(build)
    for number in np.unique(classes):
        for region, value in enumerate(scores[classes == number].mean(0)):
            yield {"region": region, "class": int(number), "attribution": float(value)}
