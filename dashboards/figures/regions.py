"""Regions of interest: accuracy without the strongest of them, what each class loses, what they say
of each class and what they see (*Emerging Structures in Computational Graphs*, figures 6 to 8, 13,
14)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from edgesweep.dashboards.style import AXIS, HEAT, KNOWN, Mark, styled

#: by partition
MARKS = {
    "sbm": Mark("#D55E00", "circle"),
    "singletons": Mark("#2A2F36", "star"),
    "ward": Mark("#0072B2", "square"),
    "kmeans": Mark("#2FA4DC", "diamond"),
    "spectral": Mark("#8A5CC2", "triangle-up"),
    "spectral_svd": Mark("#C9599C", "triangle-down"),
    "cocluster": Mark("#009E73", "cross"),
    "random": Mark("#8A8F96", "x"),
}
NAMES = {
    "sbm": "block model",
    "singletons": "single units",
    "ward": "Ward",
    "kmeans": "k-means",
    "spectral": "spectral",
    "spectral_svd": "spectral, as published",
    "cocluster": "co-clusters",
    "random": "random",
}
GONE = {"ablate": "gone", "keep": "kept"}
DIVERGING = [[0, "#B9702A"], [0.5, "#f7f7f7"], [1, "#1B958A"]]
BAND = "rgba(138,143,150,0.28)"


def name_of(partition: str, n_blocks: int) -> str:
    """A partition as people read it."""
    return f"{NAMES.get(partition, partition)} ({n_blocks})"


def curve_figure(rows: pd.DataFrame, published: Sequence[Sequence[float]] = ()) -> go.Figure:
    """Accuracy against the share of regions, and of units, that are gone or kept; random blocks as
    a band from the least to the largest of their draws.

    Args:
        rows: of `region_ablation`, of one side and patch.
        published: points (share of regions, accuracy) that are marked.
    """
    figure, side = make_subplots(1, 2, shared_yaxes=True), str(rows["side"].iloc[0])
    units = rows["share_of_units"] if side == "ablate" else 1 - rows["share_of_units"]
    rows = rows.assign(units=units, regions=rows["n_regions"] / rows["n_blocks"])
    for partition, mine in rows.groupby("partition", sort=False):
        told = name_of(str(partition), mine["n_blocks"].iloc[0])
        for column, axis in enumerate(("regions", "units"), 1):
            for trace in _curve(mine, axis, str(partition), told, column == 1):
                figure.add_trace(trace, 1, column)
    if published:
        x, y = zip(*published, strict=True)
        look = {"color": KNOWN, "symbol": "circle-open", "size": 9, "line": {"width": 2}}
        marked = go.Scatter(x=x, y=y, mode="markers", marker=look, name="published")
        figure.add_trace(marked, 1, 1)
    ends = {"range": [-0.02, 1.02]}
    return styled(
        figure,
        460,
        xaxis={**ends, "title": {"text": f"share of regions {GONE[side]}"}, "domain": [0, 0.48]},
        yaxis={**ends, "title": {"text": "accuracy"}},
        xaxis2={
            **AXIS,
            **ends,
            "title": {"text": f"share of units {GONE[side]}"},
            "domain": [0.52, 1],
        },
        showlegend=True,
        legend={"orientation": "h", "y": -0.2},
    )


def _curve(
    rows: pd.DataFrame, axis: str, partition: str, told: str, legend: bool
) -> list[go.Scatter]:
    by_tau = rows.groupby("tau")
    x, value = by_tau[axis].mean().to_numpy(), by_tau["value"]
    mark, traces = MARKS.get(partition, Mark("#888888", "circle")), []
    if rows["draw"].nunique() > 1:
        low, high = value.min().to_numpy(), value.max().to_numpy()
        band = {"fill": "toself", "mode": "lines", "line": {"width": 0}, "fillcolor": BAND}
        around = {"x": np.concatenate([x, x[::-1]]), "y": np.concatenate([high, low[::-1]])}
        hidden: dict[str, Any] = {"hoverinfo": "skip", "showlegend": False}
        traces.append(go.Scatter(**around, **band, **hidden, legendgroup=told))
    traces.append(
        go.Scatter(
            x=x,
            y=value.mean().to_numpy(),
            name=told,
            legendgroup=told,
            showlegend=legend,
            mode="lines+markers",
            line={"color": mark.colour, "width": 2},
            marker={"size": 6, "symbol": mark.symbol},
            hovertemplate="%{x:.1%}: %{y:.3f}<extra>%{fullData.name}</extra>",
        )
    )
    return traces


def class_figure(rows: pd.DataFrame, name: Callable[[int], str] = str) -> go.Figure:
    """Accuracy on each class (columns) without the regions of a class (rows), and with only
    these."""
    figure = make_subplots(1, 2, shared_yaxes=True)
    for column, side in enumerate(("without", "only"), 1):
        mine = rows[rows["side"] == side]
        table = mine.pivot_table(index="of", columns="on", values="value", dropna=False)
        heat = go.Heatmap(
            z=table.to_numpy(),
            x=[name(int(c)) for c in table.columns],
            y=[name(int(c)) for c in table.index],
            zmin=0,
            zmax=1,
            colorscale=HEAT,
            showscale=column == 2,
            hovertemplate=f"{side} class %{{y}}, on %{{x}}: %{{z:.3f}}<extra></extra>",
        )
        figure.add_trace(heat, 1, column)
    axis = {"type": "category", "dtick": 1, "showgrid": False}
    return styled(
        figure,
        440,
        xaxis={**axis, "title": {"text": "without · accuracy on class"}, "domain": [0, 0.48]},
        yaxis={**axis, "title": {"text": "regions of class"}, "autorange": "reversed"},
        xaxis2={
            **AXIS,
            **axis,
            "title": {"text": "with only · accuracy on class"},
            "domain": [0.52, 1],
        },
        yaxis2={**AXIS, **axis, "autorange": "reversed", "matches": "y", "showticklabels": False},
    )


def attribution_figure(rows: pd.DataFrame, name: Callable[[int], str] = str) -> go.Figure:
    """Mean attribution of each region (rows, by its class) on each class."""
    table = rows.pivot_table(index="roi", columns="class", values="attribution", dropna=False)
    label = rows.groupby("roi")["label"].first().reindex(table.index).to_numpy()
    values = table.to_numpy(dtype=float)
    order = np.lexsort((-np.nanmax(values, 1), label))
    values, limit = values[order], float(np.nanmax(np.abs(values))) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[name(int(c)) for c in table.columns],
            y=[f"roi{r}" for r in table.index[order]],
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            hovertemplate="%{y} on class %{x}: %{z:.3g}<extra></extra>",
        )
    )
    return styled(
        figure,
        height=int(np.clip(160 + 12 * len(table), 300, 760)),
        xaxis={"type": "category", "dtick": 1, "title": {"text": "class"}, "showgrid": False},
        yaxis={
            "title": {"text": "region"},
            "showticklabels": len(table) <= 50,
            "autorange": "reversed",
            "showgrid": False,
        },
    )


def view_figure(
    pictures: Mapping[str, np.ndarray], inputs: Mapping[str, Sequence[np.ndarray]]
) -> go.Figure:
    """A row a region: what it sees, in the mean over inputs of its class, and the inputs of which
    it says most.

    Args:
        pictures: by the region's name, `[row, column]`.
        inputs: `[row, column]` of grey ones in 0 to 1, or `[3, row, column]`.
    """
    n = 1 + max(map(len, inputs.values()), default=0)
    figure = make_subplots(
        len(pictures), n, row_titles=list(pictures), horizontal_spacing=0.01, vertical_spacing=0.004
    )
    for row, (name, picture) in enumerate(pictures.items(), 1):
        limit = float(np.abs(picture).max()) or 1.0
        look = {"zmin": -limit, "zmax": limit, "colorscale": DIVERGING, "showscale": False}
        seen = go.Heatmap(z=picture, **look, hovertemplate="%{z:.2g}<extra></extra>")
        figure.add_trace(seen, row, 1)
        for column, image in enumerate(inputs[name], 2):
            figure.add_trace(_image(image), row, column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    for row in range(len(pictures)):
        for column in range(n):
            place = row * n + column + 1
            figure.update_yaxes({"scaleanchor": f"x{place}"}, row=row + 1, col=column + 1)
    return styled(
        figure,
        40 + 92 * len(pictures),
        xaxis={"visible": False},
        yaxis={"visible": False},
        margin={"l": 8, "r": 84, "t": 8, "b": 8},
    )


def _image(image: np.ndarray) -> go.Heatmap | go.Image:
    if image.ndim == 3:
        colours = np.moveaxis(np.round(image * 255).astype(int), 0, -1)
        return go.Image(z=colours, hoverinfo="skip")
    grey = {"colorscale": [[0, "#000000"], [1, "#ffffff"]], "zmin": 0, "zmax": 1}
    return go.Heatmap(z=image, showscale=False, hoverinfo="skip", **grey)
