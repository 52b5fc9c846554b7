"""What circuits look like: score histograms, the circuit by layer, blocks and their ablation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.data import GraphTables
from dashboards.style import COLOURS, NEGATIVE, POSITIVE, styled

#: edges of one circuit that are drawn, the strongest first; more would be a grey carpet
MAX_DRAWN_EDGES = 300
WIDTHS = (0.6, 1.2, 2.2, 3.6)


def histogram_figure(scores: np.ndarray) -> go.Figure:
    """How the aggregated scores of a cell's edges are spread, by sign; both axes logarithmic."""
    finite = scores[np.isfinite(scores) & (scores != 0)]
    figure = go.Figure()
    if not len(finite):
        return styled(figure, height=300)
    exponents = np.log10(np.abs(finite))
    edges = np.linspace(max(exponents.min(), exponents.max() - 12), exponents.max(), 49)
    centres = 10 ** ((edges[1:] + edges[:-1]) / 2)
    for sign, name, colour in ((1, "raises the metric", POSITIVE), (-1, "lowers it", NEGATIVE)):
        counts, _ = np.histogram(exponents[np.sign(finite) == sign], edges)
        figure.add_scatter(
            x=centres,
            y=np.where(counts > 0, counts, np.nan),
            name=name,
            mode="lines",
            line={"color": colour, "shape": "hvh", "width": 2},
            hovertemplate="|score| ≈ %{x:.2g}: %{y} edges<extra></extra>",
        )
    return styled(
        figure,
        height=300,
        xaxis={"title": "|score| of an edge", "type": "log", "exponentformat": "power", "dtick": 2},
        yaxis={"title": "edges", "type": "log", "dtick": 1},
    )


# --- the circuit by layer ----------------------------------------------------------------------


def position(node: str, n_heads: int, n_layers: int) -> tuple[float, float]:
    """Where a node is drawn: heads side by side in their layer, the MLP to their right."""
    middle = n_heads / 2
    if node == "embed":
        return middle, -1.2
    if node == "logits":
        return middle, n_layers + 0.2
    layer = int(node[1:].split(".")[0])
    if node.startswith("m"):
        return n_heads + 0.6, layer + 0.35
    return float(node.split(".h")[1]), float(layer)


def circuit_figure(edges: pd.DataFrame, graph: GraphTables) -> go.Figure:
    """The strongest edges of one circuit, layer upon layer, from `embed` to `logits`.

    Args:
        edges: rows of circuits.parquet of one circuit.
    """
    drawn = edges.reindex(edges["weight"].abs().sort_values(ascending=False).index)
    drawn = drawn.head(MAX_DRAWN_EDGES)
    layers = [int(n[1:].split(".")[0]) for n in graph.nodes if n not in ("embed", "logits")]
    n_layers = 1 + max(layers)
    n_heads = sum(n.startswith("a0.") for n in graph.nodes)
    where = {n: position(n, n_heads, n_layers) for n in graph.nodes}
    pairs = _node_pairs(drawn, graph)
    figure = go.Figure()
    _draw_edges(figure, pairs, where)
    _draw_nodes(figure, pairs, where)
    return styled(
        figure,
        height=int(min(900, max(420, 24 * n_layers + 140))),
        xaxis={"visible": False, "range": [-1, n_heads + 1.6]},
        yaxis={"title": "layer", "dtick": 5 if n_layers > 12 else 1, "zeroline": False},
        margin={"l": 48, "r": 8, "t": 8, "b": 16},
    )


def _node_pairs(edges: pd.DataFrame, graph: GraphTables) -> pd.DataFrame:
    """Edges between nodes: ports merged, an edge into a group's port drawn to all of its heads."""
    rows = [
        (source, node, target, weight)
        for source, target, weight in edges[["source", "target", "weight"]].itertuples(index=False)
        for node in graph.nodes_of_target(target)
    ]
    return pd.DataFrame(rows, columns=["source", "node", "target", "weight"])


def _draw_edges(
    figure: go.Figure, pairs: pd.DataFrame, where: dict[str, tuple[float, float]]
) -> None:
    strength = pairs["weight"].abs() / max(float(pairs["weight"].abs().max()), 1e-30)
    bucket = np.digitize(strength, (0.03, 0.1, 0.3))
    for colour, name in ((POSITIVE, "raises the metric"), (NEGATIVE, "lowers it")):
        line = {"color": colour, "width": 3}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name)
    for number, width in enumerate(WIDTHS):
        for colour, sign in ((POSITIVE, 1), (NEGATIVE, -1)):
            mine = pairs[(bucket == number) & (np.sign(pairs["weight"]) == sign)]
            if mine.empty:
                continue
            figure.add_scatter(
                x=_segments(mine, where, 0),
                y=_segments(mine, where, 1),
                mode="lines",
                line={"color": colour, "width": width},
                opacity=0.25 + 0.2 * number,
                showlegend=False,
                hoverinfo="skip",
            )


def _segments(pairs: pd.DataFrame, where: dict[str, tuple[float, float]], axis: int) -> list[Any]:
    out: list[Any] = []
    for source, node in zip(pairs["source"], pairs["node"], strict=True):
        out += [where[source][axis], where[node][axis], None]
    return out


