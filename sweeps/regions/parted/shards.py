"""Shards of partitions of features, and the groups by which they wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edgesweep.sweeps.config.features import GIVEN
from edgesweep.sweeps.plan.canonical import digest, slug

if TYPE_CHECKING:
    from edgesweep.sweeps.granularity.featuresets import SiteDictionary
    from edgesweep.sweeps.granularity.regionsets import RegionSet
    from edgesweep.sweeps.plan.cells import Rows
    from edgesweep.sweeps.plan.plan import Plan

#: names of stages
MOMENTS, PARTS = "feature_moments", "feature_partitions"


@dataclass(frozen=True)
class Sampled:
    """What the features of a site are on a dataset's build inputs; sets of dictionaries that part
    them in different ways share it.

    Attributes:
        base: digest of the dictionaries.
        n_features: of the site.
        of, over, steps: see `sweeps.config.features.Regions`. metric, patch: of attributions.
    """

    model: str
    dataset: str
    base: str
    site: str
    n_features: int
    of: str
    over: str
    steps: int
    metric: str
    patch: str

    @cached_property
    def key(self) -> str:
        return f"{slug(self.site)}-{digest(asdict(self))[:10]}"


@dataclass(frozen=True)
class SampleShard:
    """A block of build inputs; `nodes`: the name of a set of dictionaries with the site."""

    of: Sampled
    nodes: str
    rows: Rows

    @property
    def dataset(self) -> str:
        return self.of.dataset

    @property
    def key(self) -> str:
        return f"{self.of.key}.{self.rows.key}"


@dataclass(frozen=True)
class PartShard:
    """The partition of one site of a set (`digest`); `parts`: keys of what its moments are of, none
    where it hangs on no inputs."""

    of: Sampled
    nodes: str
    digest: str
    parts: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self.of.dataset

    @property
    def key(self) -> str:
        return part_key(self.digest, self.of.dataset, self.of.site)


def part_key(nodes: str, dataset: str, site: str) -> str:
    """Of a site's partition in a set (its digest)."""
    return f"{slug(site)}-{digest([nodes, dataset, site])[:10]}"


def sampled(chosen: RegionSet, dataset: str, site: SiteDictionary) -> Sampled:
    """The features of a site of a set."""
    how = chosen.how
    told = how.of, how.over, how.steps, chosen.metric, chosen.patch
    return Sampled(chosen.model, dataset, chosen.base, site.site, site.n_features, *told)


def sample_shards(plan: Plan) -> Iterator[SampleShard]:
    """Of all sites whose partitions hang on inputs, each once."""
    seen: set[str] = set()
    for dataset, nodes, chosen in _parted(plan):
        sites = chosen.parted() if _hangs_on_inputs(chosen) else ()
        found = (sampled(chosen, dataset, site) for site in sites)
        new = {of.key: of for of in found if of.key not in seen}
        seen |= {*new}
        for rows in plan.blocks(dataset):  # of which all sites are had one after another
            yield from (SampleShard(of, nodes, rows) for of in new.values())


def part_shards(plan: Plan) -> Iterator[PartShard]:
    """Of all sites of all sets."""
    for dataset, nodes, chosen in _parted(plan):
        rows = plan.blocks(dataset) if _hangs_on_inputs(chosen) else []
        for site in chosen.parted():
            of = sampled(chosen, dataset, site)
            keys = tuple(f"{of.key}.{some.key}" for some in rows)
            yield PartShard(of, nodes, chosen.digest, keys)


def _hangs_on_inputs(chosen: RegionSet) -> bool:
    return chosen.how.partition not in GIVEN


def _parted(plan: Plan) -> Iterator[tuple[str, str, RegionSet]]:
    """A dataset's key, and the name of each set with regions that its model is taken apart by."""
    for dataset in plan.resolved.datasets.values():
        for name, nodes in plan.ways(dataset.model):
            if nodes.parted is not None:
                yield dataset.key, name, nodes.parted


# --- groups ------------------------------------------------------------------------------------


def moments_of(of: Sampled) -> str:
    """All moments of a site's features."""
    return f"moments of features {of.key}"
