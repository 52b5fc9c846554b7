"""Whole curves in one number each: their areas, and what these cost."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.series import meta
from edgesweep.dashboards.style import Mark, log_ticks, styled

Meta = dict[str, str]


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
        xaxis={"title": {"text": "mean φ over log size"}},
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
        yaxis={"title": {"text": "mean φ over log size"}},
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
