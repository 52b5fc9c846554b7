"""The sections of the block models: their matrix, their blocks, and what ablating them does."""

from html import escape

import pandas as pd

from edgesweep.dashboards.about import block_list
from edgesweep.dashboards.circuit import node_pairs, strengths
from edgesweep.dashboards.data import RunData, named_circuits
from edgesweep.dashboards.pages import Page
from edgesweep.dashboards.structure import block_ablation_figure, block_matrix, block_matrix_figure

#: block models shown; a run of many cells fits one each
MAX_BLOCK_MODELS = 6


def add_blocks(page: Page, data: RunData) -> None:
    """Adds a section a block model to the page, or one that says why there is none."""
    if data.blocks.empty:
        page.section("blocks", "Block models", f"There are none: {_why_absent(data)}.")
        return
    circuits = sorted(set(data.blocks["circuit"]))
    for number, circuit in enumerate(circuits[:MAX_BLOCK_MODELS]):
        which = f" {number + 1}" if len(circuits) > 1 else ""
        _add_one(page, data, circuit, number, which)
    if len(circuits) > MAX_BLOCK_MODELS:
        rest = len(circuits) - MAX_BLOCK_MODELS
        note = f"{rest} more are in blocks.parquet; the page shows the first {MAX_BLOCK_MODELS}."
        page.section("more-blocks", "Further block models", note)


def _why_absent(data: RunData) -> str:
    if left_out := data.status["left_out"]:
        return escape(str(left_out["blocks"]))
    if data.config["blocks"]["fit"] == "none":
        return "the config asks for none (blocks.fit: none)"
    return "none has been fitted yet"


def _add_one(page: Page, data: RunData, circuit: str, number: int, which: str) -> None:
    """`which` tells the links of several block models apart."""
    blocks = data.blocks[data.blocks["circuit"] == circuit]
    edges = data.ran[data.ran["circuit"] == circuit]
    graph = data.graphs[str(blocks["cell"].iloc[0])]
    counts, names = block_matrix(edges, blocks, graph)
    title = named_circuits(data).get(circuit, circuit)
    about = blocks.iloc[0]
    corrected = "degree-corrected" if about["degree_corrected"] else "not degree-corrected"
    page.section(
        f"blocks{number}",
        f"Blocks of {title}",
        f"A {escape(about['fit'])}, {corrected} stochastic block model groups nodes that connect "
        "alike; it describes the circuit in "
        f"{about['description_length']:,.0f} nats. The matrix counts the edges from the nodes of "
        "one block (row) to those of another (column); a block is labelled by the task that gives "
        "it the largest share of its attribution.",
        page.figure(f"blocks{number}", block_matrix_figure(counts, names), "Block matrix"),
        f"<details open><summary>{len(names)} blocks and their nodes</summary>"
        f"{block_list(blocks, strengths(node_pairs(edges, graph)))}</details>",
        link=f"Blocks{which}",
    )
    _add_ablation(page, data, circuit, title, number, which)


def _add_ablation(
    page: Page, data: RunData, circuit: str, title: str, number: int, which: str
) -> None:
    rows = _comparable(data.results[data.results["circuit"] == circuit])
    anchor, heading = f"ablation{number}", f"Removing a task's blocks from {title}"
    if rows.empty:
        page.section(anchor, heading, "No block ablation has been evaluated yet.")
        return
    patches = list(dict.fromkeys(rows[rows["blocks"] != "all"]["eval_patch"]))
    modes = {"without": "Without a task's blocks", "only": "With only a task's blocks"}
    places = [
        f"<div><h3>{words}</h3>"
        + page.figure(f"{mode}{number}", block_ablation_figure(rows, mode), words)
        + "</div>"
        for mode, words in modes.items()
    ]
    page.section(
        anchor,
        heading,
        "Faithfulness on each task (rows) when the blocks labelled by a task (columns) are "
        "removed, or are all that is kept; the first column is the circuit with all its blocks, "
        "for comparison. If each block served one task, the diagonal would be near 0 without a "
        "task's blocks, and near 1 with only them. The logits are never removed, nor is the "
        "embedding where it is one node. "
        f"Patches: {escape(', '.join(patches))}; the metric, and of several patches which one, are "
        "chosen under <a href='#curves'>Faithfulness against size</a>.",
        f"<div class='two'>{''.join(places)}</div>",
        link=f"Removing blocks{which}",
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
