"""Block models: edges from block to block, and what ablating blocks does."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.figures.circuit import node_pairs
from edgesweep.dashboards.series import default_metric
from edgesweep.dashboards.style import HEAT, styled
from edgesweep.storage.graphs import GraphTables


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
    pairs = node_pairs(edges, graph).drop_duplicates(["source", "node"])
    place = {node: numbers.index(block) for node, block in of_node.items()}
    ends = pd.DataFrame({end: pairs[end].map(place) for end in ("source", "node")}).dropna()
    np.add.at(counts, tuple(ends.to_numpy(dtype=int).T), 1)
    return counts, [f"{n} {label[n]}" for n in numbers]


def block_matrix_figure(counts: np.ndarray, names: Sequence[str]) -> go.Figure:
    """Edges from block to block; the colour grows with the square root, or the largest block would
    hide the others."""
    top = max(int(counts.max(initial=0)), 1)
    ticks = sorted({0, round(top / 16), round(top / 4), top})
    places = list(range(len(names)))
    numbers = [name.split(" ")[0] for name in names]
    figure = go.Figure(
        go.Heatmap(
            z=np.sqrt(counts),
            x=places,
            y=places,
            xgap=1,
            ygap=1,
            customdata=np.stack(np.broadcast_arrays(counts, np.array(names)[:, None], names), -1)
            if len(names)
            else None,
            colorscale=HEAT,
            colorbar={
                "title": {"text": "edges"},
                "thickness": 10,
                "outlinewidth": 0,
                "tickvals": [t**0.5 for t in ticks],
                "ticktext": [f"{t:,}" for t in ticks],
            },
            hovertemplate="from %{customdata[1]}<br>to %{customdata[2]}<br>"
            "%{customdata[0]} edges<extra></extra>",
            meta={"part": "heat"},
        )
    )
    axis = {"tickvals": places, "showgrid": False}
    return styled(
        figure,
        height=max(320, 23 * len(names) + 90),
        xaxis={**axis, "title": {"text": "to block"}, "ticktext": numbers, "tickangle": 0},
        yaxis={**axis, "title": {"text": "from block"}, "ticktext": names, "autorange": "reversed"},
    )


def block_ablation_figure(
    results: pd.DataFrame, mode: str, drawn: pd.DataFrame | None = None
) -> go.Figure:
    """Faithfulness on each task with a task's blocks ablated (Dhimoïla figure 12).

    One trace an evaluation patch and metric, `meta` says which; the first column is the circuit
    with all its blocks.

    Args:
        results: rows of one circuit under edge ablation, block ablations among them.
        mode: "without" the blocks labelled by a task, or with "only" them.
        drawn: the same with random nodes in the blocks; its range stands below each value.
    """
    ablated = results[results["blocks"] != "all"]
    tasks = sorted(set(ablated["subset"]) - {"all"}) or ["all"]
    labels = sorted({b.split(":", 1)[1] for b in ablated["blocks"] if b.startswith(f"{mode}:")})
    columns = {"all": "all blocks", **{f"{mode}:{label}": label for label in labels}}
    figure = go.Figure()
    first = ablated["eval_patch"].iloc[0], default_metric(ablated)
    for patch, metric in dict.fromkeys(zip(ablated["eval_patch"], ablated["metric"], strict=True)):
        table = results[(results["eval_patch"] == patch) & (results["metric"] == metric)]
        values = [[_phi(table, task, blocks) for blocks in columns] for task in tasks]
        random = None if drawn is None else drawn[(drawn["eval_patch"] == patch)]
        if random is not None:
            random = random[random["metric"] == metric]
        ranges = [[_range(random, task, blocks) for blocks in columns] for task in tasks]
        figure.add_heatmap(
            z=values,
            x=list(columns.values()),
            y=tasks,
            xgap=2,
            ygap=2,
            zmin=0,
            zmax=1,
            colorscale=HEAT,
            showscale=False,
            text=[
                [_two_digits(v) + range_ for v, range_ in zip(*pair, strict=True)]
                for pair in zip(values, ranges, strict=True)
            ],
            texttemplate="%{text}",
            textfont={"size": 14},
            hoverongaps=False,
            hovertemplate=f"{mode}: %{{x}}<br>measured on %{{y}}<br>φ %{{z:.3f}}<extra></extra>",
            meta={"part": "heat", "metric": metric, "eval_patch": patch},
            visible=(patch, metric) == first,
        )
    return styled(
        figure,
        height=90 + 62 * len(tasks),
        xaxis={
            "title": {"text": f"{mode} the blocks labelled"},
            "showgrid": False,
            "tickangle": 0,
        },
        yaxis={"title": {"text": "measured on"}, "autorange": "reversed", "showgrid": False},
    )


def _two_digits(value: float) -> str:
    return "" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # never -0.00


def _range(random: pd.DataFrame | None, task: str, blocks: str) -> str:
    """Of φ over draws, below the value."""
    if random is None or random.empty:
        return ""
    found = random[(random["subset"] == task) & (random["blocks"] == blocks)]["faithfulness"]
    if not found.notna().any():
        return ""
    ends = f"{_two_digits(found.min())} to {_two_digits(found.max())}"
    return f"<br><span style='font-size:10px'>random {ends}</span>"


def _phi(table: pd.DataFrame, task: str, blocks: str) -> float:
    found = table[(table["subset"] == task) & (table["blocks"] == blocks)]["faithfulness"]
    return float(found.mean()) if len(found) else float("nan")
