"""The circuit by layer: heads on both sides of a column of MLPs, embeddings below, logits above."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.data import GraphTables
from edgesweep.dashboards.sites import (
    WIDTH,
    is_error,
    named_nodes,
    over_features,
    site_places,
    sites_of,
)
from edgesweep.dashboards.style import NEGATIVE, POSITIVE, styled

#: edges of one circuit that are drawn, the strongest first; more would be a carpet
MAX_DRAWN_EDGES = 300
#: share of the strongest |score| from which an edge is drawn with the next width
STEPS = (0.03, 0.1, 0.3)
WIDTHS = (0.8, 1.4, 2.4, 4.0)
OPACITIES = (0.4, 0.55, 0.75, 0.9)
CURVE_POINTS = 12

Places = Mapping[str, tuple[float, float]]


def layer_of(node: str) -> int:
    """Layer of a head `a3.h5` or an MLP `m3`."""
    return int(node[1:].split(".")[0])


def places(graph: GraphTables) -> dict[str, tuple[float, float]]:
    """Where each node is drawn: (column, layer). The MLP stands in the middle, half a layer above
    its heads, which it reads; half of the heads stand on either side."""
    inner = [n for n in graph.nodes if n not in ("embed", "logits")]
    n_heads = sum(n.startswith("a0.") for n in inner)
    middle = n_heads // 2 if n_heads > 1 else 1
    found: dict[str, tuple[float, float]] = {"embed": (middle, -1.0)}
    for node in inner:
        if node.startswith("m"):
            found[node] = (middle, layer_of(node) + 0.5)
        else:
            head = int(node.split(".h")[1])
            found[node] = (head + (head >= middle), float(layer_of(node)))
    found["logits"] = (middle, max(y for _, y in found.values()) + 1.0)
    return found


def circuit_figure(edges: pd.DataFrame, graph: GraphTables) -> go.Figure:
    """The strongest edges of one circuit, layer upon layer, from `embed` to `logits`.

    Args:
        edges: rows of circuits.parquet of one circuit; all of them are candidates.
    """
    strongest = edges["weight"].abs().sort_values(ascending=False, kind="stable").index
    pairs = node_pairs(edges.loc[strongest[:MAX_DRAWN_EDGES]], graph)
    features = over_features(graph.nodes)
    where = site_places(graph.nodes, strengths(pairs)) if features else places(graph)
    columns = WIDTH if features else max(x for x, _ in where.values())
    figure = go.Figure()
    _draw_absent(figure, pairs, where)
    _draw_edges(figure, pairs, where)
    _draw_nodes(figure, pairs, where)
    rows = _rows_of_sites(graph) if features else _rows_of_layers(graph)
    return styled(
        figure,
        xaxis={"visible": False, "range": [-0.7, columns + 0.7], "fixedrange": True},
        **rows,
    )


def _rows_of_layers(graph: GraphTables) -> dict[str, Any]:
    """The vertical axis over heads."""
    n_layers = 1 + max(layer_of(n) for n in graph.nodes if n not in ("embed", "logits"))
    return {
        "height": int(min(1000, max(420, 27 * n_layers + 130))),
        "yaxis": {
            "title": {"text": "layer"},
            "tickvals": list(range(0, n_layers, 1 if n_layers <= 16 else 5)),
            "range": [-1.9, n_layers + 1.4],
            "gridwidth": 1,
        },
        "margin": {"l": 44, "r": 6, "t": 4, "b": 8},
    }


def _rows_of_sites(graph: GraphTables) -> dict[str, Any]:
    """The vertical axis over features: a row a site."""
    sites = sites_of(graph.nodes)
    return {
        "height": int(min(1000, max(420, 96 * len(sites) + 60))),
        "yaxis": {
            "tickvals": list(range(len(sites))),
            "ticktext": sites,
            "range": [-0.5, len(sites) - 0.5],
            "gridwidth": 1,
        },
        "margin": {"l": 58, "r": 6, "t": 4, "b": 8},
    }


def node_pairs(edges: pd.DataFrame, graph: GraphTables) -> pd.DataFrame:
    """Edges between nodes: an edge into a group's key or value is drawn to all of its heads.

    Returns:
        Columns source, node, target (the port) and weight.
    """
    rows = [
        (source, node, target, weight)
        for source, target, weight in edges[["source", "target", "weight"]].itertuples(index=False)
        for node in graph.nodes_of_target(target)
    ]
    return pd.DataFrame(rows, columns=["source", "node", "target", "weight"])


def strengths(pairs: pd.DataFrame) -> dict[str, float]:
    """Σ |weight| of the edges at each node, either end."""
    size = pairs["weight"].abs()
    ends = pd.concat([size.groupby(pairs["source"]).sum(), size.groupby(pairs["node"]).sum()])
    return {str(node): float(total) for node, total in ends.groupby(level=0).sum().items()}


# --- edges -------------------------------------------------------------------------------------


def _draw_edges(figure: go.Figure, pairs: pd.DataFrame, where: Places) -> None:
    """One trace a width and sign, the weakest below; and a point to hover over on each edge."""
    if pairs.empty:
        return
    strength = pairs["weight"].abs() / max(float(pairs["weight"].abs().max()), 1e-30)
    bucket = np.digitize(strength, STEPS)
    for number, (width, opacity) in enumerate(zip(WIDTHS, OPACITIES, strict=True)):
        for colour, sign in ((POSITIVE, 1), (NEGATIVE, -1)):
            mine = pairs[(bucket == number) & (np.sign(pairs["weight"]) == sign)]
            if mine.empty:
                continue
            curve = curves(mine, where)
            figure.add_scatter(
                x=curve[..., 0].ravel(),
                y=curve[..., 1].ravel(),
                mode="lines",
                line={"color": colour, "width": width},
                opacity=opacity,
                hoverinfo="skip",
            )
    middle = curves(pairs, where)[:, CURVE_POINTS // 2]
    figure.add_scatter(
        x=middle[:, 0],
        y=middle[:, 1],
        mode="markers",
        marker={"size": 7, "opacity": 0},
        hovertext=[
            f"{s} → {t}<br>score {w:+.3g}"
            for s, t, w in zip(pairs["source"], pairs["target"], pairs["weight"], strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def curves(pairs: pd.DataFrame, where: Places) -> np.ndarray:
    """Each edge as a curve that leaves its source upwards and enters its target from below; an edge
    within one column bulges to its right, the further the longer it is.

    Returns:
        float32 [n_pairs, CURVE_POINTS + 1, 2]; the last point of each is NaN, a gap.
    """
    start = np.array([where[s] for s in pairs["source"]], dtype=float)
    stop = np.array([where[n] for n in pairs["node"]], dtype=float)
    rise = (stop - start)[:, 1]
    same_column = np.abs(stop - start)[:, 0] < 0.5
    bulge = np.where(same_column & (rise > 2), np.minimum(0.35 + 0.09 * rise, 1.6), 0.0)
    lift = np.stack([np.zeros_like(rise), np.minimum(0.45 * rise, 6.0)], axis=1)
    aside = np.stack([bulge, np.zeros_like(rise)], axis=1)
    t = np.linspace(0, 1, CURVE_POINTS)[None, :, None]
    points = (
        (1 - t) ** 3 * start[:, None]
        + 3 * (1 - t) ** 2 * t * (start + lift + aside)[:, None]
        + 3 * (1 - t) * t**2 * (stop - lift + aside)[:, None]
        + t**3 * stop[:, None]
    )
    gap = np.full((len(points), 1, 2), np.nan)
    return np.concatenate([points, gap], axis=1).astype(np.float32)


# --- nodes -------------------------------------------------------------------------------------


def _draw_absent(figure: go.Figure, pairs: pd.DataFrame, where: Places) -> None:
    """Faint dots for the model's other nodes, so that the eye sees where the circuit is not."""
    absent = [n for n in where if n not in {*pairs["source"], *pairs["node"]}]
    figure.add_scatter(
        x=[where[n][0] for n in absent],
        y=[where[n][1] for n in absent],
        mode="markers",
        marker={"size": 3, "color": "#a6aeb9", "opacity": 0.6},
        hoverinfo="skip",
    )


