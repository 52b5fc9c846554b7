"""From a resolved config to its plan: cells, and the shards that every stage makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.points import cells_of
from edgesweep.sweeps.stages.registry import STAGES

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.resolve import Resolved


def make_plan(resolved: Resolved) -> Plan:
    """All cells of a resolved config, and all that is done for them."""
    return Plan(resolved, cells_of(resolved), dict(STAGES))
