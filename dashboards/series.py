"""Lines of results: what tells one from another, and the menus that choose among them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from edgesweep.dashboards.names import method_name, metric_name, varying

#: what the page shows one value of at a time, with the label of its menu
CHOSEN = {"metric": "metric", "subset": "inputs", "model": "model", "task": "task"}
#: what may be shown side by side
VARIANTS = {
    "nodes": "nodes",
    "build_patch": "patch, to build",
    "build_metric": "metric, to build",
    "aggregation": "aggregation",
    "selection": "selection",
    "eval_patch": "patch, to evaluate",
    "split": "split",
}
#: subsets of the inputs that are no task, in words; of a mixture they come first, but the last
SUBSETS = {"macro": "mean over tasks", "worst": "worst task", "all": "all inputs"}
#: lines that one figure shows at once before its menus begin with one value each
MAX_LINES = 8


def with_series(results: pd.DataFrame) -> pd.DataFrame:
    """Results of whole circuits with columns `method_name` (method and steps, if it is not there),
    `variant` (the rest that varies, "" if nothing does) and `series` (both)."""
    table = results[results["blocks"] == "all"]
    if "method_name" not in table:
        about = table[["method", "steps"]]
        names = [method_name(*row) for row in about.itertuples(index=False, name=None)]
        table = table.assign(method_name=names)
    return named(table)


def named(table: pd.DataFrame) -> pd.DataFrame:
    """A table that has `method_name`, with `variant` and `series` as above."""
    told = table[varying(table, VARIANTS)].astype(str)
    variant = [" · ".join(filter(None, row)) for row in told.itertuples(index=False, name=None)]
    pairs = zip(table["method_name"], variant, strict=True)
    return table.assign(variant=variant, series=[" · ".join(filter(None, p)) for p in pairs])


def complements(results: pd.DataFrame) -> pd.DataFrame:
    """What was measured of the model without a circuit, in the form of rows of whole circuits: with
    the sizes of the circuits that were taken out."""
    sizes = ["n_nodes", "n_edges", "average_degree", "density", "density_among_found"]
    same = ("circuit", "split", "ablation", "eval_patch", "metric", "subset")
    keys = [c for c in same if c in results]
    rows = results[results["blocks"] == "complement"].drop(columns=sizes)
    whole = results.loc[results["blocks"] == "all", [*keys, *sizes]]
    return rows.merge(whole, on=keys).assign(blocks="all")


def default_metric(table: pd.DataFrame) -> str:
    """KL where it was measured (the paper prefers it: logits are noisy), else the first."""
    metrics = list(dict.fromkeys(table["metric"]))
    return "kl" if "kl" in metrics else metrics[0]


# --- what the page can choose ------------------------------------------------------------------


@dataclass(frozen=True)
class Menu:
    """One menu: `options` maps values to their text, `*` standing for all; `chosen` comes first."""

    name: str
    label: str
    options: Mapping[str, str]
    chosen: str


def menus(results: pd.DataFrame, lead: pd.Series | None = None) -> list[Menu]:
    """Menus for what varies; metric and inputs always.

    Args:
        lead: the row that the page leads with, which the first choice of every menu shows.
    """
    table = with_series(results)
    first = lead if lead is not None else table.iloc[0]
    found = []
    for name, label in CHOSEN.items():
        values = _ordered(table, name)
        if name in ("metric", "subset") or len(values) > 1:
            text = {v: _in_words(name, v) for v in values}
            chosen = default_metric(table) if name == "metric" else str(first[name])
            found.append(Menu(name, label, text, values[0] if name == "subset" else chosen))
    crowded = table.groupby(["series", "ablation"]).ngroups > MAX_LINES
    for name, label in _side_by_side(table).items():
        values = _ordered(table, name)
        chosen = (str(first[name]) or values[0]) if crowded else "*"
        found.append(Menu(name, label, {"*": "all", **{v: v for v in values}}, chosen))
    return found


def _in_words(name: str, value: str) -> str:
    if name == "subset":
        return SUBSETS.get(value, value)
    return metric_name(value) if name == "metric" else value


def _side_by_side(table: pd.DataFrame) -> dict[str, str]:
    """What varies of VARIANTS; where the methods alone make a crowd, the ablation too."""
    found = {name: VARIANTS[name] for name in varying(table, VARIANTS)}
    crowd = table.groupby(["method_name", "ablation"]).ngroups > MAX_LINES
    return {"ablation": "ablation", **found} if crowd and varying(table, ["ablation"]) else found


def _ordered(table: pd.DataFrame, column: str) -> list[str]:
    """Values in the order of the table; of subsets, what is said of all tasks comes first, and all
    inputs of a mixture last."""
    found = [v for v in dict.fromkeys(table[column].astype(str)) if v]
    if column != "subset":
        return found
    first = ("macro", "worst") if "macro" in found else ("all",)
    return [v for v in first if v in found] + sorted(
        (v for v in found if v not in first), key=lambda v: v == "all"
    )


def told_to_menus(table: pd.DataFrame, results: pd.DataFrame) -> list[str]:
    """Columns of a table by which the page's menus, which are made of the results, can choose its
    rows: those whose values the results have too. By others no row would ever be chosen."""
    known = (*CHOSEN, *VARIANTS, "ablation")
    shared = [c for c in known if c in table and c in results]
    return [c for c in shared if set(table[c].astype(str)) - {""} <= set(results[c].astype(str))]


def meta(row: Mapping[Any, Any], columns: Iterable[str]) -> dict[str, str]:
    """What the menus choose a row, a line or a heatmap by; what has no value is always shown."""
    return {c: str(row[c]) for c in columns if str(row[c])}
