"""How many interactions and directions a network needs."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.layered import score_curves
from edgesweep.dashboards.names import varying
from edgesweep.dashboards.pages import Choice, Section, Table

#: what tells two searches apart, and two sections
OF_SEARCH = ["graph", "source", "target"]
OF_SECTION = ["model", "task", "source", "target", "steps", "rule"]


def section(data: RunData) -> Iterator[Section]:
    """Edges needed, one basis against another, all sections at once, and the score against the
    number of edges."""
    needed = data.layered.get("edges_needed", pd.DataFrame())
    if needed.empty:
        return
    first = needed.iloc[0]
    at_once = needed.groupby(OF_SEARCH)["search"].transform(lambda of: "own" in set(of))
    tables = [_table(needed[~at_once])]
    if at_once.any():
        tables.append(_at_once(needed[at_once]))
    if len(pairs := data.layered["needed_pairs"]):
        tables.append(_pairs(pairs))
    yield Section(
        "edges-needed",
        "Interactions that are needed",
        "How many interactions of one section, the strongest first, the network needs to stay "
        f"within {first['within']:g} of its own {escape(first['metric'])} on "
        f"{first['n_inputs']:,} evaluation prompts, the rest of it left as it is. <i>Published "
        "search</i>: the bisection of Bushnaq et al. (2024), step by step. <i>Robust</i>: the "
        "smallest number tried from which on all larger ones suffice, with an interval over "
        "resamples of the prompts. <i>All at once</i>: with edges of all sections left out "
        "together, each first with what it needs by itself, then with the smallest number, shared "
        "out in these proportions, that suffices. In the figure open marks are the published "
        "search's steps, and the dotted line is the network itself.",
        (*tables, *_curves(data, needed)),
    )


def _table(needed: pd.DataFrame) -> Table:
    told = varying(needed, OF_SECTION[:2] + OF_SECTION[4:])
    rows = []
    for _, group in needed.groupby(OF_SEARCH, sort=False):
        by_search = {row["search"]: row for row in group.to_dict("records")}
        robust, bisect = by_search["robust"], by_search.get("bisect")
        rows.append(
            [
                *(escape(str(robust[c])) for c in told),
                _section(robust),
                escape(robust["basis"]),
                *([] if bisect is None else [f"{bisect['edges']:,}"]),
                f"{robust['edges']:,}",
                _span(robust),
                f"{robust['possible']:,}",
                _can_go(robust["edges"], robust["possible"]),
            ]
        )
    bisected = ["published search"] if "bisect" in set(needed["search"]) else []
    searches = [*bisected, "robust", "interval"]
    head = [*told, "section", "basis", *searches, "interactions", "can go"]
    return Table(head, rows, range(len(told) + 2, len(head)))


def _can_go(edges: int, possible: int) -> str:
    """Never rounded to all of them."""
    share = max(0.0, 1 - edges / possible)
    return f"{share:.2%}" if share < 0.9999 else f"{share:.4%}"


def _at_once(needed: pd.DataFrame) -> Table:
    """What sections need together."""
    told = varying(needed, OF_SECTION[:2] + OF_SECTION[4:])
    rows = []
    for _, group in needed.groupby(OF_SEARCH, sort=False):
        by_search = {row["search"]: row for row in group.to_dict("records")}
        own, robust = by_search["own"], by_search["robust"]
        rows.append(
            [
                *(escape(str(own[c])) for c in told),
                escape(own["basis"]),
                f"{own['edges']:,}",
                f"{own['score']:.4g}",
                f"{own['base']:.4g}",
                f"{robust['edges']:,}",
                _span(robust),
                f"{robust['possible']:,}",
            ]
        )
    metric = escape(str(needed["metric"].iloc[0]))
    scored = ["each's own number", f"{metric} with these", f"{metric} of the network"]
    head = [*told, "all sections at once", *scored, "robust", "interval", "interactions"]
    return Table(head, rows, range(len(told) + 1, len(head)))


def _pairs(pairs: pd.DataFrame) -> Table:
    """One basis against another."""
    told = varying(pairs, OF_SECTION[:2] + OF_SECTION[4:])
    rows = [
        [
            *(escape(str(row[c])) for c in told),
            _section(row),
            f"{escape(row['basis_a'])} less {escape(row['basis_b'])}",
            f"{row['difference']:+,.0f}",
            _span(row),
            f"{row['fewer']:.0%}",
            f"{row['more']:.0%}",
        ]
        for row in pairs.to_dict("records")
    ]
    head = [*told, "section", "robust numbers", "difference", "interval", "fewer in", "more in"]
    return Table(head, rows, range(len(told) + 2, len(head)))


def _section(row: Mapping[Any, Any]) -> str:
    return f"{escape(str(row['source']))} → {escape(str(row['target']))}"


def _span(row: Mapping[Any, Any]) -> str:
    return "" if pd.isna(row["low"]) else f"{row['low']:,.0f} to {row['high']:,.0f}"


def _curves(data: RunData, needed: pd.DataFrame) -> Iterator[Choice]:
    curves = data.layered["section_curves"]
    figures = {}
    for key, rows in curves.groupby(OF_SECTION, sort=False):
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
        for key, rows in table.groupby(of, sort=False)
    }
    yield Section(
        "directions",
        "Directions that are needed",
        "The network with one layer's first directions alone, by importance (of PCA by variance); "
        "the "
        "mean is always kept. At the last point the layer is as it was.",
        (Choice("direction-curves", "layer", figures, next(iter(figures))),),
    )
