"""Figures of what grows in training: panels one above another, over one axis of steps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.style import AXIS, HEAT, log_ticks, styled

#: pixels of a panel, and of what lies between two
PANEL, GAP = 150, 26
#: of a spectrum, how many places are drawn, and how many decades below its largest
PLACES, DECADES = 24, 6.0


@dataclass(frozen=True)
class Panel:
    """What has one axis of its own, and its lines' names beside it."""

    title: str
    traces: Sequence[go.Scatter | go.Heatmap]
    axis: Mapping[str, Any] = field(default_factory=dict)


def stacked(panels: Sequence[Panel]) -> go.Figure:
    """Panels from the top down, over the same steps."""
    figure, layout = go.Figure(), dict[str, Any]()
    height = len(panels) * PANEL + (len(panels) - 1) * GAP
    for place, panel in enumerate(panels):
        number = "" if place == 0 else str(place + 1)
        top = 1 - place * (PANEL + GAP) / height
        domain = [max(0.0, top - PANEL / height), top]
        layout[f"yaxis{number}"] = {
            **AXIS,
            **panel.axis,
            "domain": domain,
            "title": {"text": panel.title},
        }
        layout[f"legend{number}"] = {"x": 1.01, "y": top, "yanchor": "top", "font": {"size": 12}}
        for trace in panel.traces:
            trace.update(yaxis=f"y{number}")
            if isinstance(trace, go.Scatter):
                trace.update(legend=f"legend{number}")
            figure.add_trace(trace)
    yaxis = layout.pop("yaxis")
    last = "" if len(panels) == 1 else str(len(panels))
    steps = [step for panel in panels for trace in panel.traces for step in trace.x]
    room = 0.02 * (max(steps) - min(steps))
    xaxis = {
        "title": {"text": "step"},
        "anchor": f"y{last}",
        "showspikes": True,
        "range": [min(steps) - room, max(steps) + room],
    }
    return styled(
        figure,
        height + 62,
        xaxis=xaxis,
        yaxis=yaxis,
        showlegend=True,
        hovermode="x",
        **layout,
    )


def lines(
    rows: pd.DataFrame, value: str, names: Mapping[str, str], ends: tuple[str, str] | None = None
) -> list[go.Scatter]:
    """A line a name, against the step.

    Args:
        rows: with columns `step`, `name` and the value.
        names: of the lines, in their order, and their colours.
        ends: columns of an interval.
    """
    found = []
    for name, colour in names.items():
        mine = rows[rows["name"] == name].sort_values("step")
        spread = None if ends is None else _spread(mine, value, ends)
        found.append(
            go.Scatter(
                x=mine["step"],
                y=mine[value],
                error_y=spread,
                mode="lines+markers",
                name=name,
                line={"color": colour, "width": 2},
                marker={"size": 5},
                hovertemplate="%{y:.4g}<extra>%{fullData.name}</extra>",
            )
        )
    return found


def _spread(rows: pd.DataFrame, value: str, ends: tuple[str, str]) -> dict[str, Any]:
    low, high = (rows[value] - rows[ends[0]], rows[ends[1]] - rows[value])
    shape = {"type": "data", "symmetric": False, "thickness": 1, "width": 2}
    return {**shape, "array": high.clip(lower=0), "arrayminus": low.clip(lower=0)}


def spectrum_heat(rows: pd.DataFrame, title: str) -> Panel:
    """The first eigenvalues of a layer at each step, relative to the largest of then."""
    table = rows[rows["place"] < PLACES].pivot_table(index="place", columns="step", values="value")
    largest = table.max(axis=0).replace(0.0, np.nan)
    shares = (table / largest).clip(lower=10.0**-DECADES)
    heat = go.Heatmap(
        x=shares.columns,
        y=shares.index + 1,
        z=np.log10(shares.to_numpy()),
        zmin=-DECADES,
        zmax=0,
        colorscale=HEAT,
        showscale=False,
        meta={"part": "heat"},
        hovertemplate="step %{x}, direction %{y}: 10<sup>%{z:.2f}</sup> of the largest"
        "<extra></extra>",
    )
    return Panel(title, [heat], {"autorange": "reversed", "showgrid": False})


def decades(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis."""
    return {"type": "log", "exponentformat": "power", **log_ticks(values)}
