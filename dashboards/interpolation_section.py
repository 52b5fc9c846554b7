"""The section of single edges on their way from clean to patch (Syed et al. 2023, figures 4b and
9)."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import cell_names, metric_name
from edgesweep.dashboards.pages import Page, choosable, legend, select, stroke
from edgesweep.dashboards.style import OTHER, POSITIVE, styled

#: edges drawn of one cell and metric, in the order of their effect
MAX_EDGES = 12
#: the name by which this section's own menu chooses
MENU = "interpolation_of"


def add_interpolation(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where no edge was moved."""
    if data.interpolation.empty:
        return
    names = cell_names(data.plan["cells"])
    shown = data.interpolation.assign(told=data.interpolation["estimate"].isna())
    shown = shown.sort_values(["told", "cell", "metric"])  # first those that a score predicts
    shown = shown[["cell", "metric"]].drop_duplicates()
    options = {
        f"{cell} {metric}": f"{names.get(cell, cell)}, {metric_name(metric)}"
        for cell, metric in shown.itertuples(index=False, name=None)
    }
    panels = _panels(data.interpolation)
    places = "".join(_place(page, i, rows) for i, rows in enumerate(panels))
    page.section(
        "interpolation",
        "From clean to patch, edge by edge",
        "One edge at a time is moved from its clean value (left) to its patch value (right), while "
        "everything else stays free to react. The solid line is how the metric changes, upwards "
        "for the better; the dashed line is what the score predicts, straight because it knows one "
        "slope only. Where the two part, the score misjudges the edge. The scale is each panel's "
        f"own. Shown are the {len(panels)} edges with the largest effect.",
        _menu(options),
        legend(stroke("solid", "measured"), stroke("dash", "predicted by the score")),
        f"<div class='many'>{places}</div>",
        link="From clean to patch",
    )


def _menu(options: dict[str, str]) -> str:
    if len(options) < 2:
        return ""
    menu = select(options, next(iter(options)), f"id='{MENU}' data-choose='{MENU}'")
    return f"<div class='controls'><label>estimate {menu}</label></div>"


def _panels(table: pd.DataFrame) -> list[list[pd.DataFrame]]:
    """The edges of each panel: the n-th strongest of every cell and metric."""
    panels: list[list[pd.DataFrame]] = []
    for _, rows in table.groupby(["cell", "metric"], sort=True):
        edges = [group.sort_values("fraction") for _, group in rows.groupby("edge")]
        edges.sort(key=lambda group: -group["change"].abs().max())
        for i, group in enumerate(edges[:MAX_EDGES]):
            if i == len(panels):
                panels.append([])
            panels[i].append(group)
    return panels


def _place(page: Page, number: int, groups: list[pd.DataFrame]) -> str:
    titles = "".join(f"<h3 {choosable(_meta(g))}>{escape(_edge(g))}</h3>" for g in groups)
    told = _edge(groups[0])
    figure = page.figure(f"interpolation{number}", interpolation_figure(groups), told)
    return f"<div>{titles}{figure}</div>"


def _meta(rows: pd.DataFrame) -> dict[str, str]:
    return {MENU: f"{rows['cell'].iloc[0]} {rows['metric'].iloc[0]}"}


def _edge(rows: pd.DataFrame) -> str:
    return f"{rows['source'].iloc[0]} → {rows['target'].iloc[0]}"


def interpolation_figure(groups: list[pd.DataFrame]) -> go.Figure:
    """The change of the metric against the fraction, measured and predicted.

    Args:
        groups: rows of one edge each, of which the menu chooses one.
    """
    figure = go.Figure()
    for rows in groups:
        for column, colour, dash in (("estimate", OTHER, "dash"), ("change", POSITIVE, "solid")):
            figure.add_scatter(
                x=rows["fraction"],
                y=rows[column],
                mode="lines+markers" if column == "change" else "lines",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 5},
                name={"change": "measured", "estimate": "predicted"}[column],
                hovertemplate="%{fullData.name} %{y:.3g}<br>%{x:.2g} of the way<extra></extra>",
                meta=_meta(rows),
            )
    return styled(
        figure,
        height=180,
        margin={"l": 40, "r": 8, "t": 6, "b": 24},
        xaxis={
            "tickvals": [0, 0.5, 1],
            "ticktext": ["clean", "½", "patch"],
            "range": [-0.05, 1.17],  # or the last label has no room on a phone
        },
        yaxis={"nticks": 5},
    )
