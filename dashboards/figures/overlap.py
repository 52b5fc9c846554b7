"""What was found set against each other, as a heatmap."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.series import meta
from edgesweep.dashboards.style import HEAT, styled

HOVER = (
    "%{y}<br>%{x}<br>%{z:.3f}, by chance %{customdata[0]:.3g}<br>over %{customdata[1]:,.0f} edges "
    "or nodes; mean of %{customdata[2]:.0f} pairs<extra></extra>"
)


def overlap_figure(
    rows: pd.DataFrame, across: str, names: Sequence[str], columns: Sequence[str]
) -> go.Figure:
    """A heatmap a (model, task, aggregation), of which the page's menus choose one.

    Args:
        rows: of one measure; columns name_a, name_b, what, value, chance and n beside those of
            overlap.parquet.
        across: `method`, `task` or `seed`, what is compared.
        names: of all cells, in the order in which they are shown.
        columns: what the menus choose by.
    """
    keys = ["model", "task", "aggregation"] if across == "method" else ["model", "aggregation"]
    figure = go.Figure()
    for _, group in rows.groupby(keys, sort=False):
        shown = meta(group.iloc[0].to_dict(), [c for c in columns if c in keys])
        figure.add_trace(_heatmap(group, names, across).update(meta={"part": "heat", **shown}))
    return styled(
        figure,
        height=140 + max(36 * max(len(trace.y) for trace in figure.data), 120),
        xaxis={"type": "category", "dtick": 1, "showgrid": False, "tickangle": -35},
        yaxis={"type": "category", "autorange": "reversed", "showgrid": False},
    )


def _heatmap(rows: pd.DataFrame, names: Sequence[str], across: str) -> go.Heatmap:
    """Methods by methods, each with itself 1; or methods by what they are compared over."""
    used = {*rows["name_a"], *rows["name_b"]}
    names = [name for name in dict.fromkeys(names) if name in used]
    columns, over = list(dict.fromkeys(rows["what"])), "what"
    if across == "method":
        swapped = rows.rename(columns={"name_a": "name_b", "name_b": "name_a"})
        rows, columns, over = pd.concat([rows, swapped]), names, "name_b"
    groups = rows.groupby(["name_a", over])
    told = {c: groups[c].mean() for c in ("value", "chance", "n")} | {"pairs": groups.size()}
    values, *more = (
        table.unstack().reindex(index=names, columns=columns).to_numpy(float, copy=True)
        for table in told.values()
    )
    if across == "method":
        np.fill_diagonal(values, 1.0)
    return go.Heatmap(
        z=values,
        x=columns,
        y=names,
        customdata=np.stack(more, axis=-1),
        xgap=1,
        ygap=1,
        zmin=0,
        zmax=1,
        colorscale=HEAT,
        showscale=False,
        text=[
            [_text(*cell) for cell in zip(*row, strict=True)]
            for row in zip(values, more[0], strict=True)
        ],
        texttemplate="%{text}",
        textfont={"size": 12},
        hoverongaps=False,
        hovertemplate=HOVER,
    )


def _text(value: float, chance: float) -> str:
    """A value, and in brackets what chance would give where that is no 0."""
    if np.isnan(value):
        return ""
    by_chance = "" if np.isnan(chance) or chance == 0 else f"<br>({_small(chance)})"
    return f"{round(value, 2) + 0.0:.2f}{by_chance}"


def _small(chance: float) -> str:
    return f"{chance:.2f}" if chance >= 0.01 else "&lt;0.01"
