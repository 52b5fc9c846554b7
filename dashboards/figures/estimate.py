"""Estimates of scores against patching itself, edge by edge."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.style import KNOWN, OTHER, styled

#: points of one scatter; half of them the largest, the others drawn from the rest
MAX_POINTS = 5_000
#: colour of the line that fits the points
FIT = "#0072B2"


@dataclass(frozen=True)
class Pair:
    """An estimate and what it estimates, where both are finite.

    Attributes:
        cell, reference: keys of the two cells.
        index: places of the scores among all; x: the estimates; y: what patching gives.
        true: whether each is in the known circuit.
    """

    cell: str
    reference: str
    index: np.ndarray
    x: np.ndarray
    y: np.ndarray
    true: np.ndarray


def estimate_figure(pair: Pair, data: RunData) -> go.Figure:
    """What patching gives against its estimate; true edges on top."""
    figure = go.Figure()
    both = np.concatenate([pair.x, pair.y])
    ends = np.array([both.min(), both.max()])
    _line(figure, ends, ends, OTHER, "dash")
    kept = drawn(pair)
    for inside, colour, name in ((False, OTHER, "an edge"), (True, KNOWN, "in the circuit")):
        mine = kept[pair.true[kept] == inside]
        figure.add_scatter(
            x=pair.x[mine].astype(np.float32),
            y=pair.y[mine].astype(np.float32),
            mode="markers",
            name=name,
            marker={"color": colour, "size": 8 if inside else 5, "opacity": 0.8},
            hovertext=[_name(data, pair.cell, edge) for edge in pair.index[mine]],
            hovertemplate="<b>%{hovertext}</b><br>estimate %{x:.4g}<br>patching %{y:.4g}"
            "<extra></extra>",
        )
    slope, r2 = (_measured(data, pair, m)[0] for m in ("slope", "r2"))
    if not np.isnan(slope):
        ends = np.array([pair.x.min(), pair.x.max()])
        _line(figure, ends, pair.y.mean() + slope * (ends - pair.x.mean()), FIT, "solid")
    return styled(
        figure,
        height=470,
        xaxis={"title": {"text": "estimate"}},
        yaxis={"title": {"text": "patching"}},
        annotations=[_told(slope, r2, len(pair.x), data, pair)],
    )


def drawn(pair: Pair) -> np.ndarray:
    """Places within a pair of the points that are drawn, MAX_POINTS at most."""
    if len(pair.x) <= MAX_POINTS:
        return np.arange(len(pair.x))
    size = np.maximum(np.abs(pair.x), np.abs(pair.y)) + np.where(pair.true, np.inf, 0.0)
    order = np.argsort(-size, kind="stable")
    half = MAX_POINTS // 2
    rest = np.random.default_rng(0).permutation(order[half:])[: MAX_POINTS - half]
    return np.sort(np.concatenate([order[:half], rest]))


def _line(figure: go.Figure, x: np.ndarray, y: np.ndarray, colour: str, dash: str) -> None:
    line = {"color": colour, "width": 1.5, "dash": dash}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip")


def _measured(data: RunData, pair: Pair, measure: str) -> tuple[float, int]:
    """A measure of a pair, either way round, of the aggregation that is drawn, and over how many
    edges; NaN and 0 if there is none."""
    table = data.overlap
    if table.empty:
        return float("nan"), 0
    ends = {pair.cell, pair.reference}
    same = table["cell_a"].isin(ends) & table["cell_b"].isin(ends) & (table["across"] == "method")
    same &= (table["measure"] == measure) & (table["aggregation"] == data.aggregation)
    found = table[same]
    return (float(found["value"].iloc[0]), int(found["n"].iloc[0])) if len(found) else (np.nan, 0)


def _told(slope: float, r2: float, n: int, data: RunData, pair: Pair) -> dict[str, object]:
    what = "nodes" if data.scores_nodes(pair.cell) else "edges"
    fit = "" if np.isnan(slope) else f"slope {slope:.2f}, R² {r2:.2f}, "
    signed, n_signed = _measured(data, pair, "spearman_signed")
    ranks, n_ranks = _measured(data, pair, "spearman")
    lines = [f"{fit}{n:,} {what}"]
    if not np.isnan(signed):
        lines.append(f"rank correlation, with sign, of {n_signed:,} random {what}: {signed:.2f}")
    if not np.isnan(ranks):
        lines.append(f"of |scores|, of all {n_ranks:,} that were patched: {ranks:.2f}")
    return {
        "text": "<br>".join(lines),
        "align": "left",
        "xref": "paper",
        "yref": "paper",
        "x": 0.01,
        "y": 0.99,
        "xanchor": "left",
        "yanchor": "top",
        "showarrow": False,
        "font": {"size": 13},
    }


def _name(data: RunData, cell: str, place: int) -> str:
    graph = data.graphs.get(cell)
    if graph is None:
        return f"number {place}"
    if data.scores_nodes(cell):
        return graph.sources[place]
    source, target = graph.edge_source[place], graph.edge_target[place]
    return f"{graph.sources[source]} → {graph.targets[target]}"
