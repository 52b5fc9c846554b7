"""The drawing of a circuit, upwards from the embeddings to the logits."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.figures.places import WIDTH, Drawing, Place
from edgesweep.dashboards.style import NEGATIVE, POSITIVE, styled
from edgesweep.storage.graphs import GraphTables

#: edges of one circuit that are drawn, the strongest first; more would be a carpet
MAX_DRAWN_EDGES = 300
#: share of the strongest |score| from which an edge is drawn with the next width
STEPS = (0.03, 0.1, 0.3)
WIDTHS = (0.8, 1.4, 2.4, 4.0)
OPACITIES = (0.4, 0.55, 0.75, 0.9)
CURVE_POINTS = 12


def circuit_figure(edges: pd.DataFrame, graph: GraphTables) -> go.Figure:
    """The strongest edges of one circuit, from the embeddings below to the logits above.

    Args:
        edges: rows of circuits.parquet of one circuit; all of them are candidates.
    """
    strongest = edges["weight"].abs().sort_values(ascending=False, kind="stable").index
    pairs = node_pairs(edges.loc[strongest[:MAX_DRAWN_EDGES]], graph)
    drawing = Drawing(graph)
    where = drawing.places(strengths(pairs))
    columns = max(x for x, _ in where.values()) if drawing.by_layer else WIDTH
    figure = go.Figure()
    _draw_absent(figure, pairs, where)
    _draw_edges(figure, pairs, where)
    _draw_nodes(figure, pairs, where, drawing)
    return styled(figure, **drawing.axes(columns))


def node_pairs(edges: pd.DataFrame, graph: GraphTables) -> pd.DataFrame:
    """Edges between nodes: an edge into a group's key or value is drawn to all of its heads.

    Returns:
        Columns source, node, target (the port) and weight.
    """
    nodes_of: dict[str, list[str]] = {}
    for target, node in graph.ends.tolist():
        nodes_of.setdefault(graph.targets[target], []).append(graph.nodes[node])
    rows = [
        (source, node, target, weight)
        for source, target, weight in edges[["source", "target", "weight"]].itertuples(index=False)
        for node in nodes_of[target]
    ]
    return pd.DataFrame(rows, columns=["source", "node", "target", "weight"])


def strengths(pairs: pd.DataFrame) -> dict[str, float]:
    """Σ |weight| of the edges at each node, either end."""
    size = pairs["weight"].abs()
    ends = pd.concat([size.groupby(pairs["source"]).sum(), size.groupby(pairs["node"]).sum()])
    return {str(node): float(total) for node, total in ends.groupby(level=0).sum().items()}


# --- edges -------------------------------------------------------------------------------------


def _draw_edges(figure: go.Figure, pairs: pd.DataFrame, where: Mapping[str, Place]) -> None:
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


def curves(pairs: pd.DataFrame, where: Mapping[str, Place]) -> np.ndarray:
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


def _draw_absent(figure: go.Figure, pairs: pd.DataFrame, where: Mapping[str, Place]) -> None:
    """Faint dots for the model's other nodes, so that the eye sees where the circuit is not."""
    absent = [n for n in where if n not in {*pairs["source"], *pairs["node"]}]
    figure.add_scatter(
        x=[where[n][0] for n in absent],
        y=[where[n][1] for n in absent],
        mode="markers",
        marker={"size": 3, "color": "#a6aeb9", "opacity": 0.6},
        hoverinfo="skip",
    )


def _draw_nodes(
    figure: go.Figure, pairs: pd.DataFrame, where: Mapping[str, Place], drawing: Drawing
) -> None:
    nodes = sorted({*pairs["source"], *pairs["node"]}, key=lambda n: where[n][::-1])
    texts, told, looks = drawing.texts(nodes), _neighbours(pairs), list(map(drawing.look, nodes))
    figure.add_scatter(
        x=[where[n][0] for n in nodes],
        y=[where[n][1] for n in nodes],
        mode="markers+text",
        text=[texts[n] for n in nodes],
        textposition=[look.side for look in looks],
        textfont={"size": [look.font for look in looks]},
        marker={
            "size": [look.size for look in looks],
            "symbol": [look.symbol for look in looks],
            "line": {"width": 1},
            "opacity": 1,
        },
        hovertext=["<br>".join([f"<b>{node}</b>", *told[node]]) for node in nodes],
        hovertemplate="%{hovertext}<extra></extra>",
        meta={"part": "nodes"},  # its colours are the page's, light or dark
    )


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
