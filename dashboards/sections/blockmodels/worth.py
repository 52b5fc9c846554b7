"""The section of what block models are held against."""

from collections.abc import Iterator
from html import escape
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.structure import saved_figure
from edgesweep.dashboards.names import metric_name
from edgesweep.dashboards.pages import Figure, Section, Table
from edgesweep.dashboards.sections.blockmodels.blocks import MAX_BLOCK_MODELS
from edgesweep.dashboards.series import default_metric

#: (measure, against) -> what a row is, in words
WORDS = {
    ("saved", "nodes"): "length saved, against random graphs with the degrees of its nodes",
    ("saved", "ports"): "length saved, against random graphs with the degrees of its ports",
    ("agreement", "chains"): "agreement of two chains",
    ("agreement", "halves"): "agreement of halves of the build prompts",
    ("agreement", "kind_depth"): "agreement with kind and layer",
    (
        "purity",
        "random",
    ): "purity: of blocks' attribution their first task's, against random blocks",
    ("contrast", "without"): "contrast of removing blocks: others' minus one's own",
    ("contrast", "only"): "contrast of keeping only them: one's own minus others'",
    ("contrast", "without_random"): "contrast of removing, against blocks of random nodes",
    ("contrast", "only_random"): "contrast of keeping, against blocks of random nodes",
}


def section(data: RunData) -> Iterator[Section]:
    """One a block model that is held against anything."""
    circuits = sorted(set(data.blocks["circuit"])) if len(data.blocks) else []
    for number, circuit in enumerate(circuits[:MAX_BLOCK_MODELS]):
        rows = data.structure
        rows = rows[rows["circuit"] == circuit] if len(rows) else rows
        if len(rows):
            which = f" {number + 1}" if len(circuits) > 1 else ""
            yield _section(data, circuit, rows, number, which)


def _section(data: RunData, circuit: str, rows: pd.DataFrame, number: int, which: str) -> Section:
    nulls = data.nulls[data.nulls["circuit"] == circuit]
    figure = Figure(f"saved{number}", saved_figure(nulls), "Description lengths")
    return Section(
        f"structure{number}",
        f"What the blocks of {data.circuit_names.get(circuit, circuit)} are worth",
        "Any graph with hubs and an order of layers can be described in fewer words than as one "
        "block. So the description stands beside those of random graphs with the same degrees, "
        "whose edges go only where the model has edges: of the simple graph that is fitted "
        "(degrees of nodes), and of the circuit's own edges, so that heads that share keys and "
        "values still do (degrees of ports). p is the share of them, and of the circuit, that save "
        "as much; it holds however well the chain of swaps mixes, for all start from one graph on "
        "the way "
        f"(Besag and Clifford 1989).{_mixing(nulls)} Agreement is adjusted mutual information: 1 "
        "for the same blocks, 0 by chance. Contrast is of faithfulness; its p is that of shuffling "
        "which task a prompt is of.",
        (figure, structure_table(rows)),
        link=f"Worth of blocks{which}",
    )


def _mixing(nulls: pd.DataFrame) -> str:
    drawn = nulls[nulls["null"].isin(["nodes", "ports"])]
    if drawn.empty:
        return ""
    half, end = drawn["kept_halfway"].mean(), drawn["kept"].mean()
    return (
        f" A random graph shares {end:.0%} of its edges with the one that it started from, after "
        f"half of its steps {half:.0%}."
    )


def structure_table(rows: pd.DataFrame) -> Table:
    """A row a measure; of contrasts those of the first metric of the page."""
    metrics = rows[rows["metric"] != ""]
    if len(metrics):
        rows = rows[rows["metric"].isin(["", default_metric(metrics)])]
    places = list(WORDS)
    found = rows.to_dict("records")
    found.sort(key=lambda row: places.index((row["measure"], row["against"])))
    several = len({row["eval_patch"] for row in found} - {""}) > 1
    return Table(
        ["", "value", "without structure", "p", "of"],
        [
            [
                escape(_words(row, several=several)),
                _value(row),
                _beside(row),
                "" if pd.isna(row["p"]) else f"{row['p']:.3g}",
                escape(_counted(row)),
            ]
            for row in found
        ],
        numeric=(1, 2, 3),
    )


def _words(row: dict[Any, Any], *, several: bool) -> str:
    words = WORDS[row["measure"], row["against"]]
    if row["metric"]:
        words += f", {metric_name(row['metric'])}"
    return f"{words}, {row['eval_patch']}" if several and row["eval_patch"] else words


def _value(row: dict[Any, Any]) -> str:
    """Of several pairs their mean, and their range."""
    several = row["measure"] == "agreement" and row["low"] < row["high"]
    return _number(row["value"]) + (_range(row) if several else "")


def _beside(row: dict[Any, Any]) -> str:
    """What chance gives; of random graphs also their range."""
    return _number(row["chance"]) + _range(row) if _is_drawn(row) else "0"


def _is_drawn(row: dict[Any, Any]) -> bool:
    """Whether it stands beside draws of graphs or of blocks."""
    return row["measure"] in ("saved", "purity") or str(row["against"]).endswith("_random")


def _range(row: dict[Any, Any]) -> str:
    return f"<small>{_number(row['low'])} to {_number(row['high'])}</small>"


def _counted(row: dict[Any, Any]) -> str:
    what = {
        "saved": "random graphs",
        "purity": "draws",
        "agreement": "nodes",
        "contrast": "prompts",
    }
    drawn = row["measure"] == "contrast" and _is_drawn(row)
    return f"{row['n']:,} {'draws' if drawn else what[row['measure']]}"


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{round(value, 3) + 0.0:.3f}"
