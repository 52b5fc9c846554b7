"""The section of circuits beside random ones of equal degrees."""

from collections.abc import Iterator
from html import escape
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import metric_name
from edgesweep.dashboards.pages import Section, Table

SAME = ("circuit", "eval_patch", "metric", "subset")


def section(data: RunData) -> Iterator[Section]:
    """Nothing where none was drawn."""
    rows = beside(data)
    if rows.empty:
        return
    table = Table(
        ["circuit", "edges", "φ", "of random circuits", "draws"],
        [_row(row, data) for row in rows.to_dict("records")],
        numeric=(1, 2, 3, 4),
    )
    yield Section(
        "rewired",
        "Circuits beside random ones of equal degrees",
        "A circuit of hubs may be faithful for its hubs alone. Each random circuit has as many "
        "edges out of every source and into every target as the circuit itself, and only edges "
        "that the model has; what a method found beyond degrees is the difference.",
        (table,),
        link="Equal degrees",
    )


def beside(data: RunData) -> pd.DataFrame:
    """Each circuit of which random ones were drawn, of all inputs: its φ, and of theirs `mean`,
    `low`, `high` and `n`."""
    drawn, results = data.drawn, data.results
    if drawn.empty or results.empty:
        return pd.DataFrame()
    drawn = drawn[(drawn["blocks"] == "rewired") & (drawn["subset"] == "all")]
    found = drawn.groupby(list(SAME), sort=True)["faithfulness"].agg(["mean", "min", "max", "size"])
    found = found.rename(columns={"min": "low", "max": "high", "size": "n"}).reset_index()
    whole = results[(results["blocks"] == "all") & (results["ablation"] == "edge")]
    both = found.merge(whole[[*SAME, "faithfulness", "n_edges"]], on=list(SAME))
    return both.dropna(subset=["faithfulness", "mean"])  # φ of a metric that is flat is none


def _row(row: dict[Any, Any], data: RunData) -> list[str]:
    name = data.circuit_names.get(row["circuit"], row["circuit"])
    what = f"{name}, {metric_name(row['metric'])}, {row['eval_patch']}"
    ends = f"<small>{row['low']:.3f} to {row['high']:.3f}</small>"
    return [
        escape(what),
        f"{row['n_edges']:,}",
        f"{row['faithfulness']:.3f}",
        f"{row['mean']:.3f}{ends}",
        f"{row['n']:,}",
    ]
