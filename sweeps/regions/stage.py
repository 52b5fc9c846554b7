"""What the stages of regions have in common: one safetensors file a shard, and as many threads as
the run's identity says, for sums of another number differ in bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from edgesweep.storage import layout
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions.sites import UnitsOf
from edgesweep.sweeps.stages.base import Done, Stage
from edgesweep.sweeps.stages.blockmodels.blocks import why_no_graph_tool

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class _OfUnits(Protocol):
    @property
    def of(self) -> UnitsOf: ...
    @property
    def key(self) -> str: ...


S = TypeVar("S", bound=_OfUnits)


class OfUnits(Stage[S]):
    """A stage of the units of a site; `reads_blocks` where the block model's chains are made, or
    waited for."""

    reads_blocks = False

    def lacks(self, plan: Plan) -> str:
        fitted_here = not plan.rois or plan.config.rois.how.is_ours
        return "" if fitted_here or not self.reads_blocks else why_no_graph_tool(plan)

    def run(self, context: Context, shard: S) -> Done:
        with threadpool_limits(context.config.execution.threads):
            return self.work(context, shard)

    def work(self, context: Context, shard: S) -> Done:
        """See `Stage.run`."""
        raise NotImplementedError

    def written(self, context: Context, shard: S, tensors: files.Tensors, **told: Any) -> Done:
        """The shard's file, and what else its record says."""
        return [files.write_at(context, layout.regions(self.name, shard.key), tensors)], told

    def alike(self, shard: S) -> str:
        return shard.of.key

    def whose(self, plan: Plan, shard: S) -> str:
        return f"{shard.of.site} of {shard.of.model} on {shard.of.task}"
