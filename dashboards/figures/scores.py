"""How the scores of a cell are spread."""

import numpy as np
import plotly.graph_objects as go

from edgesweep.dashboards.style import NEGATIVE, POSITIVE, styled

#: decades below the largest |score| that a histogram shows; what lies lower is counted in its first
#: bin
DECADES = 12


def histogram_figure(scores: np.ndarray, what: str = "edges") -> go.Figure:
    """How the aggregated scores of a cell are spread, by sign; both axes logarithmic.

    Args:
        scores: [n_edges or n_sources]; zeros and what is not finite are not counted.
        what: "edges" or "nodes".
    """
    finite = scores[np.isfinite(scores) & (scores != 0)]
    figure = go.Figure()
    if not len(finite):
        return styled(figure, height=300)
    exponents = np.log10(np.abs(finite))
    low = max(exponents.min(), exponents.max() - DECADES)
    edges = np.linspace(low, exponents.max(), 49)
    centres = 10 ** ((edges[1:] + edges[:-1]) / 2)
    shown = np.maximum(exponents, low)
    for sign, name, colour in ((1, "raises the metric", POSITIVE), (-1, "lowers it", NEGATIVE)):
        counts, _ = np.histogram(shown[np.sign(finite) == sign], edges)
        figure.add_scatter(
            x=centres,
            y=np.where(counts > 0, counts, np.nan),
            name=name,
            mode="lines",
            line={"color": colour, "shape": "hvh", "width": 2},
            hovertemplate=f"{name}<br>|score| ≈ %{{x:.2g}}: %{{y:,}} {what}<extra></extra>",
        )
    return styled(
        figure,
        height=300,
        xaxis={
            "title": {"text": "|score|"},
            "type": "log",
            "exponentformat": "power",
            "dtick": 2,
        },
        yaxis={"title": {"text": f"number of {what}"}, "type": "log", "dtick": 1},
    )
