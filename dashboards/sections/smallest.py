"""The section of the smallest circuits that reach a faithfulness."""

from collections.abc import Hashable, Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import decimal, metric_name, share, varying
from edgesweep.dashboards.pages import Section, Table
from edgesweep.dashboards.searched import SEARCHED, Searched
from edgesweep.dashboards.sections.curves import NOTHING
from edgesweep.dashboards.series import VARIANTS, with_series
from edgesweep.dashboards.summary import LEVELS

SIZES = ("n_edges", "n_nodes", "density", "faithfulness")
TITLE = "The smallest faithful circuits"


def section(data: RunData) -> Iterator[Section]:
    if data.results.empty:
        yield Section("smallest", TITLE, NOTHING)
        return
    searched = Searched(data.reach)
    yield Section(
        "smallest",
        TITLE,
        f"{_told(searched, data)} Over all inputs; the metric is the one chosen above.",
        (key_table(data.results, searched),),
    )


def _told(searched: Searched, data: RunData) -> str:
    if not searched:
        return "Of the sizes that were measured, the smallest that reaches a faithfulness."
    metric = metric_name(str(data.reach["metric"].iloc[0]))
    n = int(data.reach.drop_duplicates(list(SEARCHED))["n_measured"].sum())
    return (
        f"By {escape(metric)}, sizes were searched for between the thresholds, with {n:,} circuits "
        "more: given is the smallest that reaches a faithfulness and above which all that were "
        "measured do (|1 − φ| is small enough, so that more than the model does not count). By "
        "other metrics it is the smallest that was measured and reaches it."
    )


def key_table(results: pd.DataFrame, searched: Searched) -> Table:
    """The smallest faithful circuit of each line; the page's menus choose among the rows."""
    wanted = tuple(sorted({*LEVELS, *searched.levels}))
    table = smallest_faithful(results, wanted, searched)
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
    head = [*names, *(f"edges for φ&nbsp;≥&nbsp;{level}" for level in wanted), "best φ"]
    return Table(head, rows, range(len(names), len(head)), chosen)


def smallest_faithful(
    results: pd.DataFrame, levels: tuple[float, ...], searched: Searched | None = None
) -> pd.DataFrame:
    """The smallest measured circuit of each series that reaches a faithfulness, all inputs; where
    it was searched for, what was found.

    Returns:
        One row a line and level: the columns that tell lines apart, `level`, and n_edges, n_nodes,
        density and faithfulness of that circuit (NaN where no circuit of the grid reaches the
        level), of one that was searched for `threshold` and `below`, between which the smallest
        lies, `best` (the highest faithfulness of a circuit with an edge) and `best_n_edges`.
    """
    table = with_series(results)
    table = table[table["subset"] == "all"]
    keys = ["metric", "model", "task", *varying(table, VARIANTS), "series", "ablation"]
    rows = []
    for key, group in table.groupby(keys, sort=True):
        top, line = _most_faithful(group), group.iloc[0].to_dict()
        for level in levels:
            found = (searched.answer(line, level) if searched else None) or _measured(group, level)
            row = {**dict(zip(keys, key, strict=True)), "level": level}
            row |= {c: found.get(c, np.nan) for c in (*SIZES, "threshold", "below")}
            rows.append({**row, "best": top["faithfulness"], "best_n_edges": top["n_edges"]})
    return pd.DataFrame(rows)


def _measured(group: pd.DataFrame, level: float) -> dict[Hashable, Any]:
    """The smallest circuit of a line that was measured and is so faithful, if there is one."""
    enough = group[group["faithfulness"] >= level].sort_values("n_edges")
    return enough.iloc[0][list(SIZES)].to_dict() if len(enough) else {}


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
    part, gap = f"{share(row['density'])}, ", row["threshold"] - row["below"]
    size = f"{int(row['n_edges']):,}{_small(row['n_nodes'], 'nodes', part)}"
    if pd.isna(gap) or gap <= 1:
        return size
    return f"{size}<small>or a size above {int(row['below']):,}</small>"


def _small(count: float, what: str, before: str) -> str:
    return f"<small>{before}{int(count):,}&nbsp;{what}</small>"
