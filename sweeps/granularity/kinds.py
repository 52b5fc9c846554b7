"""All kinds of nodes, and which of them a name in `sweep.nodes` is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.sweeps.config.schema import NODES
from edgesweep.sweeps.granularity.features import FeaturesKind
from edgesweep.sweeps.granularity.heads import HeadsKind

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import Kind

FEATURES = FeaturesKind()
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
    return FEATURES if nodes in config.features else KINDS[nodes]
