"""The section that compares methods by their whole curve: its area, with an interval, its cost, and
the sizes at which it reaches a faithfulness."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.curves import meta, named, told_to_menus
from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import share, varying
from edgesweep.dashboards.pages import Page, choosable, entry, legend, marker
from edgesweep.dashboards.style import Mark, log_ticks, styled

#: columns of the table beside the area: measure -> its head
HEADS = {
    "cpr": "CPR",
    "cmd": "CMD",
    "edges_80": "edges for φ&nbsp;≥&nbsp;0.8",
    "edges_95": "edges for φ&nbsp;≥&nbsp;0.95",
    "cost": "cost in forwards",
    "stability": "stability",
}
#: what one curve is, beside its cell
CURVE = ("aggregation", "selection", "ablation", "eval_patch", "metric", "subset")
Meta = dict[str, str]
FIXED = ("cell", "method_name", "model", "task", "nodes", "build_patch", "build_metric", *CURVE)


def _told(table: pd.DataFrame, data: RunData) -> str:
    """What the columns mean that not every run has."""
    told = []
    if table["low"].notna().any():
        level = share(data.config["measures"]["level"])
        told.append(f"Bars and ranges are {level} bootstrap intervals over evaluation prompts.")
    if table["cost"].notna().any():
        told.append("Cost counts forward passes of one batch, a backward pass as one.")
    if table["stability"].notna().any():
        told.append("Stability is how alike the rankings of resampled prompts are (1: the same).")
    return " ".join(told)


def _of_searches(table: pd.DataFrame) -> str:
    if not table["method_name"].str.contains("ACDC").any():
        return ""
    return (
        " A search such as ACDC finds one circuit a τ: its curve has few points, and its areas do "
        "not compare with those of a ranking."
    )


def add_methods(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where no measure was taken."""
    table = curve_measures(data.measures)
    if table.empty:
        return
    table = named(table)
    columns = told_to_menus(table, data.results)
    names = [name for name in data.marks if name in set(table["method_name"])]
    drawn = {"areas": ("Area under faithfulness", area_figure(table, columns, data.marks))}
    costs = cost_figure(table, columns, data.marks)
    if costs.data:
        drawn["costs"] = ("The same against cost", costs)
    places = [
        f"<div><h3>{words}</h3>{page.figure(name, figure, words)}</div>"
        for name, (words, figure) in drawn.items()
    ]
    page.section(
        "methods",
        "The methods compared",
        "A whole curve in one number. The area under faithfulness against the logarithm of the "
        "size rewards small circuits: higher is better. CPR is the area against the share of edges "
        "kept (higher is better); CMD the area between the curve and the model, |1 − φ| (lower is "
        f"better). {_told(table, data)}{_of_searches(table)} Metric, inputs and the rest are "
        "chosen under <a href='#curves'>Faithfulness against size</a>.",
        legend(*(entry(data.marks[name], name) for name in names)),
        f"<div class='two'>{''.join(places)}</div>",
        _table(table, columns, data.marks),
    )


