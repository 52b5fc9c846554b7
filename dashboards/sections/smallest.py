"""The section of the smallest circuits that reach a faithfulness.

One rule for all that the page says of such circuits: the smallest of a line from which on all that
were measured have |1 − φ| ≤ 1 − level. It is told of the inputs that the page's menu chooses, on
which it is chosen too; beside it stands what may be quoted, the headlines' circuit of the same line
and inputs, which was chosen on a third of the prompts and is told of the others.
"""

from collections.abc import Hashable, Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.curves import thinned
from edgesweep.dashboards.names import decimal, metric_name, share, varying
from edgesweep.dashboards.pages import Section, Table
from edgesweep.dashboards.searched import SEARCHED, Searched
from edgesweep.dashboards.sections.curves import NOTHING
from edgesweep.dashboards.series import VARIANTS, with_series
from edgesweep.dashboards.summary import LEVELS
from edgesweep.engine.curves.levels import first_lasting

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
        f"{_told(searched, data)}{_quoted(data)} Metric and inputs are chosen above.",
        (key_table(thinned(data.results)[0], searched, data.headlines),),
    )


def _told(searched: Searched, data: RunData) -> str:
    rule = (
        "Of each line the smallest circuit from which on all that were measured are so faithful "
        "(|1 − φ| is small enough: more than the model does not count)."
    )
    if not searched:
        return rule
    metric = metric_name(str(data.reach["metric"].iloc[0]))
    n = int(data.reach.drop_duplicates(list(SEARCHED))["n_measured"].sum())
    return (
        f"{rule} By {escape(metric)} over all inputs, sizes were searched for between the "
        f"thresholds, with {n:,} circuits more."
    )


def _quoted(data: RunData) -> str:
    """What the last column is."""
    if data.headlines.empty:
        return ""
    level, first = data.headlines["level"].iloc[0], data.headlines.iloc[0]
    if first["chosen_on"] == "all":
        return f" Last, with its interval, what may be quoted for φ ≥ {level:g}."
    return (
        " These are chosen on the prompts that they are told of, which flatters them. What may be "
        f"quoted, for φ ≥ {level:g}, stands last: chosen by the same rule on a third of the "
        f"prompts, with φ and its interval on the others (the summary above is one of these)."
    )


def key_table(results: pd.DataFrame, searched: Searched, headlines: pd.DataFrame) -> Table:
    """The smallest faithful circuit of each line; the page's menus choose among the rows."""
    wanted = tuple(sorted({*LEVELS, *searched.levels}))
    table = smallest_faithful(results, wanted, searched)
    several = varying(table, ("model", "task"))
    lines = ["metric", "subset", "model", "task", *(c for c in VARIANTS if c in table)]
    lines += ["series", "ablation"]
    rows, chosen, quoted = [], [], _by_line(headlines)
    for _, group in table.groupby(lines, sort=True):
        levels = group.sort_values("level").to_dict("records")
        first = levels[0]
        told = [escape(str(first[c])) for c in ("series", "ablation", *several)]
        of_line = quoted.get(tuple(first[c] for c in (*SEARCHED, "subset")))
        rows.append([*told, *map(_size, levels), _best(first), *_as_quoted(of_line, headlines)])
        chosen.append({c: first[c] for c in lines if c != "series"})
    names = ["scored by", "ablation", *several]
    head = [*names, *(f"edges for φ&nbsp;≥&nbsp;{level}" for level in wanted), "best φ"]
    if len(headlines):
        head.append(f"to quote, φ&nbsp;≥&nbsp;{headlines['level'].iloc[0]:g}")
    return Table(head, rows, range(len(names), len(head)), chosen)


def smallest_faithful(
    results: pd.DataFrame, levels: tuple[float, ...], searched: Searched | None = None
) -> pd.DataFrame:
    """The smallest measured circuit of each series and subset of the inputs from which on all reach
    a faithfulness; where it was searched for, what was found.

    Returns:
        One row a line and level: the columns that tell lines apart, those of `SEARCHED`, `level`,
        and n_edges, n_nodes, density and faithfulness of that circuit (NaN where the largest of the
        grid does not reach the level), of one that was searched for `threshold` and `below`,
        between which the smallest lies, `best` (the highest faithfulness of a circuit with an edge)
        and `best_n_edges`.
    """
    table = with_series(results)
    keys = ["metric", "subset", "model", "task", *varying(table, VARIANTS), "series", "ablation"]
    rows = []
    for key, group in table.groupby(keys, sort=True):
        top, line = _most_faithful(group), group.iloc[0].to_dict()
        for level in levels:
            found = (searched.answer(line, level) if searched else None) or _measured(group, level)
            row = {**{c: line.get(c) for c in SEARCHED}, **dict(zip(keys, key, strict=True))}
            row["level"] = level
            row |= {c: found.get(c, np.nan) for c in (*SIZES, "threshold", "below")}
            rows.append({**row, "best": top["faithfulness"], "best_n_edges": top["n_edges"]})
    return pd.DataFrame(rows)


def _measured(group: pd.DataFrame, level: float) -> dict[Hashable, Any]:
    """The smallest circuit of a line from which on all that were measured are so faithful, if there
    is one."""
    group = group.sort_values("n_edges", kind="stable")
    near = np.abs(1 - group["faithfulness"].to_numpy()) <= 1 - level + 1e-12
    place = first_lasting(near & (group["n_edges"].to_numpy() > 0))
    return {} if place is None else group.iloc[place][list(SIZES)].to_dict()


def _most_faithful(group: pd.DataFrame) -> Mapping[str, float]:
    """The best circuit of a line that has an edge; NaN where none was measured."""
    measured = group[np.isfinite(group["faithfulness"]) & (group["n_edges"] > 0)]
    if measured.empty:
        return {"faithfulness": float("nan"), "n_edges": float("nan")}
    ranked = measured.sort_values(["faithfulness", "n_edges"], ascending=[False, True])
    return ranked.iloc[0].to_dict()


def _by_line(headlines: pd.DataFrame) -> dict[tuple[Any, ...], Mapping[Hashable, Any]]:
    rows = headlines.to_dict("records") if len(headlines) else []
    return {tuple(row[c] for c in (*SEARCHED, "subset")): row for row in rows}


def _as_quoted(row: Mapping[Hashable, Any] | None, headlines: pd.DataFrame) -> list[str]:
    """A cell of the last column; none where the run has no headlines."""
    if not len(headlines):
        return []
    if row is None:
        return [""]
    ends = "" if pd.isna(row["low"]) else f" [{decimal(row['low'])}, {decimal(row['high'])}]"
    phi = f"φ&nbsp;{decimal(row['faithfulness'])}{ends}"
    missed = "" if row["reached"] else ", not reached"
    part = share(row["n_edges"] / max(row["n_edges_possible"], 1))
    return [f"{int(row['n_edges']):,}<small>{part}, {phi}{missed}</small>"]


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
