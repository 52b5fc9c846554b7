"""The sections of the block models: their matrix, their blocks, and what ablating them does."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.blocks import (
    block_ablation_figure,
    block_matrix,
    block_matrix_figure,
)
from edgesweep.dashboards.figures.circuit import node_pairs, strengths
from edgesweep.dashboards.pages import Figure, Section, Side, Table, patch
from edgesweep.dashboards.style import OTHER, TASK_COLOURS, colours

#: the label of a block that no task owns
SHARED = "shared"
#: block models shown; a run of many cells fits one each
MAX_BLOCK_MODELS = 6
#: nodes of a block that are named, the first; and where circuits have many, the strongest
MOST_NODES, MOST_OF_MANY = 40, 16


def section(data: RunData) -> Iterator[Section]:
    """Two a block model, or one that says why there is none."""
    if data.blocks.empty:
        yield Section("blocks", "Block models", f"There are none: {_why_absent(data)}.")
        return
    circuits = sorted(set(data.blocks["circuit"]))
    for number, circuit in enumerate(circuits[:MAX_BLOCK_MODELS]):
        which = f" {number + 1}" if len(circuits) > 1 else ""
        yield _fitted(data, circuit, number, which)
        yield _ablated(data, circuit, number, which)
    if len(circuits) > MAX_BLOCK_MODELS:
        rest = len(circuits) - MAX_BLOCK_MODELS
        note = f"{rest} more are in blocks.parquet; the page shows the first {MAX_BLOCK_MODELS}."
        yield Section("more-blocks", "Further block models", note)


def _why_absent(data: RunData) -> str:
    if left_out := data.status["left_out"]:
        return escape(str(left_out["blocks"]))
    if data.config["blocks"]["fit"] == "none":
        return "the config asks for none (blocks.fit: none)"
    return "none has been fitted yet"


# --- blocks and their nodes --------------------------------------------------------------------


def _fitted(data: RunData, circuit: str, number: int, which: str) -> Section:
    """`which` tells the links of several block models apart."""
    blocks = data.blocks[data.blocks["circuit"] == circuit]
    edges = data.ran[data.ran["circuit"] == circuit]
    cell = str(blocks["cell"].iloc[0])
    graph, about = data.graphs[cell], blocks.iloc[0]
    counts, names = block_matrix(edges, blocks, graph)
    strength = strengths(node_pairs(edges, graph))
    listed = block_list(memberships(blocks, graph.nodes), strength, many=data.kind(cell).many)
    corrected = "degree-corrected" if about["degree_corrected"] else "not degree-corrected"
    return Section(
        f"blocks{number}",
        f"Blocks of {data.circuit_names.get(circuit, circuit)}",
        f"A {escape(about['fit'])}, {corrected} stochastic block model groups nodes that connect "
        "alike; it describes the circuit in "
        f"{about['description_length']:,.0f} nats. The matrix counts the edges from the nodes of "
        "one block (row) to those of another (column); a block is labelled by the task that gives "
        f"it the largest share of its attribution, or {SHARED} if that is less than "
        f"{data.config['blocks']['margin']:g} times the next largest (how many times it is stands "
        "beside the label).",
        (
            Figure(f"blocks{number}", block_matrix_figure(counts, names), "Block matrix"),
            f"<details open><summary>{len(names)} blocks and their nodes</summary>"
            f"{listed}</details>",
        ),
        link=f"Blocks{which}",
    )


def memberships(blocks: pd.DataFrame, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """One entry a bottom block: its number, label, the label's colour, its margin, and its nodes.

    Args:
        nodes: of the graph, in forward order, in which each block's are.
    """
    bottom = blocks[blocks["level"] == 0]
    tasks = bottom.loc[bottom["label"] != SHARED, "label"].astype(str)
    colour = {**colours(tasks, TASK_COLOURS), SHARED: OTHER}
    place = {node: i for i, node in enumerate(nodes)}
    return [
        {
            "block": number,
            "label": str(rows["label"].iloc[0]),
            "colour": colour[str(rows["label"].iloc[0])],
            "margin": float(rows["margin"].iloc[0]),
            "nodes": sorted(rows["node"], key=place.__getitem__),
        }
        for number, rows in bottom.groupby("block")
    ]


def block_list(
    blocks: Sequence[Mapping[str, Any]], strength: Mapping[str, float], *, many: bool
) -> str:
    """Blocks with their labels and nodes.

    Args:
        blocks: as `memberships` has them.
        strength: of each node, in the circuit that was fitted.
        many: whether of a long list the strongest nodes are named.
    """
    rows = [
        f"<li><span>{patch(row['colour'])} {row['block']}</span>"
        f"<span>{escape(row['label'])}{_margin(row['margin'])}</span>"
        f"<span class='dim'>{_counted(len(row['nodes']))}</span>"
        f"<span>{escape(_named(row['nodes'], strength, many=many))}</span></li>"
        for row in blocks
    ]
    return f"<ul class='blocks'>{''.join(rows)}</ul>"


def _margin(times: float) -> str:
    """Of a single task there is none."""
    return f" <span class='dim'>{times:.2g}×</span>" if 0 < times < 1000 else ""


def _counted(n: int) -> str:
    return f"{n:,} node{'' if n == 1 else 's'}"


def _named(nodes: Sequence[str], strength: Mapping[str, float], *, many: bool) -> str:
    if not many:
        rest = len(nodes) - MOST_NODES
        return ", ".join(nodes[:MOST_NODES]) + (f" and {rest} more" if rest > 0 else "")
    strongest = set(sorted(nodes, key=lambda n: -strength.get(n, 0.0))[:MOST_OF_MANY])
    rest = len(nodes) - MOST_OF_MANY
    shown = ", ".join(node for node in nodes if node in strongest)
    return shown + (f" and {rest} with weaker edges" if rest > 0 else "")


# --- ablation ----------------------------------------------------------------------------------


def _ablated(data: RunData, circuit: str, number: int, which: str) -> Section:
    rows = _comparable(data.results[data.results["circuit"] == circuit])
    drawn = data.drawn[data.drawn["circuit"] == circuit] if len(data.drawn) else data.drawn
    drawn = drawn[drawn["blocks"] != "rewired"] if len(drawn) else drawn
    title = data.circuit_names.get(circuit, circuit)
    anchor, heading = f"ablation{number}", f"Removing a task's blocks from {title}"
    if rows.empty:
        return Section(anchor, heading, "No block ablation has been evaluated yet.")
    patches = list(dict.fromkeys(rows[rows["blocks"] != "all"]["eval_patch"]))
    modes = {"without": "Without a task's blocks", "only": "With only a task's blocks"}
    places = [
        Figure(
            f"{mode}{number}",
            block_ablation_figure(rows, mode, drawn),
            words,
            f"<h3>{words}</h3>",
        )
        for mode, words in modes.items()
    ]
    return Section(
        anchor,
        heading,
        "Faithfulness on each task (rows) when the blocks labelled by a task (columns) are "
        "removed, or are all that is kept; the first column is the circuit with all its blocks, "
        "for comparison. If each block served one task, the diagonal would be near 0 without a "
        "task's blocks, and near 1 with only them. The logits are never removed, nor is the "
        "embedding where it is one node. "
        f"{_of_random(drawn)}"
        f"Patches: {escape(', '.join(patches))}; the metric, and of several patches which one, are "
        "chosen under <a href='#curves'>Faithfulness against size</a>.",
        (Side(places), edges_left(rows)),
        link=f"Removing blocks{which}",
    )


def edges_left(rows: pd.DataFrame) -> Table:
    """What each block ablation leaves to run; the page's menu chooses the patch."""
    words = {"all": "all blocks", "without": "without", "only": "only"}
    kept = ["eval_patch", "blocks", "n_edges", "n_nodes"]
    table = rows[kept].drop_duplicates().sort_values(["eval_patch", "n_edges"], ascending=False)
    told, chosen = [], []
    for row in table.to_dict("records"):
        mode, _, task = row["blocks"].partition(":")
        name = escape(f"{words[mode]} {task}".strip())
        told.append([name, f"{row['n_edges']:,}", f"{row['n_nodes']:,}"])
        chosen.append({"eval_patch": row["eval_patch"]})
    return Table(["blocks", "edges left", "nodes left"], told, (1, 2), chosen)


def _of_random(drawn: pd.DataFrame) -> str:
    if drawn.empty:
        return ""
    n = drawn["draw"].nunique()
    return (
        f"Below each value is the range over {n:,} draw{'s' * (n > 1)} of blocks with random "
        "nodes in place of their own, as many heads, MLPs or features. "
    )


def _comparable(results: pd.DataFrame) -> pd.DataFrame:
    """Rows run as the block ablations were: by edges, on one split. Empty if there are none. What
    was measured of the model without the circuit is no block ablation."""
    results = results[results["blocks"] != "complement"]
    ablated = results[results["blocks"] != "all"]
    if ablated.empty:
        return ablated
    for column in ("ablation", "split"):
        results = results[results[column] == ablated.iloc[0][column]]
    return results
