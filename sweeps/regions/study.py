"""Regions of interest (*Emerging Structures in Computational Graphs*, section 4), from a model, a
task of arrays and a site to tables:

1. attributions of the site's units to each input's class (that which the network says, or the true
   one), over the build split;
2. their correlations, Fisher's z, and the shortest weighted block model of them, of several chains;
   graph-tool judges it, where there is one, and looks for a shorter one;
3. clusterings with as many blocks, single units, and random blocks of the same sizes;
4. accuracy on the evaluation split without the strongest regions of each input, with only these,
   and without each class's regions.

The paper sorts by attribution to the true class, which lets the "keep" curve read the label off
(`target: label`), and compares a block model of 240 blocks with a clustering into 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edgesweep.engine.bases.moments import fold
from edgesweep.engine.blockmodel import BlockModelError, chain_seeds, find_interpreter
from edgesweep.engine.methods import MethodError
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.model import ModelError, ModelSource, load_model, resolve_model
from edgesweep.engine.network.base import SiteError
from edgesweep.engine.regions.ablation import HeldOut, Regions
from edgesweep.engine.regions.baselines import CLUSTERINGS, clustered, shuffled
from edgesweep.engine.regions.correlation import (
    MAX_UNITS,
    Correlation,
    RegionError,
    check_size,
    correlation,
    moments_of,
)
from edgesweep.engine.regions.judge import judge
from edgesweep.engine.regions.site import PATCHES, UnitSite, patch_values
from edgesweep.engine.regions.weighted import Partition, fit_blocks
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.regions.tables import Found, RegionTables, tables_of
from edgesweep.tasks import Example, TaskError, build_task

BLOCK_MODEL, RANDOM, SINGLETONS = "sbm", "random", "singletons"
PARTITIONS = (BLOCK_MODEL, RANDOM, SINGLETONS, *CLUSTERINGS)
TARGETS = ("predicted", "label")
#: samples of a part of the moments
PART = 1024
#: what is said while it is worked on
Say = Callable[[str], None]


@dataclass(frozen=True)
class RegionStudy:
    """What is asked.

    Attributes:
        model, task: as in a config.
        site: of the network: `input`, `conv1`, `hidden0`, ….
        unit: "neuron", or "channel" with all places of a convolution in one.
        n_build, n_eval: examples that regions are found with, and tested on.
        patch: what stands in for a region's value, also the start of the attribution's path.
        target: the class whose logit is attributed: the one "predicted" by the network, or the
            true "label".
        partition: some of `PARTITIONS`; clusterings have as many blocks as the block model.
        blocks: numbers of blocks that clusterings have besides.
        steps: of the attribution's path, midpoints.
        chains: of the block model; the shortest is kept.
        draws: of random blocks.
        n_tau: points from τ = 0 to 1.
        dead: the published absolute cut of variance (1e-5); None: 1e-12 of the median.
        judged: whether graph-tool has a look, if there is one.
    """

    model: str
    task: str
    site: str
    unit: str = "neuron"
    n_build: int = 1000
    n_eval: int = 1000
    patch: str = "zero"
    target: str = "predicted"
    partition: tuple[str, ...] = PARTITIONS
    blocks: tuple[int, ...] = ()
    steps: int = 1
    chains: int = 2
    draws: int = 20
    n_tau: int = 20
    seed: int = 0
    dead: float | None = None
    max_units: int = MAX_UNITS
    judged: bool = True

    def __post_init__(self) -> None:
        self._check_word("unit", ("neuron", "channel"))
        self._check_word("patch", PATCHES)
        self._check_word("target", TARGETS)
        for name in self.partition:
            if name not in PARTITIONS:
                raise ConfigError(f"partition: {name!r}; allowed: {', '.join(PARTITIONS)}")
        for key, least in (("steps", 1), ("chains", 1), ("draws", 1), ("n_tau", 2)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key}: {getattr(self, key)}; allowed: {least} or more")

    def _check_word(self, key: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, key) not in allowed:
            raise ConfigError(f"{key}: {getattr(self, key)!r}; allowed: {', '.join(allowed)}")


@dataclass(frozen=True)
class _Split:
    """The examples of a split, attributed: see `HeldOut`; `classes` are those attributed."""

    tested: HeldOut
    classes: np.ndarray


def regions(
    model: str,
    task: str,
    site: str,
    *,
    say: Say = lambda text: None,
    **how: Any,
) -> RegionTables:
    """Regions of a site, and what the network does without them.

    Args:
        how: further attributes of `RegionStudy`.
        say: told what is done.

    Raises:
        ConfigError: one line on what cannot be used.
    """
    known = {f.name for f in fields(RegionStudy)}
    if unknown := sorted(how.keys() - known):
        raise ConfigError(f"{unknown[0]}: no such key; allowed: {', '.join(sorted(known))}")
    for key in ("partition", "blocks"):
        if key in how:
            how[key] = tuple(how[key])
    study = RegionStudy(model, task, site, **how)
    try:
        return _studied(study, say)
    except (BlockModelError, MethodError, ModelError, RegionError, SiteError, TaskError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


def _studied(study: RegionStudy, say: Say) -> RegionTables:
    source = resolve_model(study.model)
    units = UnitSite.of(load_model(source), study.site, study.unit)  # type: ignore[arg-type]
    check_size(units.n_units, study.max_units)
    build, held = _splits(study, source, units)
    say(f"{units.n_units} units of {study.site}, over {len(build.classes)} inputs")
    seen = build.tested.attributions
    ties = correlation(fold(map(moments_of, _parts(seen))), study.dead)
    say(f"{len(ties.live)} live, {ties.n_dead} dead, {ties.n_clipped} pairs of copies")
    facts: dict[str, Any] = {
        "n_units": units.n_units,
        "n_dead": ties.n_dead,
        "n_clipped": ties.n_clipped,
        "accuracy": float(held.tested.right(np.zeros((1, units.n_units), dtype=bool)).mean()),
    }
    model, told = _block_model(study, ties, say)
    found = [
        Found(name, draw, Regions.among(units.n_units, ties.live, blocks))
        for name, draw, blocks in _partitions(study, ties, seen[:, ties.live], model.blocks)
    ]
    taus = np.linspace(0, 1, study.n_tau)
    return tables_of(found, seen, build.classes, held.tested, taus, {**facts, **told})


def _parts(samples: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), PART):
        yield samples[start : start + PART]


def _splits(study: RegionStudy, source: ModelSource, units: UnitSite) -> tuple[_Split, _Split]:
    sizes = study.n_build, study.n_eval
    outputs, shape = source.sizes.n_vocab, source.shape
    data = build_task(study.task, None, *sizes, study.seed, n_vocab=outputs, shape=shape)
    if min(len(data.build), len(data.evaluation)) < 2:
        raise RegionError(f"n_build is {sizes[0]} and n_eval {sizes[1]}; allowed: 2 or more")
    mean = units.values(data.build, "patch").mean(0)

    def split(examples: Sequence[Example]) -> _Split:
        values = units.values(examples)
        patch = patch_values(units, study.patch, examples, mean)
        labels = np.array([example.good[0] for example in examples])
        classes = labels if study.target == "label" else units.predicted(values)
        quadrature = points("midpoint", study.steps)
        attributions = units.attributions(values, patch, classes, quadrature)
        return _Split(HeldOut(units, values, patch, attributions, labels), classes)

    return split(data.build), split(data.evaluation)


def _block_model(
    study: RegionStudy, ties: Correlation, say: Say
) -> tuple[Partition, Mapping[str, Any]]:
    """The shortest of the chains, and of what graph-tool makes of it."""
    chains = [fit_blocks(ties.z, seed) for seed in chain_seeds(study.seed, study.chains)]
    best = min(chains, key=lambda chain: chain.length)
    say(f"{best.n_blocks} blocks, {best.length:.1f} nats")
    told = {"length": best.length, "lengths": [chain.length for chain in chains]}
    interpreter = find_interpreter() if study.judged and best.length else None
    if interpreter is None:
        return best, {**told, "judge": None}
    judged = judge(ties.z, best, interpreter)
    shortest = min((best, judged.partition), key=lambda partition: partition.length)
    say(f"{judged.engine}: {judged.given:.1f} nats, and {judged.partition.length:.1f} at its end")
    return shortest, {**told, "length": shortest.length, "judge": judged.engine}


def _partitions(
    study: RegionStudy, ties: Correlation, attributions: np.ndarray, model: np.ndarray
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, draw and the blocks of the live units, of every partition that is asked for."""
    wanted, n = study.partition, int(model.max()) + 1
    if BLOCK_MODEL in wanted:
        yield BLOCK_MODEL, 0, model
    if RANDOM in wanted:
        for draw, seed in enumerate(chain_seeds(study.seed + 1, study.draws)):
            yield RANDOM, draw, shuffled(model, seed)
    if SINGLETONS in wanted:
        yield SINGLETONS, 0, np.arange(len(model))
    for name in (name for name in CLUSTERINGS if name in wanted):
        for k in dict.fromkeys((n, *study.blocks)):
            yield name, 0, clustered(name, ties.z, attributions, k, study.seed)
