"""The section that draws circuits, and the choice of which are drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.circuit import MAX_DRAWN_EDGES, circuit_figure
from edgesweep.dashboards.headline import leading
from edgesweep.dashboards.kinds import together
from edgesweep.dashboards.pages import Choice, Section, legend, swatch
from edgesweep.dashboards.style import NEGATIVE, POSITIVE

#: circuits offered in the drawing, beyond which the page would grow by megabytes
MAX_DRAWN_CIRCUITS = 20
#: the drawing begins with the largest circuit of at most so many edges
READABLE_EDGES = 100
TITLE = "The circuit by layer"


@dataclass(frozen=True)
class Drawing:
    """Circuits drawn by their titles, the title to begin with, and how many are left out."""

    figures: dict[str, go.Figure]
    first: str
    n_left_out: int


def section(data: RunData) -> Iterator[Section]:
    drawing = draw_circuits(data)
    if not drawing.figures:
        yield Section("circuit", TITLE, "No circuit with a path to the logits has been found yet.")
        return
    left = f" {drawing.n_left_out} more circuits are in circuits.parquet."
    read = together(data.kind(cell).circuit for cell in data.graphs)
    yield Section(
        "circuit",
        TITLE,
        f"Information flows upwards, from the embeddings to the logits. {read} "
        "A wider edge has a larger score. Drawn are the edges that ran with "
        f"{escape(data.config['evaluate']['eval_patch'][0])} patches, without those that a "
        "threshold kept and that cannot act because no path leads through them, and of these the "
        f"{MAX_DRAWN_EDGES} strongest at most. Hover over a node for its strongest neighbours."
        f"{left if drawing.n_left_out else ''}",
        (
            legend(swatch(POSITIVE, "raises the metric"), swatch(NEGATIVE, "lowers it")),
            Choice("drawing", "circuit", drawing.figures, drawing.first),
        ),
    )


def draw_circuits(data: RunData) -> Drawing:
    """Draws the circuits worth it, those of the cell that the page leads with first."""
    chosen = _worth_drawing(data)
    names = data.circuit_names
    figures: dict[str, go.Figure] = {}
    sizes: dict[str, int] = {}
    edges = data.ran[data.ran["circuit"].isin(chosen["circuit"])]
    for circuit, cell in zip(chosen["circuit"], chosen["cell"], strict=True):
        kept = edges[edges["circuit"] == circuit]
        title = f"{names[circuit]}: {len(kept):,} edge{'' if len(kept) == 1 else 's'}"
        figures[title], sizes[title] = circuit_figure(kept, data.graphs[cell]), len(kept)
    total = data.ran["circuit"].nunique()
    return Drawing(figures, _first(sizes), total - len(chosen))


def _worth_drawing(data: RunData) -> pd.DataFrame:
    """Circuits small enough to be told from a carpet: columns circuit, cell, n, leading cell
    first, small ones first, as many of each cell."""
    table = data.ran.groupby(["cell", "circuit"], sort=True).size().rename("n").reset_index()
    table = table[(table["n"] <= 4 * MAX_DRAWN_EDGES) & table["cell"].isin(list(data.graphs))]
    best = leading(data)
    lead = "" if best is None else best["cell"]
    cells = sorted(set(table["cell"]), key=lambda c: (c != lead, c))[:MAX_DRAWN_CIRCUITS]
    if not cells:
        return table
    each = MAX_DRAWN_CIRCUITS // len(cells)
    parts = [table[table["cell"] == c].sort_values("n").tail(each) for c in cells]
    return pd.concat(parts)


def _first(sizes: dict[str, int]) -> str:
    """The largest readable circuit of the first cell, else the smallest circuit."""
    if not sizes:
        return ""
    lead = next(iter(sizes)).rpartition(" · ")[0]
    own = {t: n for t, n in sizes.items() if t.startswith(lead) and n <= READABLE_EDGES}
    return max(own, key=lambda t: own[t]) if own else min(sizes, key=lambda t: sizes[t])
