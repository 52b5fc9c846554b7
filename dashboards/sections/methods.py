"""The section that compares methods by their whole curve: its area, with an interval, its cost, and
the sizes at which it reaches a faithfulness."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.areas import area_figure, cost_figure
from edgesweep.dashboards.names import share, varying
from edgesweep.dashboards.pages import Figure, Section, Side, Table, entry, legend, marker
from edgesweep.dashboards.searched import Searched
from edgesweep.dashboards.series import meta, named, told_to_menus
from edgesweep.dashboards.style import Mark

#: columns of the table beside the area: measure -> its head
HEADS = {
    "share_log": "of the axis",
    "cpr": "CPR",
    "cmd": "CMD",
    "edges_80": "edges for φ&nbsp;≥&nbsp;0.8",
    "edges_95": "edges for φ&nbsp;≥&nbsp;0.95",
    "cost": "cost in forwards",
    "stability": "stability",
}
#: columns that a search may know better
LEVELS = {"edges_80": 0.8, "edges_95": 0.95}
#: what one curve is, beside its cell
CURVE = ("aggregation", "selection", "ablation", "eval_patch", "metric", "subset")
FIXED = ("cell", "method_name", "model", "task", "nodes", "build_patch", "build_metric", *CURVE)


def section(data: RunData) -> Iterator[Section]:
    """Nothing where no measure was taken."""
    table = curve_measures(data.measures)
    if table.empty:
        return
    table = named(_with_searched(table, Searched(data.reach)))
    columns = told_to_menus(table, data.results)
    names = [name for name in data.marks if name in set(table["method_name"])]
    drawn = {"areas": ("Area under faithfulness", area_figure(table, columns, data.marks))}
    costs = cost_figure(table, columns, data.marks)
    if costs.data:
        drawn["costs"] = ("The same against cost", costs)
    places = [
        Figure(name, figure, words, f"<h3>{words}</h3>") for name, (words, figure) in drawn.items()
    ]
    yield Section(
        "methods",
        "The methods compared",
        "A whole curve in one number: the mean of φ over the logarithm of the size, from the "
        "smallest circuit that was measured to the largest, which rewards small circuits. A size "
        "is how many edges were selected; a circuit of which pruning leaves nothing has φ = 0. "
        "Beside it stands how much of the axis, from one edge to all, was measured: areas over "
        f"other sizes do not compare. {_of_nodes(table)}{_mib(table)}{_told(table, data)}"
        f"{_of_searches(table)} Metric, inputs and the rest are "
        "chosen under <a href='#curves'>Faithfulness against size</a>.",
        (
            legend(*(entry(data.marks[name], name) for name in names)),
            Side(places),
            measures_table(table, columns, data.marks),
        ),
    )


def _of_nodes(table: pd.DataFrame) -> str:
    if table["ablation"].nunique() < 2:
        return ""
    return (
        "Node ablation runs more edges than were selected; the two ablations are compared at equal "
        "φ <a href='#equal'>elsewhere</a>. "
    )


def _mib(table: pd.DataFrame) -> str:
    """What its areas are, where there are any."""
    told = {
        "cpr": "CPR is ∫ φ over the share of edges kept (higher is better), of what ranks first "
        "by signed score",
        "cmd": "CMD is ∫ |1 − φ| (lower is better), of what ranks first by magnitude",
    }
    found = [words for name, words in told.items() if table[name].notna().any()]
    return f"At the ten sizes of MIB, {'; '.join(found)}. " if found else ""


def _with_searched(table: pd.DataFrame, searched: Searched) -> pd.DataFrame:
    """With the sizes that were searched for, in place of those of the thresholds."""
    found = table.to_dict("records") if searched else []
    for row in found:
        for column, level in LEVELS.items():
            if (answer := searched.answer(row, level)) is not None:
                row[column] = answer["n_edges"]
    return pd.DataFrame(found) if found else table


def _told(table: pd.DataFrame, data: RunData) -> str:
    """What the columns mean that not every run has."""
    told = []
    if table["low"].notna().any():
        level = share(data.config["measures"]["level"])
        told.append(f"Bars and ranges are {level} bootstrap intervals over evaluation prompts.")
    if table["cost"].notna().any():
        told.append("Cost counts forward passes of one batch, a backward pass as one.")
    if table["stability"].notna().any():
        told.append(
            "Stability is how alike two disjoint halves of the build prompts rank (Spearman, 1: "
            "the same), in the mean over random halvings with its spread, and how much of the "
            "strongest hundredth they share (Jaccard)."
        )
    return " ".join(told)


def _of_searches(table: pd.DataFrame) -> str:
    if not table["method_name"].str.contains("ACDC").any():
        return ""
    return (
        " A search such as ACDC finds one circuit a τ: its curve has few points, and its areas do "
        "not compare with those of a ranking."
    )


def curve_measures(measures: pd.DataFrame) -> pd.DataFrame:
    """One row a curve, the best first.

    Returns:
        Columns FIXED where the table has them, a column a measure, `low` and `high` of the area,
        `cost` and `all_edges` (what all edges would cost where only some were looked at) in
        forwards, `stability` and `stability_top`, with half of their ranges as `…_spread`. NaN
        where there is none.
    """
    if measures.empty:
        return pd.DataFrame()
    of_curves = measures[measures["metric"] != ""]
    fixed = [c for c in FIXED if c in measures]
    rows = [
        {**dict(zip(fixed, key, strict=True)), **_one_curve(group.set_index("measure"))}
        for key, group in of_curves.groupby(fixed, sort=True)
    ]
    table = pd.DataFrame(rows, columns=None if rows else [*fixed, "area_log"])
    for column, measure in (
        ("cost", "cost_forwards"),
        ("all_edges", "cost_forwards_all_edges"),
        ("stability", "stability"),
        ("stability_top", "stability_top"),
    ):
        of_cell = measures[measures["measure"] == measure].drop_duplicates("cell")
        of_cell = of_cell.set_index("cell")
        table[column] = table["cell"].map(of_cell["value"])
        if column.startswith("stability"):
            spread = (of_cell["high"] - of_cell["low"]) / 2
            table[f"{column}_spread"] = table["cell"].map(spread)
    return table.sort_values("area_log", ascending=False, ignore_index=True, kind="stable")


def _one_curve(found: pd.DataFrame) -> dict[str, float]:
    names = ("area_log", "share_log", "cpr", "cmd", "edges_80", "edges_95")
    values = {m: float(found["value"].get(m, np.nan)) for m in names}
    ends = {end: float(found[end].get("area_log", np.nan)) for end in ("low", "high")}
    return {**values, **ends}


# --- the table ---------------------------------------------------------------------------------


def measures_table(table: pd.DataFrame, columns: list[str], marks: Mapping[str, Mark]) -> Table:
    """A row a curve, which the page's menus choose by `columns`."""
    told = varying(table, ("variant", "ablation", "model", "task"))
    shown = [m for m in HEADS if table.get(m, pd.Series(dtype=float)).notna().any()]
    names = {"variant": "chosen by", "ablation": "ablation", "model": "model", "task": "task"}
    head = ["method", *(names[c] for c in told), "area", *(HEADS[m] for m in shown)]
    found = table.to_dict("records")
    rows = [
        [
            f"{marker(marks[row['method_name']])}{escape(row['method_name'])}",
            *(escape(str(row[c])) for c in told),
            f"{_number(row['area_log'])}{_interval(row)}",
            *(_cell(row, m) for m in shown),
        ]
        for row in found
    ]
    chosen = [meta(row, columns) for row in found]
    return Table(head, rows, range(1 + len(told), len(head)), chosen)


