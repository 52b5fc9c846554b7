"""Faithfulness against size: the run's main figure (Dhimoïla figures 10 and 11)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.names import FEATURES, method_name, metric_name, varying
from edgesweep.dashboards.style import DASHES, SYMBOLS, Mark, log_ticks, marks, styled

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
#: x column -> axis title, log or linear
AXES = {
    "n_edges": ("edges in the circuit", "log"),
    "n_nodes": ("nodes in the circuit", "linear"),
    "average_degree": ("average degree, 2 E / N", "log"),
}
#: axes that differ where all nodes are features, of which circuits have from ten to thousands
FEATURE_AXES = {**AXES, "n_nodes": ("features and errors in the circuit", "log")}
#: lines that one figure shows at once before its menus begin with one value each
MAX_LINES = 8
#: points in one figure, over all that its menus can choose
MAX_POINTS = 50_000
HOVER_COLUMNS = ("n_edges", "n_nodes", "average_degree", "value", "value_full", "value_empty")
#: what all lines share, said once: a large run has thousands of them
LOOKS = {
    "mode": "lines+markers",
    "line": {"width": 2},
    "marker": {"size": 7},
    "hovertemplate": (
        "<b>%{fullData.name}</b><br>φ %{y:.3f}<br>%{customdata[0]:,} edges, %{customdata[1]:,} "
        "nodes, degree %{customdata[2]:.1f}<br>value %{customdata[3]:.4g} "
        "(model %{customdata[4]:.4g}, empty %{customdata[5]:.4g})<extra></extra>"
    ),
}


def with_series(results: pd.DataFrame) -> pd.DataFrame:
    """Results of whole circuits with columns `method_name` (method and steps, if it is not there),
    `variant` (the rest that varies, "" if nothing does) and `series` (both)."""
    table = results[results["blocks"] == "all"]
    if "method_name" not in table:
        about = table.reindex(columns=["method", "steps", "nodes"])
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
    sizes = ["n_nodes", "n_edges", "average_degree", "density"]
    same = ("circuit", "split", "ablation", "eval_patch", "metric", "subset")
    keys = [c for c in same if c in results]
    rows = results[results["blocks"] == "complement"].drop(columns=sizes)
    whole = results.loc[results["blocks"] == "all", [*keys, *sizes]]
    return rows.merge(whole, on=keys).assign(blocks="all")


def axes_of(results: pd.DataFrame) -> Mapping[str, tuple[str, str]]:
    """The axes of these results' figures, by the kinds of their nodes."""
    return FEATURE_AXES if set(results.get("nodes", ())) == {FEATURES} else AXES


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
            text = {v: metric_name(v) if name == "metric" else v for v in values}
            chosen = default_metric(table) if name == "metric" else str(first[name])
            found.append(Menu(name, label, text, values[0] if name == "subset" else chosen))
    crowded = table.groupby(["series", "ablation"]).ngroups > MAX_LINES
    for name, label in _side_by_side(table).items():
        values = _ordered(table, name)
        chosen = (str(first[name]) or values[0]) if crowded else "*"
        found.append(Menu(name, label, {"*": "all", **{v: v for v in values}}, chosen))
    return found


def _side_by_side(table: pd.DataFrame) -> dict[str, str]:
    """What varies of VARIANTS; where the methods alone make a crowd, the ablation too."""
    found = {name: VARIANTS[name] for name in varying(table, VARIANTS)}
    crowd = table.groupby(["method_name", "ablation"]).ngroups > MAX_LINES
    return {"ablation": "ablation", **found} if crowd and varying(table, ["ablation"]) else found


def _ordered(table: pd.DataFrame, column: str) -> list[str]:
    """Values in the order of the table; of subsets, all inputs come first."""
    found = [v for v in dict.fromkeys(table[column].astype(str)) if v]
    return sorted(found, key=lambda v: v != "all") if column == "subset" else found


def told_to_menus(table: pd.DataFrame, results: pd.DataFrame) -> list[str]:
    """Columns of a table by which the page's menus, which are made of the results, can choose its
    rows: those whose values the results have too. By others no row would ever be chosen."""
    known = (*CHOSEN, *VARIANTS, "ablation")
    shared = [c for c in known if c in table and c in results]
    return [c for c in shared if set(table[c].astype(str)) - {""} <= set(results[c].astype(str))]


def meta(row: Mapping[Any, Any], columns: Iterable[str]) -> dict[str, str]:
    """What the menus choose a row, a line or a heatmap by; what has no value is always shown."""
    return {c: str(row[c]) for c in columns if str(row[c])}


