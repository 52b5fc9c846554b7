"""Figures of interaction graphs: the graph, layer by layer; spectra; scores against what is
kept."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.style import KNOWN, OTHER, SPARE_COLOURS, TASK_COLOURS, log_ticks, styled

#: by basis
COLOURS = {"lib": "#0072B2", "gib": "#DE9400", "pca": "#7A8594"}
SYMBOLS = {"lib": "circle", "gib": "square", "pca": "diamond"}
#: of the largest modules
COLOURS_OF_MODULES = tuple(dict.fromkeys((*SPARE_COLOURS, *TASK_COLOURS)))
#: edges that are drawn, and widths of their lines, in pixels
MOST_EDGES, THINNEST, WIDEST, WIDTHS = 400, 0.4, 5.0, 6


def interaction_graph(
    edges: pd.DataFrame, layers: Sequence[str], modules: Mapping[str, int]
) -> go.Figure:
    """Directions as points, a column a layer and the most important at the top, those of a module
    in one colour; a line's width is √E², relative to the strongest of its section."""
    edges = edges.assign(
        layer=edges["source"].str.rpartition("/")[0],
        strength=np.sqrt(edges["mean_square"]),
    )
    strongest = edges.groupby("layer")["strength"].transform("max").replace(0.0, np.nan)
    edges = edges.assign(share=(edges["strength"] / strongest).fillna(0.0))
    edges = edges.sort_values("share", ascending=False, kind="stable").head(MOST_EDGES)
    figure = go.Figure(_lines(edges, layers))
    figure.add_trace(_points(edges, layers, modules))
    deepest = max((_place(n, layers)[1] for n in {*edges["source"], *edges["target"]}), default=0)
    ticks = {"tickvals": list(range(len(layers))), "ticktext": list(layers), "showgrid": False}
    return styled(
        figure,
        min(900, 220 + 14 * int(deepest)),
        xaxis={**ticks, "range": [-0.3, len(layers) - 0.7]},
        yaxis={"autorange": "reversed", "title": "direction, by importance", "showgrid": False},
    )


def _place(node: str, layers: Sequence[str]) -> tuple[int, int]:
    """Column and row; an isolated variance stands above all directions."""
    layer, _, name = node.rpartition("/")
    return layers.index(layer), -1 if name == "var" else int(name.removeprefix("d"))


def _lines(edges: pd.DataFrame, layers: Sequence[str]) -> list[go.Scatter]:
    """A trace for each width, thin ones first."""
    steps = np.minimum((edges["share"] * WIDTHS).astype(int), WIDTHS - 1)
    traces = []
    for step in range(WIDTHS):
        x: list[float | None] = []
        y: list[float | None] = []
        for row in edges[steps == step].itertuples():
            ends = [_place(str(row.source), layers), _place(str(row.target), layers)]
            x += [ends[0][0], ends[1][0], None]
            y += [ends[0][1], ends[1][1], None]
        width = THINNEST + (WIDEST - THINNEST) * step / (WIDTHS - 1)
        look = {"width": width, "color": COLOURS["lib"]}
        opacity = 0.25 + 0.6 * step / (WIDTHS - 1)
        traces.append(
            go.Scatter(x=x, y=y, mode="lines", line=look, opacity=opacity, hoverinfo="skip")
        )
    return traces


def _points(edges: pd.DataFrame, layers: Sequence[str], modules: Mapping[str, int]) -> go.Scatter:
    names = sorted({*edges["source"], *edges["target"]})
    places = [_place(name, layers) for name in names]
    degree = [int((edges["source"] == n).sum() + (edges["target"] == n).sum()) for n in names]
    module = [f"<br>module {modules[n]}" if n in modules else "" for n in names]
    text = [
        f"<b>{n}</b><br>{d} drawn interactions{m}"
        for n, d, m in zip(names, degree, module, strict=True)
    ]
    colours = _colours(modules)
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={"size": 7, "color": [colours.get(modules.get(name, -1), KNOWN) for name in names]},
        text=text,
        hovertemplate="%{text}<extra></extra>",
    )


def _colours(modules: Mapping[str, int]) -> dict[int, str]:
    """Of the largest modules, of two directions or more; others have none."""
    largest = [module for module, n in Counter(modules.values()).most_common() if n > 1]
    return dict(zip(largest, COLOURS_OF_MODULES, strict=False))


def spectra(rows: pd.DataFrame) -> go.Figure:
    """Eigenvalues of one layer, by place, and how far directions are kept."""
    figure = go.Figure()
    lines: Mapping[str, tuple[str, str]] = {
        "variances": ("variance D", "dot"),
        "spectrum": ("importance Λ", "solid"),
    }
    for (basis, of), mine in rows.groupby(["basis", "of"], sort=True):
        if basis == "pca" and of == "spectrum":
            continue
        mine = mine[mine["value"] > 0]
        name, dash = lines[str(of)]
        figure.add_trace(
            go.Scatter(
                x=mine["place"] + 1,
                y=mine["value"],
                mode="lines+markers",
                marker={"size": 5, "symbol": np.where(mine["kept"], "circle", "x-thin-open")},
                line={"color": COLOURS[str(basis)], "dash": dash, "width": 1.5},
                name=f"{basis}, {name}",
                hovertemplate="<b>%{fullData.name}</b><br>%{x}: %{y:.3g}<extra></extra>",
            )
        )
    ticks = log_ticks(rows["value"][rows["value"] > 0])
    return styled(
        figure,
        340,
        xaxis={"title": "direction"},
        yaxis={"title": "eigenvalue", "type": "log", "exponentformat": "power", **ticks},
        showlegend=True,
    )


def score_curves(
    rows: pd.DataFrame, size: str, title: str, base: float | None, score: str
) -> go.Figure:
    """The network's score by how much is kept, a line a basis; the published search's steps are
    open circles."""
    figure = go.Figure()
    for basis, mine in rows.groupby("basis", sort=True):
        mine = mine.sort_values(size)
        step = mine["step"] if "step" in mine else pd.Series(0, index=mine.index)
        look = {"size": 7, "symbol": np.where(step > 0, f"{SYMBOLS[str(basis)]}-open", "circle")}
        figure.add_trace(
            go.Scatter(
                x=mine[size],
                y=mine["score"],
                mode="lines+markers",
                marker=look,
                line={"color": COLOURS[str(basis)], "width": 2},
                name=str(basis),
                hovertemplate="<b>%{fullData.name}</b><br>%{x:,}: %{y:.4f}<extra></extra>",
            )
        )
    if base is not None:
        figure.add_hline(y=base, line={"color": OTHER, "dash": "dot"})
    return styled(
        figure,
        340,
        xaxis={"title": title, "type": "log" if size == "edges" else "linear"},
        yaxis={"title": score},
        showlegend=True,
    )
