"""What regions as nodes take: passes of attribution, bytes of moments and partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.engine.methods import METHODS
from edgesweep.engine.network.base import LOGITS
from edgesweep.sweeps.regions.parted import shards
from edgesweep.sweeps.stages.base import Passes

if TYPE_CHECKING:
    from edgesweep.sweeps.granularity.regionsets import RegionSet
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.stages.attribute import AttributeShard


def passes(plan: Plan, shard: AttributeShard, chosen: RegionSet) -> Passes:
    """Gradients of all sites, at the clean run from one backward, else downstream of each site once
    a step; then a (region, position) is pulled back through the attention of one layer, at one
    position of the queries and those before it of keys and values, and met with all regions."""
    cell, inputs = shard.cell, shard.rows.stop - shard.rows.start
    source, length = plan.model(cell).source, plan.dataset(cell).length
    batches, steps = float(plan.batches(shard.rows)), cell.steps or 1
    n_layers, layer_of = source.sizes.n_layers, source.sites.layer
    downstream = sum(1 - (layer_of(site) + 1) / n_layers for site in chosen.sites)
    nodes = batches * (steps * downstream if cell.steps else 1.0)
    if METHODS[cell.method].scores_nodes:
        return Passes(2 * batches + nodes, nodes)
    sizes = {**{site: n + 1 for site, n in chosen.sizes.items()}, LOGITS: 1}
    targets = inputs * length * sum(sizes.values())
    layers = steps * targets * (0.5 / length + 0.15)
    pairs = sum(sizes[p] * sizes[site] for site, of in chosen.parents.items() for p in of)
    met = 2.0 * inputs * length**2 * source.sizes.d_model * pairs
    rate = plan.config.execution.micro_batch * n_layers  # layers a pass
    return Passes(2 * batches + nodes, nodes + layers / rate, flop=met)


def disk_bytes(plan: Plan) -> int:
    """Of all files of moments and partitions."""
    moments = sum(8 * s.of.n_features**2 for s in plan.stages.get(shards.MOMENTS, ()))
    return moments + sum(8 * s.of.n_features for s in plan.stages.get(shards.PARTS, ()))
