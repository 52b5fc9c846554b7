"""How figures look: palettes that colour-blind readers can tell apart, one layout.

Backgrounds are transparent, and every colour here has enough contrast on white and on near-black;
what must differ between the two (text, grid, the low end of a heatmap) the page sets.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import plotly.graph_objects as go

#: for methods: Okabe and Ito's palette, without its yellow, which is too light for lines on white
METHOD_COLOURS = ("#0072B2", "#D55E00", "#8A5CC2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
#: for tasks, in an order of its own so that no task is taken for a method
TASK_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#009E73", "#8A5CC2", "#888888")
#: for the sign of a score
POSITIVE, NEGATIVE = "#1B958A", "#B9702A"
DASHES = {"edge": "solid", "node": "dash"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
#: the same symbols in a legend of text
GLYPHS = ("●", "■", "◆", "▲", "✚", "✖", "★", "⬟")
#: what takes the place of a colour under a dark scheme, where it is too dim
IN_THE_DARK = {
    "#0072B2": "#4BA6E8",
    "#D55E00": "#F58A4B",
    "#8A5CC2": "#B493E6",
    "#009E73": "#2CC79B",
    "#1B958A": "#40C4B7",
    "#B9702A": "#E0A05E",
}
#: light end first; the page swaps in one that starts dark under a dark scheme
HEAT = [[0, "#f3f7fb"], [0.5, "#6aaed6"], [1, "#08468b"]]

AXIS = {"gridcolor": "#e3e7ec", "zeroline": False, "automargin": True}
LAYOUT: dict[str, Any] = {
    "template": None,
    "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13},
    "margin": {"l": 58, "r": 16, "t": 14, "b": 48},
    "showlegend": False,
    "hoverlabel": {"font": {"size": 12}, "align": "left"},
    "hovermode": "closest",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
}


def colours(names: Iterable[str], palette: tuple[str, ...]) -> dict[str, str]:
    """A colour a name, by the order of the names: the same in every figure of a page."""
    return {n: palette[i % len(palette)] for i, n in enumerate(sorted(set(names)))}


def styled(
    figure: go.Figure,
    height: int = 420,
    *,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    **layout: Any,
) -> go.Figure:
    """The common layout, and what this figure has of its own."""
    axes = {"xaxis": {**AXIS, **(xaxis or {})}, "yaxis": {**AXIS, **(yaxis or {})}}
    return figure.update_layout(**{**LAYOUT, "height": height, **axes, **layout})