def _cell(row: Mapping[Any, Any], measure: str) -> str:
    value = row[measure]
    if measure.startswith("edges"):
        return "<span class='dim'>not reached</span>" if pd.isna(value) else f"{int(value):,}"
    if measure == "share_log":
        return "" if pd.isna(value) else share(value)
    if measure == "stability":
        return _spread(row, measure) + _small_top(row)
    if measure == "cost":
        rest = row["all_edges"]
        whole = "" if pd.isna(rest) else f"<small>all edges: {_count(rest)}</small>"
        return f"{_count(value)}{whole}"
    return _number(value)


def _spread(row: Mapping[Any, Any], measure: str) -> str:
    """A number, and how far it goes to either side."""
    spread = row.get(f"{measure}_spread", np.nan)
    told = "" if pd.isna(spread) else f"&nbsp;±&nbsp;{spread:.2f}"
    return "" if pd.isna(row[measure]) else f"{row[measure]:.2f}{told}"


def _small_top(row: Mapping[Any, Any]) -> str:
    told = _spread(row, "stability_top")
    return f"<small>strongest: {told}</small>" if told else ""


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{round(value, 3) + 0.0:.3f}"


def _interval(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return ""
    return f"<small>{_number(row['low'])}&nbsp;to&nbsp;{_number(row['high'])}</small>"


def _count(value: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
