"""What interaction graphs are made of."""

from collections.abc import Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import varying
from edgesweep.dashboards.pages import Section, Table
from edgesweep.dashboards.searched import leading
from edgesweep.dashboards.summary import BY_SEARCH


def section(data: RunData) -> Iterator[Section]:
    """Modules, beside those of rewired graphs, and block models."""
    found = data.layered.get("modularity", pd.DataFrame())
    if found.empty:
        return
    leiden, sbm = (found[found["method"] == name] for name in ("leiden", "sbm"))
    tables = [table(rows) for table, rows in ((_modules, leiden), (_blocks, sbm)) if len(rows)]
    yield Section(
        "modules",
        "Modules",
        "Sets of directions that act on each other more than their degrees would have it, among "
        f"the interactions that are needed {_by(data)} (Leiden's partition, the best of some "
        "seeds; a weight is the logarithm of an interaction to the weakest that is needed). "
        "<i>Agreement</i>: adjusted mutual information of two seeds. <i>Rewired</i>: modularity of "
        "graphs with the same degrees in each section, on average and at the most, and p of the "
        "graph's own among them. A module has two directions or more; its directions have one "
        "colour in the drawing above. Block models say which directions of one layer act, and are "
        "acted on, alike: what their description saves of that with one block a layer.",
        tuple(tables),
    )


def _by(data: RunData) -> str:
    """How it was found which are needed; of sections that differ in it, all ways."""
    searches = set(leading(data.layered["edges_needed"])["search"])
    return " or ".join(words for search, words in BY_SEARCH.items() if search in searches)


def of_directions(data: RunData, graph: str) -> dict[str, int]:
    """The module of each direction at the first resolution that was asked for; none without."""
    table = data.layered.get("modules", pd.DataFrame())
    if table.empty:
        return {}
    first = float(data.config["modules"]["resolution"][0])
    mine = table[(table["graph"] == graph) & (table["method"] == "leiden")]
    mine = mine[mine["resolution"] == first]
    return dict(zip(mine["node"], mine["module"].astype(int), strict=True))


def _about(rows: pd.DataFrame) -> list[str]:
    return varying(rows, ("model", "task", "steps", "rule"))


def _modules(rows: pd.DataFrame) -> Table:
    told = _about(rows)
    cells = [
        [
            *(escape(str(row[c])) for c in told),
            escape(row["basis"]),
            f"{row['resolution']:g}",
            f"{row['n_modules']:,}",
            f"{row['n_nodes']:,}",
            f"{row['n_edges']:,}",
            f"{row['q']:.3f}",
            _number(row["agreement"]),
            _number(row["rewired"]),
            _number(row["rewired_largest"]),
            _number(row["p"]),
        ]
        for row in rows.to_dict("records")
    ]
    counted = ["modules", "directions", "interactions"]
    worth = ["modularity", "agreement", "rewired", "at the most", "p"]
    head = [*told, "basis", "resolution", *counted, *worth]
    return Table(head, cells, range(len(told) + 1, len(head)))


def _blocks(rows: pd.DataFrame) -> Table:
    told = _about(rows)
    cells = [
        [
            *(escape(str(row[c])) for c in told),
            escape(row["basis"]),
            f"{row['n_modules']:,}",
            f"{row['length']:,.1f}",
            f"{row['one_a_layer']:,.1f}",
            f"{1 - row['length'] / row['one_a_layer']:.1%}",
            _number(row["agreement"]),
        ]
        for row in rows.to_dict("records")
    ]
    lengths = ["nats", "nats with one a layer", "saved"]
    head = [*told, "block model", "blocks of several", *lengths, "agreement of chains"]
    return Table(head, cells, range(len(told) + 1, len(head)))


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"
