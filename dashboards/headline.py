"""What a run may be quoted for: one condition, which its config names, and of it one circuit, which
was chosen on other prompts than those that say how faithful it is (`sweeps.tables.headlines`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import decimal, is_search
from edgesweep.dashboards.series import default_metric
from edgesweep.dashboards.skills import can, skills

#: the axes of a condition, the first decided first, and the section of the config that each is of
AXES = {
    **dict.fromkeys(("model", "task", "nodes", "method", "steps"), "sweep"),
    **dict.fromkeys(("build_patch", "build_metric"), "sweep"),
    **dict.fromkeys(("aggregation", "selection", "ablation", "eval_patch", "metric"), "evaluate"),
}
_SAME = ("cell", "aggregation", "selection", "ablation", "eval_patch", "metric")


@dataclass(frozen=True)
class Headline:
    """The circuit that a run leads with.

    Attributes:
        row: what is told of it on the inputs that lead: of a mixture the mean over its tasks.
        by_subset: φ with its interval, `faithfulness`, `low`, `high`, by subset.
        objection: why nothing may be claimed of it; "" where something may.
    """

    row: pd.Series
    by_subset: Mapping[str, Mapping[str, float]]
    objection: str

    @property
    def tasks(self) -> list[str]:
        """The members of a mixture, in its order; none of a single task."""
        return [s for s in str(self.row["task"]).split("+") if s in self.by_subset]


def condition(data: RunData) -> pd.DataFrame:
    """The results of whole circuits under the run's leading condition: on each axis what the config
    names, else the first of its values that was measured; of methods the first that ranks, and
    searches for no single circuit; of metrics KL, where it was."""
    table = data.results[data.results["blocks"] == "all"]
    named = data.config.get("report", {}).get("headline", {})
    ranks = ~table["cell"].map(lambda cell: is_search(data.cells[cell])).astype(bool)
    if ranks.any() and named.get("method") not in set(table.loc[~ranks, "method"]):
        table = table[ranks]
    for axis, section in AXES.items():
        if table.empty:
            break
        there = list(dict.fromkeys(table[axis]))
        listed = data.config[section].get(axis) or ()
        first = [value for value in listed if value in there] or there
        default = default_metric(table) if axis == "metric" else first[0]
        wanted = named.get(axis)
        table = table[table[axis] == (wanted if wanted in there else default)]
    return table[table["cell"] == table["cell"].iloc[0]] if len(table) else table  # of seeds, one


def headline(data: RunData) -> Headline | None:
    """None where nothing with an edge was measured under the leading condition, or not yet."""
    lead = condition(data)
    if lead.empty or data.headlines.empty:
        return None
    first, rows = lead.iloc[0], data.headlines
    for column in _SAME:
        rows = rows[rows[column] == first[column]]
    if rows.empty:
        return None
    numbers = {
        str(row["subset"]): {name: float(row[name]) for name in ("faithfulness", "low", "high")}
        for row in rows.to_dict("records")
    }
    row = rows[rows["subset"] == ("macro" if "macro" in numbers else "all")].iloc[0]
    return Headline(row, numbers, _objection(data, row))


def _objection(data: RunData, row: pd.Series) -> str:
    """Why a circuit is no news: the model cannot do a task, it overshoots, it does nothing."""
    unable = sorted(
        str(skill["task"])
        for skill in skills(data)
        if can(skill) == "no"
        and skill["model"] == row["model"]
        and skill["task"] in str(row["task"]).split("+")
    )
    if unable:
        return (
            f"{row['model']} cannot do {' and '.join(unable)}, so no circuit explains how it does"
        )
    phi = float(row["faithfulness"])
    if pd.isna(phi):
        return "its faithfulness is not defined on the prompts that report"
    if phi > 1:
        return f"on the prompts that report it does more than the model itself (φ = {decimal(phi)})"
    if phi <= 0:
        return (
            "on the prompts that report it is no better than the empty circuit "
            f"(φ = {decimal(phi)})"
        )
    return ""


def leading(data: RunData) -> pd.Series | None:
    """The measured point that the page leads with: of the headline's circuit, or where there is
    none, of the largest one under its condition; over all inputs, of a mixture the mean of its
    tasks. None where nothing was measured."""
    table = condition(data)
    if table.empty:
        return None
    shown = "macro" if "macro" in set(table["subset"]) else "all"
    table = table[table["subset"] == shown]
    found = headline(data)
    if found is not None:
        return table[table["circuit"] == found.row["circuit"]].iloc[0]
    return table.sort_values("n_selected").iloc[-1] if len(table) else None


def named_in_config(data: RunData) -> bool:
    """Whether the config names anything of the condition."""
    named: Mapping[str, Any] = data.config.get("report", {}).get("headline", {})
    return any(named.get(axis) is not None for axis in AXES)
