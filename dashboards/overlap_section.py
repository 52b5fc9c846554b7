"""The section that sets methods against each other: how alike they rank edges, and how many of the
strongest they share."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.curves import meta, told_to_menus
from dashboards.data import RunData
from dashboards.names import cell_names
from dashboards.pages import Page
from dashboards.style import HEAT, styled

RANKS = "how alike they rank all edges (Spearman)"


def add_overlap(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where there are no two methods."""
    figures = overlap_figures(data)
    if not figures:
        return
    page.section(
        "overlap",
        "Methods against each other",
        "Do two methods find the same edges? The rank correlation compares their whole order, over "
        "the edges that both measured (1: the same order, 0: unrelated). The overlap takes as many "
        "of each method's strongest edges: what both have, of what either has (Jaccard; 1: the "
        "same). Methods that score nodes are compared among themselves, by nodes.",
        page.chooser("overlaps", "compare", figures, next(iter(figures))),
    )


def overlap_figures(data: RunData) -> dict[str, go.Figure]:
    """Title -> a heatmap a (model, task, aggregation), of which the page's menus choose one."""
    found: dict[str, go.Figure] = {}
    if data.overlap.empty:
        return found
    table = data.overlap[data.overlap["measure"].isin(["spearman", "jaccard"])]
    columns = told_to_menus(table, data.results)
    for (measure, size), rows in table.groupby(["measure", "size"], sort=False):
        figure = go.Figure()
        for _, group in rows.groupby(["model", "task", "aggregation"], sort=False):
            figure.add_trace(_heatmap(group, data).update(meta=_meta(group, columns)))
        title = RANKS if measure == "spearman" else f"overlap of the top {size:,}"
        n_methods = max(len(trace.y) for trace in figure.data)
        found[title] = styled(
            figure,
            height=140 + max(28 * n_methods, 120),
            xaxis={"type": "category", "dtick": 1, "showgrid": False, "tickangle": -35},
            yaxis={"type": "category", "autorange": "reversed", "showgrid": False},
        )
    return dict(sorted(found.items(), key=lambda item: item[0] != RANKS))


def _meta(rows: pd.DataFrame, columns: list[str]) -> dict[str, str]:
    return {"part": "heat", **meta(rows.iloc[0].to_dict(), columns)}


def _heatmap(rows: pd.DataFrame, data: RunData) -> go.Heatmap:
    """One heatmap: methods that score edges first, each with itself 1."""
    used = {*rows["cell_a"], *rows["cell_b"]}
    cells = [c for c in data.cells if c in used]
    cells.sort(key=data.scores_nodes)  # keeps the plan's order among either
    names = cell_names([data.cells[c] for c in cells])
    values = np.full((len(cells), len(cells)), np.nan)
    np.fill_diagonal(values, 1.0)
    for a, b, value in zip(rows["cell_a"], rows["cell_b"], rows["value"], strict=True):
        values[cells.index(a), cells.index(b)] = values[cells.index(b), cells.index(a)] = value
    shown = [names[c] for c in cells]
    return go.Heatmap(
        z=values,
        x=shown,
        y=shown,
        xgap=1,
        ygap=1,
        zmin=0,
        zmax=1,
        colorscale=HEAT,
        showscale=False,
        text=[["" if np.isnan(v) else f"{round(v, 2) + 0.0:.2f}" for v in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": 12},
        hoverongaps=False,
        hovertemplate="%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
    )
