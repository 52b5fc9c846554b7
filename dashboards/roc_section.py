"""The section that holds rankings against a known circuit (Syed et al. 2023, figures 2 and 3)."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.curves import meta, named, told_to_menus
from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import cell_names, varying
from edgesweep.dashboards.pages import Page, choosable, entry, legend, marker, swatch
from edgesweep.dashboards.style import KNOWN, OTHER, styled

#: measure -> head of its column
HEADS = {
    "roc_auc": "area under ROC",
    "average_precision": "average precision",
    "youden_j": "Youden's J",
}
#: points of one curve; a ranking of 70,000 edges has as many
MAX_CURVE_POINTS = 400
#: curves of so few points show them
FEW = 30
DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
N_BINS = 60


def add_known(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where no circuit is known."""
    if data.roc.empty:
        return
    table = with_measures(data)
    columns = told_to_menus(table, data.results)
    curves = {"roc": (roc_figure, "ROC curve"), "pr": (precision_figure, "Precision and recall")}
    places = [
        f"<div><h3>{title}</h3>{page.figure(name, draw(table, columns, data), title)}</div>"
        for name, (draw, title) in curves.items()
    ]
    circuits = escape(", ".join(sorted(set(table["known"]))))
    page.section(
        "known",
        "Against a known circuit",
        f"The edges of a known circuit, {circuits}, are taken as the truth, "
        "and each method's ranking is read from its strongest edge down. True positive rate, or "
        "recall: the share of the true edges found so far; false positive rate: the share of all "
        "others taken with them; precision: the share of what was taken that is true. The dotted "
        "line is a random order. A circuit that people found by hand may lack edges, so that a "
        f"method may be right where this calls it wrong.{_of_nodes(table, data)}",
        _legend(table, columns, data),
        f"<div class='two'>{''.join(places)}</div>",
        _table(table, columns, data),
    )
    _add_histograms(page, data)


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


# --- curves ------------------------------------------------------------------------------------


