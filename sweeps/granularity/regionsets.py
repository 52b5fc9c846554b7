"""From `features.<name>.regions` in a config to how the features of a model's sites are parted.

How many regions a site may have is known beforehand, and so are the numbers of their nodes; which
feature is in which, a stage finds for each dataset (`sweeps.regions.parted`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from edgesweep.engine.network.base import SiteError
from edgesweep.engine.regions.correlation import RegionError, check_size
from edgesweep.engine.regions.graph import PartitionedGraph
from edgesweep.sweeps.config.features import AUTO, OF_HEADS, Regions
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.granularity.featuresets import FeatureSet

if TYPE_CHECKING:
    from edgesweep.engine.model import ModelSource
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.featuresets import SiteDictionary


@dataclass(frozen=True, eq=False)
class RegionSet(FeatureSet):
    """A set of dictionaries whose features are parted; what writes are regions, and of each site
    the rest.

    Attributes:
        blocks: of each site that is parted, how many regions are asked for; 0: as many as are
            found.
        metric, patch: of the attributions that go together.
        base: digest of the set without its regions.
    """

    kind: ClassVar[type[PartitionedGraph]] = PartitionedGraph
    blocks: Mapping[str, int] = field(default_factory=dict)
    metric: str = ""
    patch: str = ""
    base: str = ""

    @property
    def how(self) -> Regions:
        assert self.settings.regions is not None
        return self.settings.regions

    @property
    def identity(self) -> list[Any]:
        told = self.how.model_dump(mode="json")
        return [*super().identity, told, self.metric, self.patch]

    @property
    def sizes(self) -> dict[str, int]:
        """At most so many regions of each site."""
        most = {d.site: d.n_features for d in self.dictionaries}
        return {site: self.blocks.get(site, 0) or n for site, n in most.items()} | {
            site: 0 for site in most if site not in self.blocks
        }

    def parted(self) -> Iterator[SiteDictionary]:
        """The sites with regions."""
        return (d for d in self.dictionaries if d.site in self.blocks)


def region_set(config: Config, name: str, chosen: FeatureSet, source: ModelSource) -> RegionSet:
    """How a set's features are parted. Raises ConfigError."""
    regions = chosen.settings.regions
    assert regions is not None
    blocks = {
        d.site: _blocks(regions, name, d, source) for d in chosen.dictionaries if d.n_features
    }
    if not blocks:
        raise ConfigError(
            f"features.{name}.regions: no site of the set has features; give one a dictionary, as "
            'in {"attn*.z": identity}'
        )
    return RegionSet(
        chosen.model,
        chosen.dictionaries,
        chosen.parents,
        chosen.settings,
        blocks,
        config.sweep.build_metric[0],
        config.sweep.build_patch[0],
        chosen.digest,
    )


def _blocks(regions: Regions, name: str, of: SiteDictionary, source: ModelSource) -> int:
    """How many regions a site has, 0 for as many as are found."""
    key = f"features.{name}.regions"
    if regions.partition == OF_HEADS and of.source != "identity":
        raise ConfigError(
            f"{key}.partition: heads of {of.site!r} are of its coordinates, and its dictionary is "
            "another; allowed: identity, or none, and the site stays whole"
        )
    if regions.partition not in ("random", OF_HEADS):
        try:
            check_size(of.n_features)
        except RegionError as error:
            raise ConfigError(f"{key}.partition: {of.site!r}: {error}") from None
    if regions.blocks == AUTO:
        return 0
    n = _heads(key, of.site, source) if regions.blocks == OF_HEADS else int(regions.blocks)
    if n > of.n_features:
        raise ConfigError(
            f"{key}.blocks: {n} of {of.n_features} features at {of.site!r}; allowed: 1 to "
            f"{of.n_features}"
        )
    return n


def _heads(key: str, site: str, source: ModelSource) -> int:
    if not site.endswith(".z"):
        raise ConfigError(
            f"{key}.blocks: {OF_HEADS!r} are of sites such as attn0.z, and {site!r} has none; give "
            "a number, or the dictionary none, and the site stays whole"
        )
    try:
        return int(source.spec.n_heads)
    except (AttributeError, SiteError) as error:
        raise ConfigError(f"{key}.blocks: {error}") from None
