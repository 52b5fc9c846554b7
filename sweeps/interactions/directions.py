"""How many directions of a layer the network needs, on evaluation prompts in the run's own
precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.ablation import Logits, ablated_nodes
from edgesweep.engine.bases.needed import log_sizes
from edgesweep.engine.network.base import Inputs, Value
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.ablated import Networks
from edgesweep.sweeps.interactions.graphs import BasisOf
from edgesweep.sweeps.interactions.shards import DIRECTIONS, Shard, bases_of, of_layer, owner
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: directions of which every number is kept in turn, and how many larger numbers
EVERY, LARGER = 16, 16


class Directions(Stage[Shard[BasisOf]]):
    """One shard a layer."""

    name = DIRECTIONS
    title = "directions that are needed"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[BasisOf]]:
        for basis in bases_of(plan):
            for layer in basis.of.rotated:
                yield Shard(basis, layer)

    def needs(self, plan: Plan, shard: Shard[BasisOf]) -> tuple[str, ...]:
        return of_layer(shard.of, shard.at)

    @torch.inference_mode()
    def run(self, context: Context, shard: Shard[BasisOf]) -> Done:
        networks = Networks.of(context, shard.layers, shard.at)
        basis = files.read_basis(context.run, context.log, shard.of, shard.at)
        sizes = sorted({*range(min(EVERY, basis.k)), *log_sizes(basis.k, LARGER), basis.k})

        def scored(k: int) -> float:
            def run(_: int, f: Value, inputs: Inputs) -> Logits:
                return ablated_nodes(networks.chain, shard.at, basis.to(f), f, k, inputs)

            return float(networks.score(run).mean())

        values = torch.tensor([scored(k) for k in sizes], dtype=torch.float64)
        tensors = {"sizes": torch.tensor(sizes), "scores": values}
        return files.write_tensors(context, self.name, shard.key, tensors)

    def passes(self, plan: Plan, shard: Shard[BasisOf]) -> Passes:
        n = plan.n_inputs("eval") * len(plan.dataset_of(shard.dataset).members)
        return Passes(-(-n // plan.config.execution.micro_batch) * 24.0)

    def alike(self, shard: Shard[BasisOf]) -> str:
        return shard.at

    def whose(self, plan: Plan, shard: Shard[BasisOf]) -> str:
        return owner(shard)
