"""How figures look: palettes that colour-blind readers can tell apart, one layout.

Backgrounds are transparent, and every colour here has enough contrast on white and on near-black;
what must differ between the two (text, grid, the low end of a heatmap) the page sets.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go


class Mark(NamedTuple):
    """How a method is drawn."""

    colour: str
    symbol: str


#: method -> colour and symbol. Colours of one family are near each other and its symbols are not:
#: who cannot tell the colours has the symbols. The random order, which shows nothing, is grey.
METHOD_MARKS = {
    "eap": Mark("#0072B2", "circle"),
    "eap_patch": Mark("#2FA4DC", "square"),
    "eap_both": Mark("#2B3A9E", "diamond"),
    "relp": Mark("#0B7C8C", "triangle-up"),
    "relp_qk": Mark("#3A9BAA", "cross"),
    "ig_inputs": Mark("#D55E00", "circle"),
    "ig_activations": Mark("#DE9400", "square"),
    "ig_activations_joint": Mark("#A01F35", "diamond"),
    "exact": Mark("#2A2F36", "star"),
    "acdc": Mark("#8A5CC2", "triangle-up"),
    "eap_acdc": Mark("#C9599C", "triangle-down"),
    "node_ap": Mark("#009E73", "cross"),
    "node_ig": Mark("#6FA21C", "x"),
    "node_exact": Mark("#0B6157", "pentagon"),
    "hisp": Mark("#8C7A00", "hexagon"),
    "random": Mark("#8A8F96", "circle"),
}
#: for further steps or rules of a method, and methods that have none above
SPARE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#5B8A72", "#A0522D", "#6A5ACD", "#B03060")
#: for tasks, in an order of its own so that no task is taken for a method
TASK_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#009E73", "#8A5CC2", "#888888")
#: for the sign of a score
POSITIVE, NEGATIVE = "#1B958A", "#B9702A"
DASHES = {"edge": "solid", "node": "dash"}
#: what a reference is compared with: in the known circuit, and outside it
KNOWN, OTHER = "#C2255C", "#7A8594"
#: symbols of figures, and the same in a legend of text
GLYPHS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "cross": "✚",
    "x": "✖",
    "star": "★",
    "pentagon": "⬟",
    "triangle-down": "▼",
    "hexagon": "⬢",
}
SYMBOLS = tuple(GLYPHS)
#: what takes the place of a colour under a dark scheme, where it is too dim
IN_THE_DARK = {
    "#0072B2": "#3D9BE0",
    "#D55E00": "#F58A4B",
    "#8A5CC2": "#C9A5F7",
    "#009E73": "#2CC79B",
    "#1B958A": "#40C4B7",
    "#B9702A": "#E0A05E",
    "#2FA4DC": "#8CD0F5",
    "#2B3A9E": "#7D84FF",
    "#0B7C8C": "#35B3C4",
    "#3A9BAA": "#8FDDE8",
    "#DE9400": "#F2BC4B",
    "#A01F35": "#FF6B70",
    "#2A2F36": "#F2F4F7",
    "#C9599C": "#EE8FC6",
    "#6FA21C": "#A6D854",
    "#0B6157": "#3E9C8F",
    "#8C7A00": "#B0A12E",
    "#8A8F96": "#9AA1AB",
    "#C2255C": "#FF7BA5",
    "#7A8594": "#8E99A8",
}
#: light end first; the page swaps in one that starts dark under a dark scheme
HEAT = [[0, "#f3f7fb"], [0.5, "#6aaed6"], [1, "#08468b"]]

#: ticks of a logarithmic axis that are a decade apart
MOST_DECADES = 10
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


def marks(methods: Mapping[str, str]) -> dict[str, Mark]:
    """A mark a name, the same in every figure of a page: the method's own for its first name, then
    spare colours, in the order given, for its further steps and rules.

    Args:
        methods: name of a line's method, as people read it -> the method.
    """
    found: dict[str, Mark] = {}
    seen: set[str] = set()
    spare = 0
    for name, method in methods.items():
        mark = METHOD_MARKS.get(method, Mark(SPARE_COLOURS[-1], "circle"))
        if method in seen or method not in METHOD_MARKS:
            mark = Mark(SPARE_COLOURS[spare % len(SPARE_COLOURS)], mark.symbol)
            spare += 1
        seen.add(method)
        found[name] = mark
    return found


def colours(names: Iterable[str], palette: tuple[str, ...]) -> dict[str, str]:
    """A colour a name, by the order of the names: the same in every figure of a page."""
    return {n: palette[i % len(palette)] for i, n in enumerate(sorted(set(names)))}


def log_ticks(values: Iterable[float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis: a decade apart, or several where the values span many; where
    they span few at 1, 2 and 5, or an axis within one decade would have none."""
    found = [v for v in values if 0 < v < math.inf]
    if not found or max(found) >= 10**1.5 * min(found):
        spanned = math.log10(max(found) / min(found)) if found else 0.0
        return {"dtick": math.ceil(spanned / MOST_DECADES) or 1}
    decades = range(math.floor(math.log10(min(found))), math.ceil(math.log10(max(found))) + 1)
    return {"tickvals": [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]}


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
    whole = {**LAYOUT, "height": height, **axes, **layout}
    if not figure.layout.to_plotly_json().keys() <= {"template"}:  # lines across it, say
        return figure.update_layout(**whole)
    figure.layout = whole  # plotly takes five times as long to merge: a third of a large page
    figure.layout.template = whole["template"]
    return figure
