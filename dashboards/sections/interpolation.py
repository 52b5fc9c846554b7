"""The section of single edges on their way from clean to patch (Syed et al. 2023, figures 4b and
9)."""

from collections.abc import Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.interpolation import MENU, chosen_by, interpolation_figure
from edgesweep.dashboards.names import metric_name
from edgesweep.dashboards.pages import Figure, Section, Side, choosable, legend, select, stroke

#: edges drawn of one cell and metric, in the order of their effect
MAX_EDGES = 12


def section(data: RunData) -> Iterator[Section]:
    """Nothing where no edge was moved."""
    if data.interpolation.empty:
        return
    panels = _panels(data.interpolation)
    yield Section(
        "interpolation",
        "From clean to patch, edge by edge",
        "One edge at a time is moved from its clean value (left) to its patch value (right), while "
        "everything else stays free to react. The solid line is how the metric changes, upwards "
        "for the better; the dashed line is what the score predicts, straight because it knows one "
        "slope only. Where the two part, the score misjudges the edge. The scale is each panel's "
        f"own. Shown are the {len(panels)} edges with the largest effect.",
        (
            _menu(_options(data)),
            legend(stroke("solid", "measured"), stroke("dash", "predicted by the score")),
            Side([_place(i, rows) for i, rows in enumerate(panels)], "many"),
        ),
        link="From clean to patch",
    )


def _options(data: RunData) -> dict[str, str]:
    """Values of the menu with their texts; first those that a score predicts."""
    shown = data.interpolation.assign(told=data.interpolation["estimate"].isna())
    shown = shown.sort_values(["told", "cell", "metric"])
    shown = shown[["cell", "metric"]].drop_duplicates()
    return {
        f"{cell} {metric}": f"{data.cell_names.get(cell, cell)}, {metric_name(metric)}"
        for cell, metric in shown.itertuples(index=False, name=None)
    }


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


def _place(number: int, groups: list[pd.DataFrame]) -> Figure:
    head = "".join(f"<h3 {choosable(chosen_by(g))}>{escape(_edge(g))}</h3>" for g in groups)
    figure = interpolation_figure(groups)
    return Figure(f"interpolation{number}", figure, _edge(groups[0]), head)


def _edge(rows: pd.DataFrame) -> str:
    return f"{rows['source'].iloc[0]} → {rows['target'].iloc[0]}"
