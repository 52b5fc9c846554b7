"""The interaction graphs, drawn."""

from collections.abc import Iterator
from html import escape

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.layered import MOST_EDGES, interaction_graph
from edgesweep.dashboards.pages import Choice, Section, Table
from edgesweep.dashboards.searched import leading
from edgesweep.dashboards.sections.layered.modules import of_directions

#: rows of the table
STRONGEST = 5


def section(data: RunData) -> Iterator[Section]:
    """The graphs with the interactions that are needed."""
    edges = data.layered.get("interactions", pd.DataFrame())
    if edges.empty:
        return
    kept = _needed(data, edges)
    figures = {
        _name(data, about): interaction_graph(
            kept[kept["graph"] == about["key"]],
            list(about["layers"]),
            of_directions(data, about["key"]),
        )
        for about in data.plan["graphs"]
        if about["key"] in set(edges["graph"])
    }
    yield Section(
        "interactions",
        "Interaction graphs",
        "Points are directions of a layer's basis, the most important at the top. A line is an "
        "interaction: the root mean square, over inputs and positions, of the integrated-gradient "
        "attribution of the later direction to the earlier one. Drawn are those that the "
        f"section needs, at most {MOST_EDGES}; widths are relative to the strongest of each "
        "section. "
        "Completeness is missed by so much of the attributions' sum (root mean square, relative) "
        "as "
        "the table says: with one step it is the error of one gradient for the integral.",
        (Choice("interaction-graph", "basis", figures, next(iter(figures))), _table(data, edges)),
    )


def _name(data: RunData, about: dict[str, object]) -> str:
    """A graph in words; what all have in common is left out."""
    told = [c for c in ("model", "task", "steps", "rule") if _differ(data, c)]
    return " · ".join([str(about["basis"]), *(str(about[c]) for c in told)])


def _differ(data: RunData, column: str) -> bool:
    return len({str(about[column]) for about in data.plan["graphs"]}) > 1


def _needed(data: RunData, edges: pd.DataFrame) -> pd.DataFrame:
    """The interactions of each section that it needs; all where it was not searched."""
    needed = leading(data.layered["edges_needed"]).set_index(["graph", "source"])["kept"].to_dict()
    layer = edges["source"].str.rpartition("/")[0]
    rank = edges.groupby([edges["graph"], layer])["mean_square"].rank(
        method="first", ascending=False
    )
    most = [needed.get(key, np.inf) for key in zip(edges["graph"], layer, strict=True)]
    return edges[rank <= np.asarray(most, dtype=float)]


def _table(data: RunData, edges: pd.DataFrame) -> Table:
    names = {about["key"]: _name(data, about) for about in data.plan["graphs"]}
    layer = edges["source"].str.rpartition("/")[0].rename("layer")
    rows = []
    for (graph, _), mine in edges.groupby([edges["graph"], layer], sort=False):
        mine = mine.sort_values("mean_square", ascending=False, kind="stable").head(STRONGEST)
        for row in mine.to_dict("records"):
            strength = float(row["mean_square"]) ** 0.5
            error = row["standard_error"] / (2 * strength) if strength else 0.0
            told = [f"{strength:.4g}", f"{error:.2g}", f"{row['residual']:.2g}"]
            ends = f"{escape(row['source'])} → {escape(row['target'])}"
            rows.append([escape(names[str(graph)]), ends, *told])
    head = ["basis", "interaction", "E", "standard error", "completeness missed"]
    return Table(head, rows, (2, 3, 4))
