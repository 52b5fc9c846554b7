"""All kinds of nodes, and which of them a name in `sweep.nodes` is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.sweeps.config.schema import NODES
from edgesweep.sweeps.granularity.features import FeaturesKind
from edgesweep.sweeps.granularity.heads import HeadsKind
from edgesweep.sweeps.granularity.regions import RegionsKind

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import Kind

FEATURES, REGIONS = FeaturesKind(), RegionsKind()
#: by the name in `sweep.nodes`; sets of dictionaries have names of their own
KINDS: dict[str, Kind] = {"heads": HeadsKind()}


def add_kind(name: str, kind: Kind) -> None:
    """Makes a kind of nodes known to `sweep.nodes`, in this process: the driver's. (Workers are
    given its nodes, and must be able to import what these are.)"""
    KINDS[name] = kind
    if name not in NODES:
        NODES.append(name)


def kind_of(config: Config, nodes: str) -> Kind:
    """The kind that a name in `sweep.nodes` is of."""
    if (chosen := config.features.get(nodes)) is None:
        return KINDS[nodes]
    return FEATURES if chosen.regions is None else REGIONS