def _draw_nodes(figure: go.Figure, pairs: pd.DataFrame, where: Places) -> None:
    nodes = sorted({*pairs["source"], *pairs["node"]}, key=lambda n: where[n][::-1])
    names, told = named_nodes(nodes), _neighbours(pairs)
    figure.add_scatter(
        x=[where[n][0] for n in nodes],
        y=[where[n][1] for n in nodes],
        mode="markers+text",
        text=[names.get(n, "") if "/" in n else _short(n) for n in nodes],
        textposition=[_side(n) for n in nodes],
        textfont={"size": [13 if n in ("embed", "logits") else 9 for n in nodes]},
        marker={
            "size": [12 if n in ("embed", "logits") else 9 if "/" in n else 16 for n in nodes],
            "symbol": [_symbol(n) for n in nodes],
            "line": {"width": 1},
            "opacity": 1,
        },
        hovertext=["<br>".join([f"<b>{node}</b>", *told[node]]) for node in nodes],
        hovertemplate="%{hovertext}<extra></extra>",
        meta={"part": "nodes"},  # its colours are the page's, light or dark
    )


def _symbol(node: str) -> str:
    """Heads and features are round; what a dictionary leaves over stands on its tip."""
    if is_error(node):
        return "diamond"
    return "circle" if "/" in node or node[0] == "a" else "square"


def _short(node: str) -> str:
    """A head by its number and an MLP by its letter: the layer is on the axis."""
    if node in ("embed", "logits"):
        return node
    return node.split(".h")[1] if node.startswith("a") else "m"


def _side(node: str) -> str:
    """Where a node's text stands; that in the middle is on the node, and the page colours it so."""
    if "/" in node:
        return "middle right"
    return {"embed": "bottom center", "logits": "top center"}.get(node, "middle center")


def _neighbours(pairs: pd.DataFrame, most: int = 5) -> dict[str, list[str]]:
    """For each node's hover box, its strongest edges: those that enter it, then those that leave
    it, an edge into several heads once."""
    order = pairs["weight"].abs().sort_values(ascending=False, kind="stable").index
    into: dict[str, list[str]] = {}
    out: dict[str, dict[str, str]] = {}
    columns = ["source", "node", "target", "weight"]
    for source, node, target, w in pairs.loc[order, columns].itertuples(index=False, name=None):
        into.setdefault(node, []).append(f"← {source} {w:+.3g}")
        out.setdefault(source, {}).setdefault(target, f"→ {target} {w:+.3g}")
    return {
        node: into.get(node, [])[:most] + list(out.get(node, {}).values())[:most]
        for node in {*into, *out}
    }