def _draw_nodes(
    figure: go.Figure, pairs: pd.DataFrame, where: dict[str, tuple[float, float]]
) -> None:
    nodes = sorted({*pairs["source"], *pairs["node"]}, key=lambda n: where[n][::-1])
    texts = [_describe(node, pairs) for node in nodes]
    named = [n if n in ("embed", "logits") else "" for n in nodes]
    figure.add_scatter(
        x=[where[n][0] for n in nodes],
        y=[where[n][1] for n in nodes],
        mode="markers+text",
        text=named,
        textposition="middle right",
        marker={
            "size": [11 if n[0] in "el" else 8 for n in nodes],
            "symbol": ["square" if n[0] == "m" else "circle" for n in nodes],
            "color": "#333",
            "line": {"color": "#fff", "width": 1},
        },
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _describe(node: str, pairs: pd.DataFrame) -> str:
    """A node's strongest neighbours, for its hover box."""
    into = pairs[pairs["node"] == node].nlargest(5, "weight", keep="first")
    out = pairs[pairs["source"] == node].drop_duplicates("target").nlargest(5, "weight")
    lines = [f"<b>{node}</b>"]
    lines += [f"← {s} {w:+.3g}" for s, w in zip(into["source"], into["weight"], strict=True)]
    lines += [f"→ {t} {w:+.3g}" for t, w in zip(out["target"], out["weight"], strict=True)]
    return "<br>".join(lines)


# --- blocks ------------------------------------------------------------------------------------


def block_matrix(
    edges: pd.DataFrame, blocks: pd.DataFrame, graph: GraphTables
) -> tuple[np.ndarray, list[str]]:
    """Edges between blocks of the bottom level, and the blocks' names.

    Returns:
        counts `[from, to]` of distinct node pairs, and a name a block: number and label.
    """
    bottom = blocks[blocks["level"] == 0]
    of_node = dict(zip(bottom["node"], bottom["block"], strict=True))
    label = dict(zip(bottom["block"], bottom["label"], strict=True))
    numbers = sorted(label)
    counts = np.zeros((len(numbers), len(numbers)), dtype=int)
    pairs = _node_pairs(edges, graph).drop_duplicates(["source", "node"])
    for source, node in zip(pairs["source"], pairs["node"], strict=True):
        if source in of_node and node in of_node:
            counts[numbers.index(of_node[source]), numbers.index(of_node[node])] += 1
    return counts, [f"{n} {label[n]}" for n in numbers]


def block_matrix_figure(counts: np.ndarray, names: Sequence[str]) -> go.Figure:
    """Edges from block to block."""
    figure = go.Figure(
        go.Heatmap(
            z=counts,
            x=names,
            y=names,
            colorscale="Blues",
            colorbar={"title": "edges", "thickness": 12},
            hovertemplate="from %{y}<br>to %{x}<br>%{z} edges<extra></extra>",
        )
    )
    return styled(
        figure,
        height=460,
        xaxis={"title": "to block", "tickangle": -45, "automargin": True},
        yaxis={"title": "from block", "autorange": "reversed", "automargin": True},
    )


def block_ablation_figure(results: pd.DataFrame, metric: str, mode: str) -> go.Figure:
    """Faithfulness on each task with a task's blocks ablated (Dhimoïla figure 12).

    Args:
        results: rows of one circuit, block ablations among them.
        mode: "without" the blocks labelled by a task, or with "only" them.
    """
    table = results[(results["blocks"] != "all") & (results["metric"] == metric)]
    tasks = sorted(set(table["subset"]) - {"all"}) or ["all"]
    labels = sorted({b.split(":")[1] for b in table["blocks"] if b.startswith(mode)})
    values = [[_phi(table, task, f"{mode}:{label}") for label in labels] for task in tasks]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=labels,
            y=tasks,
            zmin=0,
            zmax=1,
            colorscale="Blues",
            showscale=False,
            text=[[f"{v:.2f}" for v in row] for row in values],
            texttemplate="%{text}",
            hovertemplate="blocks of %{x}<br>measured on %{y}<br>φ %{z:.3f}<extra></extra>",
        )
    )
    return styled(
        figure,
        height=300,
        xaxis={"title": "blocks labelled", "automargin": True},
        yaxis={"title": "measured on", "autorange": "reversed", "automargin": True},
    )


def _phi(table: pd.DataFrame, task: str, blocks: str) -> float:
    found = table[(table["subset"] == task) & (table["blocks"] == blocks)]["faithfulness"]
    return float(found.mean()) if len(found) else float("nan")


def memberships(blocks: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry a bottom block: its number, label, the label's colour, and its nodes in order."""
    bottom = blocks[blocks["level"] == 0]
    labels = sorted(set(bottom["label"].astype(str)))
    return [
        {
            "block": number,
            "label": str(rows["label"].iloc[0]),
            "colour": COLOURS[labels.index(str(rows["label"].iloc[0])) % len(COLOURS)],
            "nodes": sorted(rows["node"], key=_forward),
        }
        for number, rows in bottom.groupby("block")
    ]


def _forward(node: str) -> tuple[float, str, int]:
    """Sorts nodes as the model runs them."""
    if node in ("embed", "logits"):
        return (-1.0 if node == "embed" else float("inf")), "", 0
    layer, _, head = node[1:].partition(".h")
    return float(layer), node[0], int(head or 0)
