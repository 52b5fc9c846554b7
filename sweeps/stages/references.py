"""References: what circuits are compared with, the full model and the empty circuit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.sweeps.actor.measuring import over_inputs, write_values
from edgesweep.sweeps.notfinite import counted, plain
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Rows
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset
    from edgesweep.sweeps.view import View

#: a model that is right less often than this on two-way questions cannot do the task
POOR_ACCURACY = 0.6
#: patches whose values are those of a run of their own
RUN_PATCHES = frozenset({"counterfactual", "resample", "noise"})


@dataclass(frozen=True)
class ReferenceShard:
    """One block of inputs under one patch. `nodes` is the name of the way in which the model is
    taken apart, `digest` that way's digest."""

    dataset: str
    eval_patch: str
    rows: Rows
    nodes: str = "heads"
    digest: str = ""

    @property
    def key(self) -> str:
        return f"reference.{self.source}.{self.eval_patch}.{self.rows.key}"

    @property
    def source(self) -> str:
        """The graph and the prompts that it is of."""
        return layout.source(self.dataset, self.digest)


class References(Stage[ReferenceShard]):
    """Each metric of the full model and of the empty circuit, `[input, side, metric]`, float64."""

    name = "references"
    title = "references"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[ReferenceShard]:
        for dataset in plan.resolved.datasets.values():
            for name, nodes in plan.ways(dataset.model):
                for patch in plan.config.evaluate.eval_patch:
                    for rows in plan.eval_rows(dataset):
                        yield ReferenceShard(dataset.key, patch, rows, name, nodes.digest)

    def groups(self, plan: Plan, shard: ReferenceShard) -> Iterable[str]:
        return (groups.references(shard.source),)

    def needs(self, plan: Plan, shard: ReferenceShard) -> tuple[str, ...]:
        means = (groups.means(shard.source),) if shard.eval_patch == "mean" else ()
        return (*plan.trained(shard.digest), *means)

    def gates(self, plan: Plan) -> Iterator[Gate]:
        """A person hears at once how well the model does each task."""
        for dataset in plan.resolved.datasets.values():
            if not (ways := plan.ways(dataset.model)):
                continue
            source = layout.source(dataset.key, ways[0][1].digest)
            tell = partial(tell_skill, dataset=dataset, source=source)
            yield Gate(f"skill {source}", (groups.references(source),), tell)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        width = len(layout.SIDES), len(plan.config.reference_metrics)
        for dataset in plan.resolved.datasets.values():
            n, step = len(dataset.data.evaluation), plan.eval_chunk(dataset)
            for _, nodes in plan.ways(dataset.model):
                source = layout.source(dataset.key, nodes.digest)
                for patch in plan.config.evaluate.eval_patch:
                    made: dict[str, tuple[int, ...]] = {layout.reference(source, patch): width}
                    if nodes.distances:
                        made[layout.distance(source, patch)] = (len(nodes.distances),)
                    for name, of_input in made.items():
                        shape, chunks = (n, *of_input), (step, *of_input)
                        yield Planned(run.evaluations, name, shape, chunks, "float64")

    def run(self, context: Context, shard: ReferenceShard) -> Done:
        nodes = context.nodes_of(context.datasets[shard.dataset].model, shard.nodes)
        measure = nodes.reference(context, shard.dataset, shard.eval_patch)
        found, micro_batch = over_inputs(context, shard.dataset, shard.rows, measure)
        context.check_alive()
        named = shard.source, shard.eval_patch
        metrics = context.config.reference_metrics
        sides = [np.stack([found[side, m] for m in metrics], -1) for side in layout.SIDES]
        values = {layout.reference(*named): np.stack(sides, 1)}
        if nodes.distances:
            values[layout.distance(*named)] = np.stack([found[d] for d in nodes.distances], -1)
        writes = [
            write_values(context, name, shard.rows, of_inputs) for name, of_inputs in values.items()
        ]
        bad = counted((metric, row) for (_, metric), row in found.items())
        return writes, {"micro_batch": micro_batch, **bad}

    def passes(self, plan: Plan, shard: ReferenceShard) -> Passes:
        return Passes(plan.batches(shard.rows) * (2 + (shard.eval_patch in RUN_PATCHES)))

    def alike(self, shard: ReferenceShard) -> str:
        return shard.source

    def whose(self, plan: Plan, shard: ReferenceShard) -> str:
        dataset = plan.dataset_of(shard.dataset)
        return f"the full or the empty {dataset.model} on {dataset.task}"


def skills(view: View, dataset: Dataset, source: str) -> Iterator[dict[str, Any]]:
    """The full model's accuracy and logit difference on each member task, once its references are
    committed."""
    patch = view.plan.config.evaluate.eval_patch[0]
    for member, rows in dataset.member_rows("eval").items():
        row: dict[str, Any] = {"model": dataset.model, "task": member, "seed": dataset.seed}
        for metric in ("accuracy", "logit_diff"):
            row[metric] = float(np.mean(view.reference(source, patch, "full", metric)[rows]))
        yield row


def tell_skill(view: View, dataset: Dataset, source: str) -> None:
    """The full model's own accuracy and metric, and a warning where it cannot do the task."""
    for skill in skills(view, dataset, source):
        view.run.log("skill", **plain(skill))
        drawn = f", seed {skill['seed']}" if len(view.plan.config.seeds) > 1 else ""
        view.say(
            f"{skill['model']} on {skill['task']}{drawn}: accuracy {skill['accuracy']:.2f}, "
            f"logit difference {skill['logit_diff']:.3g}"
        )
        if not (skill["accuracy"] >= POOR_ACCURACY and skill["logit_diff"] > 0):
            view.say(
                f"warning: {skill['model']} cannot do {skill['task']}; its circuits explain little"
            )
