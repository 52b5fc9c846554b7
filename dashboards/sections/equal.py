"""The section that compares edge ablation with node ablation at equal faithfulness."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.headline import leading
from edgesweep.dashboards.names import share, varying
from edgesweep.dashboards.pages import Section, Table, marker
from edgesweep.dashboards.series import SUBSETS, meta, named, told_to_menus

TITLE = "Edge against node ablation"
COUNTED = ("edges", "nodes")
#: rows in the table, over all that its menus can choose
MAX_ROWS = 3000
WORDS = ("yes", "no", "open")


def section(data: RunData) -> Iterator[Section]:
    """Nothing of a run by one ablation."""
    if data.equal_phi.empty:
        return
    table = named(data.equal_phi)
    if len(table) > len(COUNTED) * MAX_ROWS:
        table = table[table["level"] == 0.8]
    yield Section(
        "equal",
        TITLE,
        "The same rankings, run by their edges and by their nodes: how large a circuit has to be "
        "for the same faithfulness, on the logarithm between two measured sizes. Dhimoïla (2024, "
        "section 5.2) finds that edge ablation needs less, whether edges or nodes are counted. The "
        f"ratio is edge over node ablation. {_found(data, table)}{_intervals(data)} Metric, inputs "
        "and the rest are chosen under <a href='#curves'>Faithfulness against size</a>.",
        (equal_table(table, data),),
        link="Edge or node ablation",
    )


def verdict(row: Mapping[Any, Any]) -> str:
    """Whether edge ablation needs less: `yes`, `no`, or `open` where the interval of the ratio
    holds 1 or is not known."""
    if row["ratio_high"] < 1:
        return "yes"
    return "no" if row["ratio_low"] > 1 else "open"


def _found(data: RunData, table: pd.DataFrame) -> str:
    """Where it holds, at φ = 0.8, in the metric and on the inputs that the page leads with."""
    lead = leading(data)
    if lead is None:
        return ""
    rows = table[table["level"] == 0.8]
    for column in ("metric", "subset", "model", "task"):
        rows = rows[rows[column] == lead[column]]
    told = []
    for counted in COUNTED:
        found = [verdict(row) for row in rows[rows["counted"] == counted].to_dict("records")]
        if found:
            n = {word: found.count(word) for word in WORDS}
            told.append(
                f"by {counted} that holds for {n['yes']} of {len(found)}, does not for {n['no']}, "
                f"and is open for {n['open']}"
            )
    inputs = SUBSETS.get(str(lead["subset"]), str(lead["subset"]))
    whose = f"{escape(str(lead['model']))} on {escape(str(lead['task']))}, {inputs}"
    return f"Of the rankings here ({whose}, φ = 0.8), {'; '.join(told)}. " if told else ""


def _intervals(data: RunData) -> str:
    if data.equal_phi["ratio_low"].isna().all():
        return ""
    level = share(data.config["measures"]["level"])
    return (
        f"Ranges are {level} bootstrap intervals over evaluation prompts; where that of the ratio "
        "holds 1 the question is open. ≤: the smallest measured circuit is already there."
    )


def equal_table(table: pd.DataFrame, data: RunData) -> Table:
    """A row a ranking and level."""
    columns = told_to_menus(table, data.results)
    told = varying(table, ("variant", "model", "task"))
    heads = {"variant": "ranked by", "model": "model", "task": "task"}
    of = [head for counted in COUNTED for head in _heads(counted)]
    head = ["method", *(heads[c] for c in told), "φ", *of]
    rows, chosen = [], []
    keys = ["cell", "aggregation", "selection", "eval_patch", "metric", "subset", "level"]
    for _, pair in table.groupby(keys, sort=True):
        by = {row["counted"]: row for row in pair.to_dict("records")}
        first = by[COUNTED[0]]
        name = f"{marker(data.marks[first['method_name']])}{escape(first['method_name'])}"
        cells = [cell for counted in COUNTED for cell in _cells(by[counted])]
        rows.append([name, *(escape(str(first[c])) for c in told), f"{first['level']:g}", *cells])
        chosen.append(meta(first, columns))
    return Table(head, rows, range(1 + len(told), len(head)), chosen)


def _heads(counted: str) -> list[str]:
    sides = [f"{counted}, {side} ablation" for side in ("edge", "node")]
    return [*sides, "ratio", f"fewer {counted}"]


def _cells(row: Mapping[Any, Any]) -> list[str]:
    sizes = [_size(row, side) for side in ("edge", "node")]
    ratio = "" if pd.isna(row["ratio"]) else f"{_ratio(row['ratio'])}{_range(row, 'ratio', _ratio)}"
    return [*sizes, ratio, verdict(row)]


def _size(row: Mapping[Any, Any], side: str) -> str:
    value = row[side]
    if pd.isna(value):
        return "<span class='dim'>not defined</span>"
    if np.isinf(value):
        return "<span class='dim'>not reached</span>"
    least = "≤ " if value <= row[f"{side}_smallest"] else ""
    return f"{least}{_count(value)}{_range(row, side, _count)}"


def _range(row: Mapping[Any, Any], name: str, told: Any) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"<small>{told(low)}&nbsp;to&nbsp;{told(high)}</small>"


def _count(value: float) -> str:
    return "more" if np.isinf(value) else f"{value:,.0f}"


def _ratio(value: float) -> str:
    return "more" if np.isinf(value) else f"{value:.2g}"
