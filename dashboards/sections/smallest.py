"""The section of the smallest circuits that reach a faithfulness."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import decimal, share, varying
from edgesweep.dashboards.pages import Section, Table
from edgesweep.dashboards.sections.curves import NOTHING
from edgesweep.dashboards.series import VARIANTS, with_series
from edgesweep.dashboards.summary import LEVELS

TITLE = "The smallest faithful circuits"


def section(data: RunData) -> Iterator[Section]:
    if data.results.empty:
        yield Section("smallest", TITLE, NOTHING)
        return
    yield Section(
        "smallest",
        TITLE,
        "Of the sizes that were measured, the smallest that reaches a faithfulness, over all "
        "inputs; the metric is the one chosen above.",
        (key_table(data.results),),
    )


def key_table(results: pd.DataFrame) -> Table:
    """The smallest faithful circuit of each line; the page's menus choose among the rows."""
    table = smallest_faithful(results, LEVELS)
    several = varying(table, ("model", "task"))
    lines = ["metric", "model", "task", *(c for c in VARIANTS if c in table), "series", "ablation"]
    rows, chosen = [], []
    for _, group in table.groupby(lines, sort=True):
        levels = group.sort_values("level").to_dict("records")
        first = levels[0]
        told = [escape(str(first[c])) for c in ("series", "ablation", *several)]
        rows.append([*told, *map(_size, levels), _best(first)])
        chosen.append({c: first[c] for c in lines if c != "series"})
    names = ["scored by", "ablation", *several]
    head = [*names, *(f"edges for φ&nbsp;≥&nbsp;{level}" for level in LEVELS), "best φ"]
    return Table(head, rows, range(len(names), len(head)), chosen)


def smallest_faithful(results: pd.DataFrame, levels: tuple[float, ...]) -> pd.DataFrame:
    """The smallest measured circuit of each series that reaches a faithfulness, all inputs.

    Returns:
        One row a line and level: the columns that tell lines apart, `level`, and n_edges, n_nodes,
        density and faithfulness of that circuit (NaN where no circuit of the grid reaches the
        level), `best` (the highest faithfulness of a circuit with an edge) and `best_n_edges`.
    """
    table = with_series(results)
    table = table[table["subset"] == "all"]
    keys = ["metric", "model", "task", *varying(table, VARIANTS), "series", "ablation"]
    rows = []
    for key, group in table.groupby(keys, sort=True):
        top = _most_faithful(group)
        for level in levels:
            enough = group[group["faithfulness"] >= level].sort_values("n_edges")
            sizes = ("n_edges", "n_nodes", "density", "faithfulness")
            found = {c: enough[c].iloc[0] if len(enough) else float("nan") for c in sizes}
            row = {**dict(zip(keys, key, strict=True)), "level": level, **found}
            rows.append({**row, "best": top["faithfulness"], "best_n_edges": top["n_edges"]})
    return pd.DataFrame(rows)


def _most_faithful(group: pd.DataFrame) -> Mapping[str, float]:
    """The best circuit of a line that has an edge; NaN where none was measured."""
    measured = group[np.isfinite(group["faithfulness"]) & (group["n_edges"] > 0)]
    if measured.empty:
        return {"faithfulness": float("nan"), "n_edges": float("nan")}
    ranked = measured.sort_values(["faithfulness", "n_edges"], ascending=[False, True])
    return ranked.iloc[0].to_dict()


def _best(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["best"]):
        return "<span class='dim'>not defined</span>"
    return f"{decimal(row['best'])}<small>at {int(row['best_n_edges']):,}</small>"


def _size(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["n_edges"]):
        return "<span class='dim'>not reached</span>"
    part = f"{share(row['density'])}, "
    return f"{int(row['n_edges']):,}{_small(row['n_nodes'], 'nodes', part)}"


def _small(count: float, what: str, before: str) -> str:
    return f"<small>{before}{int(count):,}&nbsp;{what}</small>"
