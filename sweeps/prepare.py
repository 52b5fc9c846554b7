"""What the driver writes before an actor starts: prompts, and every array that will be filled. Done
again on resume, it changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import create_arrays, make_store
from edgesweep.storage.packing.prompts import write_prompts

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.plan import Plan


def prepare(run: RunDirectory, plan: Plan) -> None:
    """Prompts and arrays of the whole plan."""
    for store in (layout.ATTRIBUTIONS, layout.AGGREGATES, layout.EVALUATIONS):
        make_store(run.root / store)
    for dataset in plan.resolved.datasets.values():
        splits = {"build": dataset.data.build, "eval": dataset.data.evaluation}
        write_prompts(run, dataset.key, splits)
    for stage in plan.all_stages.values():
        stage.prepare(run, plan)
    create_arrays(one for stage in plan.all_stages.values() for one in stage.arrays(run, plan))
