"""Which sites have regions of interest in a run: frozen values, whose keys are made of their
contents alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgesweep.engine.blockmodel_process import HOW_TO_INSTALL, find_interpreter
from edgesweep.engine.model.kinds import kind_of
from edgesweep.engine.network.base import SiteError
from edgesweep.engine.regions.correlation import MIN_SAMPLES, RegionError, check_size
from edgesweep.engine.regions.site import PATCHES, UnitSite
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.rois import ROIS
from edgesweep.sweeps.plan.canonical import digest, slug

if TYPE_CHECKING:
    from edgesweep.engine.model import ModelSource
    from edgesweep.engine.network.base import Network
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.plan.resolve import Dataset, ResolvedModel

#: what may stand in for units
ALLOWED = (*PATCHES, "resample")
#: partitions that do not have a number of blocks
WHOLE = ("sbm", "singletons")


@dataclass(frozen=True)
class UnitsOf:
    """The units of a site on a task's inputs, attributed in one way.

    Attributes:
        model, task: labels. dataset: key of the inputs.
        n_units, n_classes: how many there are.
    """

    model: str
    task: str
    dataset: str
    site: str
    unit: str
    of: str
    target: str
    build_patch: str
    steps: int
    rule: str
    n_units: int
    n_classes: int

    @cached_property
    def key(self) -> str:
        return f"{slug(self.site)}-{digest(asdict(self))[:10]}"

    def as_dict(self) -> dict[str, Any]:
        """As plan.json holds it."""
        return {"key": self.key, **asdict(self)}


@dataclass(frozen=True)
class PartitionOf:
    """A way to part the units; `asked`: how many blocks, 0 for as many as the block model has, or
    where it is not asked for; `draw`: of random blocks."""

    of: UnitsOf
    partition: str
    asked: int = 0
    draw: int = 0

    @property
    def key(self) -> str:
        return f"{self.of.key}.{self.partition}-{self.asked}.{self.draw}"


def partitions_of(config: Config, of: UnitsOf) -> Iterator[PartitionOf]:
    """All ways that a config asks for, the block model first."""
    rois = config.rois
    for name in rois.partition:
        for asked in (0,) if name in WHOLE else rois.asked:
            for draw in range(rois.draws if name == "random" else 1):
                yield PartitionOf(of, name, asked, draw)


def rois_of(
    config: Config, models: dict[str, ResolvedModel], datasets: list[Dataset]
) -> tuple[UnitsOf, ...]:
    """All sites whose regions a config asks for. Raises ConfigError."""
    if not config.has_rois:
        return ()
    _check(config)
    found: list[UnitsOf] = []
    for dataset in datasets:
        network = _skeleton(models[dataset.model].source)
        _check_classes(dataset)
        if config.rois.layers != "none" and config.rois.target == "label":
            _check_layers(dataset)
        found += _of_dataset(config, network, dataset)
    return tuple(found)


def _check(config: Config) -> None:
    if not config.rois.how.is_ours and find_interpreter(config.execution.graph_tool) is None:
        raise ConfigError(
            f"rois.model: no block model but nix, flat, simple, without layers: {HOW_TO_INSTALL}"
        )
    sweep, evaluate = config.sweep, config.evaluate
    axes = {"sweep.build_patch": sweep.build_patch, "evaluate.eval_patch": evaluate.eval_patch}
    for key, patches in axes.items():
        if unfit := next((patch for patch in patches if patch not in ALLOWED), None):
            raise ConfigError(
                f"{key}: {unfit!r} stands in for no unit of {ROIS!r}; allowed for them: "
                f"{', '.join(ALLOWED)}"
            )
    if "trapezoid" in sweep.rule and 1 in sweep.steps:
        raise ConfigError(
            "sweep.steps: 1 is too few for rule 'trapezoid', which has both ends; allowed: 2 or "
            "more, or another rule"
        )


def _check_classes(dataset: Dataset) -> None:
    if len(dataset.members) > 1:
        raise ConfigError(
            f"sweep.task: {dataset.task!r} is a mixture, and regions are of one task's classes; "
            f"give a list of tasks: [{', '.join(dataset.members)}]"
        )
    splits = {"data.n_build": dataset.data.build, "data.n_eval": dataset.data.evaluation}
    have = {key: {example.good[0] for example in split} for key, split in splits.items()}
    every = set(range(1 + max(set.union(*have.values()))))
    for key, split in splits.items():
        if lacking := sorted(every - have[key]):
            raise ConfigError(
                f"{key}: none of {len(split)} examples of {dataset.task!r} is of class "
                f"{lacking[0]}; allowed: so many that every class is there"
            )


def _check_layers(dataset: Dataset) -> None:
    """Of true labels it is known beforehand how many inputs a layer is of."""
    labels = [example.good[0] for example in dataset.data.build]
    check_layers(np.bincount(labels), ConfigError)


def check_layers(counts: np.ndarray, error: type[ConfigError]) -> None:
    """Refuses classes with fewer build inputs, `[classes]`, than a correlation takes."""
    if counts.min() < MIN_SAMPLES:
        few = int(counts.argmin())
        raise error(
            f"rois.layers: class {few} has {counts[few]} of {counts.sum()} build inputs, too few "
            f"for correlations of its own; allowed: {MIN_SAMPLES} or more of each class "
            "(data.n_build), or layers none"
        )


def _of_dataset(config: Config, network: Network, dataset: Dataset) -> Iterator[UnitsOf]:
    rois, sweep = config.rois, config.sweep
    n_classes = 1 + max(e.good[0] for e in (*dataset.data.build, *dataset.data.evaluation))
    for site in _sites(rois.sites, network):
        n = _n_units(config, network, site)
        if excess := next((k for k in rois.asked if k > n), None):
            raise ConfigError(f"rois.blocks: {excess} of {n} units at {site!r}; allowed: 1 to {n}")
        for patch, steps, rule in product(sweep.build_patch, sweep.steps, sweep.rule):
            whose = dataset.model, dataset.task, dataset.key
            how = rois.unit, rois.of, rois.target
            yield UnitsOf(*whose, site, *how, patch, steps, rule, n, n_classes)


def _sites(wanted: Any, network: Network) -> tuple[str, ...]:
    return (network.sites.names[-1],) if wanted == "auto" else wanted


def _n_units(config: Config, network: Network, site: str) -> int:
    try:
        n = UnitSite.of(network, site, config.rois.unit).n_units  # type: ignore[arg-type]
        check_size(n, config.rois.max_units)
    except (RegionError, SiteError) as error:
        raise ConfigError(f"rois.sites: {error}") from None
    return n


def _skeleton(source: ModelSource) -> Network:
    """The network without its numbers. Raises ConfigError for one that has no units."""
    kind = kind_of(source.config)
    if source.shape is None:
        raise ConfigError(
            f"sweep.model: {source.name!r} reads tokens, and {ROIS!r} are of an MLP or CNN "
            "(edgesweep train model)"
        )
    with torch.device("meta"):
        hf = kind.auto.from_config(source.config, trust_remote_code=False)
    return kind.network(hf, source.name, None)
