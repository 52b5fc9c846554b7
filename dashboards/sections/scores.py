"""The section of how scores are spread."""

from collections.abc import Iterator, Mapping
from html import escape

import numpy as np
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.scores import histogram_figure
from edgesweep.dashboards.pages import Choice, Figure, Section, Side, legend, swatch
from edgesweep.dashboards.style import NEGATIVE, POSITIVE

#: cells whose histograms stand side by side; more are chosen by a menu
MAX_SIDE_BY_SIDE = 2
TITLE = "Sizes of the scores"


def section(data: RunData) -> Iterator[Section]:
    if not data.histograms:
        yield Section("scores", TITLE, "No cell has been reduced yet.")
        return
    figures = {
        data.cell_names[cell]: histogram_figure(scores, data.cells[cell]["scores"])
        for cell, scores in data.histograms.items()
    }
    few = len(figures) <= MAX_SIDE_BY_SIDE
    yield Section(
        "scores",
        TITLE,
        "How many edges, or nodes of a method that scores nodes, have a score of which size: the "
        f"{escape(data.aggregation)} over inputs, split by sign, both axes logarithmic. A few "
        f"carry most of the effect. Not drawn, of all cells together: {_left_out(data)}.",
        (
            legend(swatch(POSITIVE, "raises the metric"), swatch(NEGATIVE, "lowers it")),
            _side_by_side(figures)
            if few
            else Choice("histograms", "cell", figures, next(iter(figures))),
        ),
    )


def _side_by_side(figures: Mapping[str, go.Figure]) -> Side:
    return Side(
        [
            Figure(f"scores{i}", figure, name, f"<h3>{escape(name)}</h3>")
            for i, (name, figure) in enumerate(figures.items())
        ]
    )


def uncounted(scores: np.ndarray, *, some: bool) -> tuple[int, int, int]:
    """Scores that are exactly zero, not measured, and not finite.

    Args:
        some: whether the cell looked at some edges only, and left the others NaN.
    """
    missing = int(np.isnan(scores).sum()) if some else 0
    bad = int((~np.isfinite(scores)).sum()) - missing
    return int((scores == 0).sum()), missing, bad


def _left_out(data: RunData) -> str:
    found = [
        uncounted(scores, some=_looks_at_some(data, cell))
        for cell, scores in data.histograms.items()
    ]
    zero, missing, bad = map(sum, zip(*found, strict=True))
    unmeasured = f"{missing:,} of edges that were not measured, " if missing else ""
    return f"{zero:,} scores of exactly zero, {unmeasured}and {bad:,} that are not finite"


def _looks_at_some(data: RunData, cell: str) -> bool:
    """Whether a cell leaves edges out: it looks at candidates only, or stops at what it dropped."""
    about = data.cells[cell]
    return about.get("candidates", "all") != "all" or about.get("tau") is not None