def curve_measures(measures: pd.DataFrame) -> pd.DataFrame:
    """One row a curve, the best first.

    Returns:
        Columns FIXED where the table has them, a column a measure, `low` and `high` of the area,
        `cost` and `all_edges` (what all edges would cost where only some were looked at) in
        forwards, and `stability`. NaN where there is none.
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
    ):
        of_cell = measures[measures["measure"] == measure].drop_duplicates("cell")
        table[column] = table["cell"].map(of_cell.set_index("cell")["value"])
    return table.sort_values("area_log", ascending=False, ignore_index=True, kind="stable")


def _one_curve(found: pd.DataFrame) -> dict[str, float]:
    names = ("area_log", "cpr", "cmd", "edges_80", "edges_95")
    values = {m: float(found["value"].get(m, np.nan)) for m in names}
    ends = {end: float(found[end].get("area_log", np.nan)) for end in ("low", "high")}
    return {**values, **ends}


# --- the table ---------------------------------------------------------------------------------


def _table(table: pd.DataFrame, columns: list[str], marks: Mapping[str, Mark]) -> str:
    told = varying(table, ("variant", "ablation", "model", "task"))
    heads = [h for m, h in HEADS.items() if table.get(m, pd.Series(dtype=float)).notna().any()]
    shown = [m for m in HEADS if HEADS[m] in heads]
    names = {"variant": "chosen by", "ablation": "ablation", "model": "model", "task": "task"}
    head = "".join(f"<th>{h}</th>" for h in ("method", *(names[c] for c in told)))
    head += "".join(f"<th class=n>{h}</th>" for h in ("area", *heads))
    body = []
    for row in table.to_dict("records"):
        cells = f"<td>{marker(marks[row['method_name']])}{escape(row['method_name'])}</td>"
        cells += "".join(f"<td>{escape(str(row[c]))}</td>" for c in told)
        cells += f"<td class=n>{_number(row['area_log'])}{_interval(row)}</td>"
        cells += "".join(f"<td class=n>{_cell(row, m)}</td>" for m in shown)
        body.append(f"<tr {choosable(meta(row, columns))}>{cells}</tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(body)}</table></div>"


def _cell(row: Mapping[Any, Any], measure: str) -> str:
    value = row[measure]
    if measure.startswith("edges"):
        return "<span class='dim'>not reached</span>" if pd.isna(value) else f"{int(value):,}"
    if measure == "cost":
        rest = row["all_edges"]
        whole = "" if pd.isna(rest) else f"<small>all edges: {_count(rest)}</small>"
        return f"{_count(value)}{whole}"
    return _number(value)


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


# --- figures -----------------------------------------------------------------------------------


def area_figure(table: pd.DataFrame, columns: list[str], marks: Mapping[str, Mark]) -> go.Figure:
    """The area of every curve with its interval, the best on top.

    Args:
        table: as `curve_measures` and `named` leave it.
        columns: what the page's menus choose by.
    """
    figure = go.Figure()
    for rows, own in _groups(table[table["area_log"].notna()], columns):
        figure.add_scatter(
            x=rows["area_log"],
            y=rows["series"],
            error_x=_bars(rows),
            hovertemplate="<b>%{y}</b><br>area %{x:.3f}%{customdata}<extra></extra>",
            customdata=[
                "" if pd.isna(low) else f", {low:.3f} to {high:.3f}"
                for low, high in zip(rows["low"], rows["high"], strict=True)
            ],
            **_look(rows, own, marks),
        )
    return styled(
        figure,
        height=96 + 30 * table["series"].nunique(),
        xaxis={"title": {"text": "area"}},
        yaxis={"type": "category", "categoryorder": "max ascending", "gridwidth": 1},
    )


def cost_figure(table: pd.DataFrame, columns: list[str], marks: Mapping[str, Mark]) -> go.Figure:
    """Area against cost. What costs nothing has no place on a logarithmic axis."""
    figure = go.Figure()
    for rows, own in _groups(table[table["area_log"].notna() & (table["cost"] > 0)], columns):
        figure.add_scatter(
            x=rows["cost"],
            y=rows["area_log"],
            error_y=_bars(rows),
            hovertext=rows["series"],
            hovertemplate="<b>%{hovertext}</b><br>area %{y:.3f}<br>%{x:,.4~g} forwards"
            "<extra></extra>",
            **_look(rows, own, marks),
        )
    return styled(
        figure,
        height=max(340, 96 + 30 * table["series"].nunique()),
        xaxis={
            "title": {"text": "cost in forwards of one batch"},
            "type": "log",
            "exponentformat": "power",
            **log_ticks(table["cost"]),
        },
        yaxis={"title": {"text": "area"}},
    )


def _groups(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[pd.DataFrame, Meta]]:
    """Rows that the menus choose together, by ablation, and what the menus choose them by."""
    if table.empty:
        return
    for _, rows in table.groupby(list(dict.fromkeys([*columns, "ablation"])), sort=True):
        yield rows, meta(rows.iloc[0].to_dict(), columns)


def _look(rows: pd.DataFrame, own: Meta, marks: Mapping[str, Mark]) -> dict[str, Any]:
    looks = [marks[name] for name in rows["method_name"]]
    ablation = rows["ablation"].iloc[0]
    ring = "" if ablation == "edge" else "-open"
    return {
        "mode": "markers",
        "name": f"{ablation} ablation",
        "marker": {
            "size": 10,
            "color": [look.colour for look in looks],
            "symbol": [look.symbol + ring for look in looks],
        },
        "meta": own,
    }


def _bars(rows: pd.DataFrame) -> dict[str, Any]:
    value = rows["area_log"].to_numpy()
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(rows["high"].to_numpy() - value),
        "arrayminus": np.nan_to_num(value - rows["low"].to_numpy()),
        "color": "#8A8F96",
        "thickness": 1.5,
        "width": 4,
    }