def roc_figure(table: pd.DataFrame, columns: list[str], data: RunData) -> go.Figure:
    """True against false positive rate; the diagonal is chance."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": OTHER, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    _add_lines(figure, table, columns, data, x="fpr", y="tpr")
    axis = {"range": [-0.01, 1.01], "dtick": 0.2}
    return styled(
        figure,
        xaxis={**axis, "title": {"text": "false positive rate"}},
        yaxis={**axis, "title": {"text": "true positive rate"}},
    )


def precision_figure(table: pd.DataFrame, columns: list[str], data: RunData) -> go.Figure:
    """Precision against recall; the dotted line is the share of true edges among all."""
    figure = go.Figure()
    of_edges = table[~table["cell"].map(data.scores_nodes).astype(bool)]
    for _, rows in of_edges.groupby(["model", "task"], sort=True):
        true = next((t for c in rows["cell"].unique() if len(t := data.true(c))), np.zeros(0))
        share = true.mean() if len(true) else np.nan
        figure.add_scatter(
            x=[0, 1],
            y=[share, share],
            mode="lines",
            line={"color": OTHER, "width": 1.5, "dash": "dot"},
            hovertemplate=f"a random order of edges: {share:.3g}<extra></extra>",
            meta=meta(rows.iloc[0].to_dict(), [c for c in columns if c in ("model", "task")]),
        )
    _add_lines(figure, table[table["tpr"] > 0], columns, data, x="tpr", y="precision")
    axis = {"range": [-0.01, 1.02], "dtick": 0.2}
    return styled(
        figure,
        xaxis={**axis, "title": {"text": "recall (true positive rate)"}},
        yaxis={**axis, "title": {"text": "precision"}},
    )


def _add_lines(
    figure: go.Figure, table: pd.DataFrame, columns: list[str], data: RunData, *, x: str, y: str
) -> None:
    variants = sorted(set(table["variant"]))
    for _, rows in table.groupby(["cell", "aggregation", "selection"], sort=True):
        first = rows.iloc[0]
        mark = data.marks[first["method_name"]]
        dash = DASHES[variants.index(first["variant"]) % len(DASHES)]
        figure.add_scatter(
            x=rows[x].to_numpy(np.float32),
            y=rows[y].to_numpy(np.float32),
            name=first["series"],
            mode="lines+markers" if len(rows) <= FEW else "lines",
            line={"color": mark.colour, "width": 2, "dash": dash},
            marker={"symbol": mark.symbol, "size": 7},
            customdata=rows["threshold"].to_numpy(np.float32),
            hovertemplate=f"<b>%{{fullData.name}}</b>{_area(first)}<br>{x} %{{x:.3f}}, {y} "
            "%{y:.3f}<br>threshold %{customdata:.3g}<extra></extra>",
            meta=meta(first.to_dict(), columns),
        )


def thinned_curve(rows: pd.DataFrame) -> pd.DataFrame:
    """At most about MAX_CURVE_POINTS of a curve's points, denser where it begins: the strongest
    edges matter most. The first and the last stay."""
    n, half = len(rows), MAX_CURVE_POINTS // 2
    if n <= MAX_CURVE_POINTS:
        return rows
    even, early = np.linspace(0, n - 1, half), np.geomspace(1, n, half) - 1
    return rows.iloc[np.unique(np.concatenate([even, early]).astype(int))]


def _area(first: pd.Series) -> str:
    area = first["roc_auc"]
    return "" if pd.isna(area) else f"<br>area under ROC {area:.3f}"


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


def _table(table: pd.DataFrame, columns: list[str], data: RunData) -> str:
    told = varying(table, ("variant", "model", "task"))
    names = {"variant": "chosen by", "model": "model", "task": "task"}
    shown = [m for m in HEADS if table[m].notna().any()]
    if not shown:
        return ""
    head = "".join(f"<th>{h}</th>" for h in ("method", *(names[c] for c in told)))
    head += "".join(f"<th class=n>{HEADS[m]}</th>" for m in shown)
    body = []
    for row in _lines_of(table):
        mark = marker(data.marks[str(row["method_name"])])
        nodes = "<small>by nodes</small>" if data.scores_nodes(str(row["cell"])) else ""
        cells = f"<td>{mark}{escape(str(row['method_name']))}{nodes}</td>"
        cells += "".join(f"<td>{escape(str(row[c]))}</td>" for c in told)
        cells += "".join(f"<td class=n>{_number(row[m])}</td>" for m in shown)
        body.append(f"<tr {choosable(meta(row, columns))}>{cells}</tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(body)}</table></div>"


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


# --- scores in and out of the circuit ----------------------------------------------------------


def _add_histograms(page: Page, data: RunData) -> None:
    names = cell_names(data.plan["cells"])
    figures = {
        names[cell]: in_out_figure(scores, data.true(cell))
        for cell, scores in data.histograms.items()
        if data.true(cell).any() and np.isfinite(scores).any()
    }
    if not figures:
        return
    page.section(
        "in-out",
        "Scores in and out of the known circuit",
        f"The {escape(data.aggregation)} score of every edge, or node of a method that scores "
        "nodes, split by whether it is in the known circuit; counts are logarithmic. A method that "
        "finds the circuit gives its edges scores far from zero, and all others scores near it.",
        legend(swatch(KNOWN, "in the known circuit"), swatch(OTHER, "outside it")),
        page.chooser("inout", "cell", figures, next(iter(figures))),
        link="In and out",
    )


def in_out_figure(scores: np.ndarray, true: np.ndarray) -> go.Figure:
    """Histogram of signed scores, in and out of the known circuit.

    Args:
        scores: [n]; what is not finite is not counted.
        true: bool [n].
    """
    finite = np.isfinite(scores)
    edges = np.histogram_bin_edges(scores[finite], N_BINS)
    figure = go.Figure()
    for inside, colour, name in ((False, OTHER, "outside"), (True, KNOWN, "in the circuit")):
        mine = scores[finite & (true == inside)]
        counts, _ = np.histogram(mine, edges)
        figure.add_bar(
            x=(edges[1:] + edges[:-1]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": colour, "opacity": 0.75},
            name=name,
            hovertemplate=f"score %{{x:.3g}}: %{{y:,}} {name}{_spread(mine)}<extra></extra>",
        )
    return styled(
        figure,
        height=340,
        xaxis={"title": {"text": "score"}},
        yaxis={"title": {"text": "count"}, "type": "log", "dtick": 1, "range": [-0.3, None]},
        barmode="overlay",
    )


def _spread(scores: np.ndarray) -> str:
    if not len(scores):
        return ""
    return f"<br>all {len(scores):,}: mean {scores.mean():.3g}, std {scores.std():.3g}"
