"""Intervals over build and evaluation prompts together, and methods in pairs on the same resamples
of both (`measures.rebuild`; `engine.statistics.nested`).

Of a mixture also φ of its tasks in the mean and of the worst of them: of each resample that of all
of its tasks, each with evaluation prompts drawn for itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine.curves import areas
from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.measures import faithfulness_samples
from edgesweep.engine.statistics.nested import Nested, nested, wins
from edgesweep.storage import layout
from edgesweep.sweeps.plan.rebuilding import rebuilt_condition, rebuilt_specs
from edgesweep.sweeps.plan.subsets import MACRO, OVER_TASKS
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View

#: resamples of the evaluation prompts where a config asks for none
RESAMPLES = 200
AREA = "area_log"


@dataclass(frozen=True)
class Samples:
    """φ of a cell's circuits by one metric on one subset of the inputs, and of its resamples.

    Attributes:
        value: `[circuit]`.
        build: on all inputs, of each resample of the build prompts `[rebuilt, circuit]`.
        evaluation: of each resample of the evaluation prompts `[resample, circuit]`.
        both: of each of both `[resample, rebuilt, circuit]`.
    """

    value: np.ndarray
    build: np.ndarray
    evaluation: np.ndarray
    both: np.ndarray

    def area(self, selected: np.ndarray) -> Samples:
        """The areas over log size in place of φ, `[…]`; circuits stand where they were asked for,
        by the edges that all build prompts selected."""
        parts = self.value, self.build, self.evaluation, self.both
        return Samples(*(np.asarray(areas.mean_over_log_size(selected, p)) for p in parts))

    @classmethod
    def over(cls, tasks: Sequence[Samples], how: str) -> Samples:
        """Their mean (`macro`), or the least of them (`worst`), resample by resample."""
        parts = [np.stack(of_tasks) for of_tasks in zip(*map(_parts, tasks), strict=True)]
        return cls(*(part.mean(0) if how == MACRO else part.min(0) for part in parts))


def rebuilt_rows(view: View, cell: Cell) -> Iterator[Row]:
    """Rows of rebuilt.parquet: φ of each circuit, and the area under them."""
    specs = rebuilt_specs(view.plan, cell)
    for subset, metric, fixed in _curves(view, cell):
        samples = _samples(view, cell, subset, metric)
        if samples is None:
            continue
        found = _interval(view, cell, subset, samples)
        for i, spec in enumerate(specs):
            yield {**fixed, "measure": "faithfulness", "threshold": spec.threshold} | _at(found, i)
        of_area = _interval(view, cell, subset, samples.area(_selected(view, cell)))
        yield {**fixed, "measure": AREA, "threshold": 0.0} | _at(of_area, None)


def pairs(view: View, cells: Iterable[Cell]) -> Iterator[pd.DataFrame]:
    """Rows of pairs.parquet: the area of one method less that of another, cells of one dataset."""
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        is_done = all(view.is_whole(stage, cell) for stage in ("rebuild", "rebuild_evaluate"))
        if rebuilt_specs(view.plan, cell) and is_done:
            groups.setdefault((cell.model, cell.dataset), []).append(cell)
    for group in groups.values():
        for subset, metric, _ in _curves(view, group[0]):
            yield pd.DataFrame(list(_compared(view, group, subset, metric)))


def _compared(view: View, cells: list[Cell], subset: str, metric: str) -> Iterator[Row]:
    found: dict[Cell, Samples] = {}
    for cell in cells[: view.plan.config.measures.overlap]:
        samples = _samples(view, cell, subset, metric)
        if samples is not None:
            found[cell] = samples.area(_selected(view, cell))
    for (a, of_a), (b, of_b) in itertools.combinations(found.items(), 2):
        less = Samples(*(x - y for x, y in zip(_parts(of_a), _parts(of_b), strict=True)))
        told = _at(_interval(view, a, subset, less), None)
        yield {
            **_fixed(view, a, subset, metric, named=False),
            "measure": AREA,
            "cell_a": a.key,
            "cell_b": b.key,
            "method_a": a.method,
            "method_b": b.method,
            "wins": wins(of_a.both, of_b.both),
            **told,
        }


def _parts(samples: Samples) -> tuple[np.ndarray, ...]:
    return samples.value, samples.build, samples.evaluation, samples.both


# --- what was measured --------------------------------------------------------------------------


def _curves(view: View, cell: Cell) -> Iterator[tuple[str, str, Row]]:
    """Subset and metric of each curve, and what stands in its rows."""
    subsets = view.plan.dataset(cell).subsets
    for subset in (*subsets, *(OVER_TASKS if len(subsets) > 1 else ())):
        for metric in view.plan.config.evaluate.metric:
            yield subset, metric, _fixed(view, cell, subset, metric, named=True)


def _fixed(view: View, cell: Cell, subset: str, metric: str, *, named: bool) -> Row:
    """What a row says of its curve; `named`: and of its cell."""
    condition, spec = rebuilt_condition(view.plan.config), rebuilt_specs(view.plan, cell)[0]
    of_cell = {"cell": cell.key, "method": cell.method, "steps": cell.steps or 0}
    return {
        **(of_cell if named else {}),
        "model": cell.model,
        "task": cell.task,
        "seed": view.plan.dataset(cell).seed,
        "build_patch": cell.build_patch if named else "",
        "build_metric": cell.build_metric if named else "",
        "aggregation": spec.aggregation,
        "selection": spec.selection,
        "ablation": condition.ablation,
        "eval_patch": condition.eval_patch,
        "metric": metric,
        "subset": subset,
        "n_rebuilt": view.plan.config.measures.rebuild,
    }


def _samples(view: View, cell: Cell, subset: str, metric: str) -> Samples | None:
    """None where a value or a reference is not committed."""
    if subset not in OVER_TASKS:
        return _of_inputs(view, cell, subset, metric, view.plan.config.seed)
    found = [
        _of_inputs(view, cell, member, metric, view.plan.config.seed + 1 + number)
        for number, member in enumerate(view.plan.dataset(cell).members)
    ]
    tasks = [samples for samples in found if samples is not None]
    return Samples.over(tasks, subset) if len(tasks) == len(found) else None


def _of_inputs(view: View, cell: Cell, subset: str, metric: str, seed: int) -> Samples | None:
    """Of the inputs of a member, or of all."""
    config, condition = view.plan.config, rebuilt_condition(view.plan.config)
    rows, groups = _inputs(view, cell, subset, "eval")
    place = config.evaluate.metric.index(metric)
    name = layout.rebuilt(cell.key, "values")
    again = view.committed.read(layout.EVALUATIONS, name)[rows][..., place]
    specs, patch = rebuilt_specs(view.plan, cell), condition.eval_patch
    own = np.stack([view.values(cell, s.key, condition, metric)[rows] for s in specs], axis=1)
    full, empty = (view.reference(cell.source, patch, side, metric)[rows] for side in layout.SIDES)
    if np.isnan(own).any() or np.isnan(full).any() or np.isnan(empty).any():
        return None
    values = np.concatenate([own[:, None], again], axis=1)  # the first is of all build prompts
    n = config.measures.bootstrap or RESAMPLES
    flat = values.reshape(len(values), -1)
    drawn = faithfulness_samples(flat, full, empty, n=n, seed=seed, groups=groups)
    drawn = drawn.reshape(n, *values.shape[1:])
    mean_full, mean_empty = float(np.mean(full)), float(np.mean(empty))
    phi = np.array([faithfulness(float(v), mean_full, mean_empty) for v in flat.mean(0)])
    phi = phi.reshape(values.shape[1:])
    return Samples(phi[0], phi[1:], drawn[:, 0], drawn[:, 1:])


def _inputs(view: View, cell: Cell, subset: str, split: str) -> tuple[slice, np.ndarray]:
    """The inputs of a subset, and the member of each."""
    members = view.plan.dataset(cell).member_rows(split)
    rows = members.get(subset, slice(0, max(mine.stop for mine in members.values())))
    sizes = [mine.stop - mine.start for mine in members.values()]
    return rows, np.repeat(np.arange(len(sizes)), sizes)[rows]


def _selected(view: View, cell: Cell) -> np.ndarray:
    """Edges of each circuit of all build prompts."""
    specs = rebuilt_specs(view.plan, cell)
    return np.array([view.n_selected(cell, spec.key) for spec in specs])


def _interval(view: View, cell: Cell, subset: str, samples: Samples) -> Nested:
    n_build = len(_inputs(view, cell, "all", "build")[1])
    one = view.plan.dataset(cell).members[0] if subset in OVER_TASKS else subset
    n_eval = len(_inputs(view, cell, one, "eval")[1])
    level = view.plan.config.measures.level
    return nested(
        samples.value,
        samples.build,
        samples.evaluation,
        n_build=n_build,
        n_eval=n_eval,
        level=level,
    )


def _at(found: Nested, place: int | None) -> dict[str, Any]:
    names = ("value", "low", "high", "spread_build", "spread_evaluation")
    of = {name: np.asarray(getattr(found, name)) for name in names}
    return {name: float(v if place is None else v[place]) for name, v in of.items()}
