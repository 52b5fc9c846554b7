"""The section that sets estimates of scores against patching itself, edge by edge (Syed et al.
2023, figure 4a)."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import PATCHING, cell_names, is_search
from edgesweep.dashboards.pages import Page, legend, swatch
from edgesweep.dashboards.style import KNOWN, OTHER, styled

#: points of one scatter; half of them the largest, the others drawn from the rest
MAX_POINTS = 5_000
#: estimates that one page holds
MAX_FIGURES = 16
#: colour of the line that fits the points
FIT = "#0072B2"
#: what two cells must share for one to estimate the other
SAME = ("model", "task", "nodes", "build_patch", "build_metric")


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


def add_estimates(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where nothing was patched exactly."""
    found = pairs(data)
    if not found:
        return
    names = cell_names(data.plan["cells"])
    figures = {names[p.cell]: estimate_figure(p, data) for p in found[:MAX_FIGURES]}
    cut = any(len(p.x) > MAX_POINTS for p in found)
    thinned = f" At most {MAX_POINTS:,} points are drawn: the largest, and some of the rest."
    left = f" {len(found) - MAX_FIGURES} more estimates are left out." * (len(found) > MAX_FIGURES)
    page.section(
        "estimate",
        "Estimate against patching",
        "Most methods estimate what would happen if one edge alone were patched; exact patching "
        "does it. Each point is an edge, or a node of methods that score nodes, that both "
        "measured: the estimate to the right, what patching gives upwards. On the dashed line the "
        "estimate is exact; the solid line is the best fit. A slope below 1 means that the "
        "estimate is too large, and R² is the share of the differences between edges that the "
        "estimate explains."
        f"{thinned if cut else ''}{left}",
        legend(swatch(OTHER, "an edge"), swatch(KNOWN, "in the known circuit"))
        if any(p.true.any() for p in found)
        else "",
        page.chooser("estimates", "estimate", figures, next(iter(figures))),
        link="Estimates",
    )


def pairs(data: RunData) -> list[Pair]:
    """Every estimate with the exact patching of the same model, task, patch and metric."""
    exact = [c for c in data.histograms if data.cells[c]["method"] in PATCHING]
    found = []
    for cell in data.histograms:
        about = data.cells[cell]
        if about["method"] in (*PATCHING, "random") or is_search(about):
            continue
        for reference in exact:
            if _comparable(data, cell, reference):
                found.append(_pair(data, cell, reference))
                break
    return [p for p in found if len(p.x)]


def _comparable(data: RunData, cell: str, reference: str) -> bool:
    a, b = data.cells[cell], data.cells[reference]
    same_kind = data.scores_nodes(cell) == data.scores_nodes(reference)
    return same_kind and all(a.get(c) == b.get(c) for c in SAME)


def _pair(data: RunData, cell: str, reference: str) -> Pair:
    x, y = data.histograms[cell], data.histograms[reference]
    both = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    true = data.true(cell)
    true = true[both] if len(true) else np.zeros(len(both), bool)
    return Pair(cell, reference, both, x[both], y[both], true)


# --- the figure --------------------------------------------------------------------------------


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
    slope, r2 = (_measured(data, pair, m) for m in ("slope", "r2"))
    if not np.isnan(slope):
        ends = np.array([pair.x.min(), pair.x.max()])
        _line(figure, ends, pair.y.mean() + slope * (ends - pair.x.mean()), FIT, "solid")
    return styled(
        figure,
        height=470,
        xaxis={"title": {"text": "estimate"}},
        yaxis={"title": {"text": "patching"}},
        annotations=[_told(slope, r2, len(pair.x), nodes=data.scores_nodes(pair.cell))],
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


def _measured(data: RunData, pair: Pair, measure: str) -> float:
    """The slope or R² of a pair, of the aggregation that is drawn; NaN if there is none."""
    table = data.overlap
    if table.empty:
        return float("nan")
    same = (table["cell_a"] == pair.cell) & (table["cell_b"] == pair.reference)
    same &= (table["measure"] == measure) & (table["aggregation"] == data.aggregation)
    found = table.loc[same, "value"]
    return float(found.iloc[0]) if len(found) else float("nan")


def _told(slope: float, r2: float, n: int, *, nodes: bool) -> dict[str, object]:
    what = f"{n:,} {'nodes' if nodes else 'edges'}"
    fit = "" if np.isnan(slope) else f"slope {slope:.2f}, R² {r2:.2f}, "
    return {
        "text": fit + what,
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
    return graph.sources[place] if data.scores_nodes(cell) else graph.edge_name(place)