# --- figures -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line: what its menus choose it by, its looks, and its points."""

    meta: dict[str, str]
    method: str
    variant: str
    ablation: str
    rows: pd.DataFrame

    @property
    def name(self) -> str:
        series = " · ".join(filter(None, (self.method, self.variant)))
        return f"{series}, {self.ablation} ablation"


def thinned(results: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Whole circuits' results within MAX_POINTS, and a sentence saying what is not shown."""
    table = results[results["blocks"] == "all"]
    if len(table) <= MAX_POINTS:
        return table, ""
    overall = table[table["subset"] == "all"].head(MAX_POINTS)
    return overall, (
        f"This run measured {len(table):,} points; the figures hold {len(overall):,} of them, over "
        "all inputs. The others are in results.parquet."
    )


def faithfulness_figure(
    results: pd.DataFrame,
    x: str,
    lead: pd.Series | None = None,
    looks: Mapping[str, Mark] | None = None,
    chosen: Sequence[Menu] | None = None,
) -> go.Figure:
    """Faithfulness against `x`, a key of AXES: one line a series and ablation. Where nothing but
    the method varies, symbols tell methods too.

    Each trace's `meta` holds the values of the menus' columns, by which the page chooses; those
    that the menus' first choices show are visible.

    Args:
        looks: the mark of each method_name; those of the table alone if None.
        chosen: the page's menus; those of the table alone if None.
    """
    table = with_series(results)
    chosen = menus(results, lead) if chosen is None else chosen
    looks = looks or marks(dict(zip(table["method_name"], table["method"], strict=True)))
    variants = sorted(set(table["variant"]))
    traces = []
    title, kind = axes_of(table)[x]
    log = kind == "log"
    for line in _lines(table, x, [menu.name for menu in chosen], kind):
        colour, symbol = looks[line.method]
        if len(variants) > 1:
            symbol = SYMBOLS[variants.index(line.variant) % len(SYMBOLS)]
        trace = {
            "type": "scatter",
            "x": line.rows[x].to_numpy(),
            "y": line.rows["faithfulness"].to_numpy(),
            "name": line.name,
            "line": {"color": colour, "dash": DASHES.get(line.ablation, "dot")},
            "marker": {"symbol": symbol + ("" if line.ablation == "edge" else "-open")},
            "customdata": line.rows[list(HOVER_COLUMNS)].to_numpy(np.float32),
            "meta": line.meta,
            "visible": all(m.chosen in ("*", line.meta.get(m.name, m.chosen)) for m in chosen),
        }
        traces.append(trace)
    figure = go.Figure(traces)
    _reference_lines(figure)
    return styled(
        figure,
        height=430 if x == "n_edges" else 360,
        xaxis={"title": {"text": title}, "type": kind, **(log_ticks(table[x]) if log else {})},
        yaxis={"title": {"text": "faithfulness φ"}, "range": _range(table), "dtick": 0.2},
        template={"data": {"scatter": [LOOKS]}},
    )


def _reference_lines(figure: go.Figure) -> None:
    for level, text, place in (
        (1, "the model", "top left"),
        (0, "the empty circuit", "bottom right"),
    ):
        figure.add_hline(
            level,
            line={"color": "#8a93a0", "width": 1},
            annotation={"text": text, "font": {"size": 11}},
            annotation_position=place,
        )


def _lines(table: pd.DataFrame, x: str, menu_names: list[str], kind: str) -> Iterator[Line]:
    told = ["method_name", "variant", "ablation"]
    table = table.sort_values(["n_edges", x])  # groups keep this order
    for key, rows in table.groupby([*(table[c] for c in (*menu_names, *told))], sort=True):
        *chosen, method, variant, ablation = (str(value) for value in key)
        shown = rows[rows[x] > 0] if kind == "log" else rows
        own = meta(dict(zip(menu_names, chosen, strict=True)), menu_names)
        yield Line(own, method, variant, ablation, shown)


def _range(table: pd.DataFrame) -> list[float]:
    """The unit interval and what lies a little outside it; far outliers stay outside the view."""
    values = table["faithfulness"].dropna()
    if values.empty:
        return [-0.1, 1.1]
    return [max(-0.6, min(-0.1, values.min() - 0.05)), min(1.8, max(1.1, values.max() + 0.05))]


def n_outside(results: pd.DataFrame) -> int:
    """Points whose faithfulness lies outside the drawn range."""
    table = results[results["blocks"] == "all"]
    low, high = _range(table)
    return int(((table["faithfulness"] < low) | (table["faithfulness"] > high)).sum())


# --- the key table -----------------------------------------------------------------------------


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
