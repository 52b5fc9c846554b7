"""How many interactions and directions a network needs."""

from collections.abc import Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.layered import score_curves
from edgesweep.dashboards.names import varying
from edgesweep.dashboards.pages import Choice, Section, Table

#: what tells two sections apart
OF_SECTION = ["model", "task", "source", "target", "steps", "rule"]


def section(data: RunData) -> Iterator[Section]:
    """Edges needed, and the score against the number of edges."""
    needed = data.layered.get("edges_needed", pd.DataFrame())
    if needed.empty:
        return
    first = needed.iloc[0]
    yield Section(
        "edges-needed",
        "Interactions that are needed",
        "How many interactions of one section, the strongest first, the network needs to stay "
        "within "
        f"{first['within']:g} of its own {escape(first['metric'])} on {first['n_inputs']:,} "
        "evaluation prompts, the rest of it left as it is. <i>Published search</i>: the bisection "
        "of "
        "Bushnaq et al. (2024), step by step. <i>Robust</i>: the smallest number tried from which "
        "on "
        "all larger ones suffice, with an interval over resamples of the prompts. In the figure "
        "open "
        "marks are the published search's steps, and the dotted line is the network itself.",
        (_table(needed), *_curves(data, needed)),
    )


def _table(needed: pd.DataFrame) -> Table:
    told = varying(needed, OF_SECTION[:2] + OF_SECTION[4:])
    rows = []
    for _, group in needed.groupby(["graph", "source"], sort=False):
        by_search = {row["search"]: row for row in group.to_dict("records")}
        robust, bisect = by_search["robust"], by_search["bisect"]
        span = "" if pd.isna(robust["low"]) else f"{robust['low']:,.0f} to {robust['high']:,.0f}"
        rows.append(
            [
                *(escape(str(robust[c])) for c in told),
                f"{escape(robust['source'])} → {escape(robust['target'])}",
                escape(robust["basis"]),
                f"{bisect['edges']:,}",
                f"{robust['edges']:,}",
                span,
                f"{robust['possible']:,}",
            ]
        )
    head = [*told, "section", "basis", "published search", "robust", "interval", "interactions"]
    return Table(head, rows, range(len(told) + 2, len(head)))


def _curves(data: RunData, needed: pd.DataFrame) -> Iterator[Choice]:
    curves = data.layered["section_curves"]
    figures = {}
    for key, rows in curves.groupby(OF_SECTION, sort=True):
        mine = needed
        for column, value in zip(OF_SECTION, key, strict=True):
            mine = mine[mine[column] == value]
        base, metric = float(mine["base"].iloc[0]), str(mine["metric"].iloc[0])
        figures[_name(curves, key)] = score_curves(rows, "edges", "interactions kept", base, metric)
    if figures:
        yield Choice("section-curves", "section", figures, next(iter(figures)))


def _name(table: pd.DataFrame, key: tuple[object, ...]) -> str:
    """A section in words; what all have in common is left out."""
    told = dict(zip(OF_SECTION, key, strict=True))
    others = [str(told[c]) for c in varying(table, ["model", "task", "steps", "rule"])]
    return " · ".join([*others, f"{told['source']} → {told['target']}"])


def directions(data: RunData) -> Iterator[Section]:
    """The score of a network that keeps the first directions of one layer."""
    table = data.layered.get("directions", pd.DataFrame())
    if table.empty:
        return
    of = ["model", "task", "layer"]
    told = varying(table, of[:2])
    metric = str(data.config["edges_needed"]["metric"])
    figures = {
        " · ".join(str(dict(zip(of, key, strict=True))[c]) for c in (*told, "layer")): score_curves(
            rows, "directions", "directions kept", None, metric
        )
        for key, rows in table.groupby(of, sort=True)
    }
    yield Section(
        "directions",
        "Directions that are needed",
        "The network with one layer's first directions alone, by importance (of PCA by variance); "
        "the "
        "mean is always kept. At the last point the layer is as it was.",
        (Choice("direction-curves", "layer", figures, next(iter(figures))),),
    )
