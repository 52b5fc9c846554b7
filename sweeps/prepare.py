"""What the driver writes before an actor starts: prompts, and every array that will be filled. Done
again on resume, it changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import make_store
from edgesweep.storage.atomic import replace
from edgesweep.storage.records import seal
from edgesweep.sweeps.plan.prompts import prompts_to_json

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset


def prepare(run: RunDirectory, plan: Plan) -> None:
    """Prompts and arrays of the whole plan."""
    for store in (layout.ATTRIBUTIONS, layout.AGGREGATES, layout.EVALUATIONS):
        make_store(run.path / store)
    for dataset in plan.resolved.datasets.values():
        _write_prompts(run, dataset)
    for stage in plan.all_stages.values():
        stage.arrays(run, plan)


def _write_prompts(run: RunDirectory, dataset: Dataset) -> None:
    path = run.path / layout.prompts(dataset.key)
    splits = {"build": dataset.data.build, "eval": dataset.data.evaluation}
    data = seal({split: prompts_to_json(prompts) for split, prompts in splits.items()})
    if not path.exists() or path.read_bytes() != data:
        replace(path, data)
