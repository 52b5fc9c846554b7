"""The sections that hold rankings against a known circuit (Syed et al. 2023, figures 2 and 3)."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.roc import in_out_figure, precision_figure, roc_figure
from edgesweep.dashboards.names import varying
from edgesweep.dashboards.pages import (
    Choice,
    Figure,
    Part,
    Section,
    Side,
    Table,
    entry,
    legend,
    marker,
    swatch,
)
from edgesweep.dashboards.series import meta, named, told_to_menus
from edgesweep.dashboards.style import KNOWN, OTHER

#: measure -> head of its column
HEADS = {
    "roc_auc": "area under ROC",
    "average_precision": "average precision",
    "youden_j": "Youden's J",
}
#: points of one curve; a ranking of 70,000 edges has as many
MAX_CURVE_POINTS = 400


def section(data: RunData) -> Iterator[Section]:
    """Nothing where no circuit is known."""
    if data.roc.empty:
        return
    table = with_measures(data)
    columns = told_to_menus(table, data.results)
    curves = {"roc": (roc_figure, "ROC curve"), "pr": (precision_figure, "Precision and recall")}
    places = [
        Figure(name, draw(table, columns, data), title, f"<h3>{title}</h3>")
        for name, (draw, title) in curves.items()
    ]
    circuits = escape(", ".join(sorted(set(table["known"]))))
    yield Section(
        "known",
        "Against a known circuit",
        f"The edges of a known circuit, {circuits}, are taken as the truth, "
        "and each method's ranking is read from its strongest edge down. True positive rate, or "
        "recall: the share of the true edges found so far; false positive rate: the share of all "
        "others taken with them; precision: the share of what was taken that is true. The dotted "
        "line is a random order. A circuit that people found by hand may lack edges, so that a "
        f"method may be right where this calls it wrong.{_of_nodes(table, data)}",
        (_legend(table, columns, data), Side(places), measures_table(table, columns, data)),
    )
    yield from _in_and_out(data)


def _of_nodes(table: pd.DataFrame, data: RunData) -> str:
    if not any(data.scores_nodes(cell) for cell in table["cell"].unique()):
        return ""
    return (
        " Methods that score nodes are held against the circuit's nodes: their numbers compare "
        "with each other, not with those of edges."
    )


def with_measures(data: RunData) -> pd.DataFrame:
    """The points that are drawn, with names of lines and a column a measure of HEADS (NaN if not
    measured)."""
    keys = ["cell", "aggregation", "selection"]
    curves = data.roc.sort_values([*keys, "point"]).groupby(keys, sort=True)
    table = named(pd.concat([thinned_curve(rows) for _, rows in curves]))
    for measure in HEADS:
        if data.measures.empty:
            table[measure] = np.nan
            continue
        found = data.measures[data.measures["measure"] == measure]
        values = found[[*keys, "value"]].drop_duplicates(keys).rename(columns={"value": measure})
        table = table.merge(values, on=keys, how="left")
    return table


def thinned_curve(rows: pd.DataFrame) -> pd.DataFrame:
    """At most about MAX_CURVE_POINTS of a curve's points, denser where it begins: the strongest
    edges matter most. The first and the last stay."""
    n, half = len(rows), MAX_CURVE_POINTS // 2
    if n <= MAX_CURVE_POINTS:
        return rows
    even, early = np.linspace(0, n - 1, half), np.geomspace(1, n, half) - 1
    return rows.iloc[np.unique(np.concatenate([even, early]).astype(int))]


# --- words -------------------------------------------------------------------------------------


def _lines_of(table: pd.DataFrame) -> list[Mapping[str, Any]]:
    """The first row of each line, the best first."""
    firsts = table.drop_duplicates(["cell", "aggregation", "selection"])
    ordered = firsts.sort_values(["roc_auc", "series"], ascending=[False, True])
    return [{str(k): v for k, v in row.items()} for row in ordered.to_dict("records")]


def _legend(table: pd.DataFrame, columns: list[str], data: RunData) -> str:
    entries = []
    for row in _lines_of(table):
        area = "" if pd.isna(row["roc_auc"]) else f", {row['roc_auc']:.3f}"
        mark = data.marks[str(row["method_name"])]
        entries.append(entry(mark, f"{row['series']}{area}", meta(row, columns)))
    return legend(*entries)


def measures_table(table: pd.DataFrame, columns: list[str], data: RunData) -> Part:
    """A row a line, the best first; nothing where nothing was measured."""
    told = varying(table, ("variant", "model", "task"))
    names = {"variant": "chosen by", "model": "model", "task": "task"}
    shown = [m for m in HEADS if table[m].notna().any()]
    if not shown:
        return ""
    head = ["method", *(names[c] for c in told), *(HEADS[m] for m in shown)]
    lines = _lines_of(table)
    rows = [
        [
            _method(row, data),
            *(escape(str(row[c])) for c in told),
            *(_number(row[m]) for m in shown),
        ]
        for row in lines
    ]
    return Table(head, rows, range(1 + len(told), len(head)), [meta(r, columns) for r in lines])


def _method(row: Mapping[str, Any], data: RunData) -> str:
    mark = marker(data.marks[str(row["method_name"])])
    nodes = "<small>by nodes</small>" if data.scores_nodes(str(row["cell"])) else ""
    return f"{mark}{escape(str(row['method_name']))}{nodes}"


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


# --- scores in and out of the circuit ----------------------------------------------------------


def _in_and_out(data: RunData) -> Iterator[Section]:
    figures = {
        data.cell_names[cell]: in_out_figure(scores, data.true(cell))
        for cell, scores in data.histograms.items()
        if data.true(cell).any() and np.isfinite(scores).any()
    }
    if not figures:
        return
    yield Section(
        "in-out",
        "Scores in and out of the known circuit",
        f"The {escape(data.aggregation)} score of every edge, or node of a method that scores "
        "nodes, split by whether it is in the known circuit; counts are logarithmic. A method that "
        "finds the circuit gives its edges scores far from zero, and all others scores near it.",
        (
            legend(swatch(KNOWN, "in the known circuit"), swatch(OTHER, "outside it")),
            Choice("inout", "cell", figures, next(iter(figures))),
        ),
        link="In and out",
    )
