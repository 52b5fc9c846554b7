"""How figures look: one palette that colour-blind readers can tell apart, one layout."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

#: Okabe and Ito's palette, without its yellow, which is too light for lines on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
DASHES = {"edge": "solid", "node": "dot"}
SYMBOLS = {"edge": "circle", "node": "diamond-open"}

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13},
    "margin": {"l": 58, "r": 16, "t": 16, "b": 52},
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    "hoverlabel": {"font": {"size": 12}},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
}


def colour_of(name: str, names: Sequence[str]) -> str:
    """A series keeps its colour in every figure."""
    return COLOURS[list(names).index(name) % len(COLOURS)]


def styled(figure: go.Figure, height: int = 420, **layout: Any) -> go.Figure:
    """The common layout, and what this figure has of its own."""
    return figure.update_layout(**{**LAYOUT, "height": height, **layout})
