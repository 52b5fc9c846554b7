"""Which edges a circuit needs, as the page tells it."""

import numpy as np
import pandas as pd

from edgesweep.dashboards.figures.minimality import needed_figure


def test_edges_that_are_needed_are_told_with_their_rate():
    rows = pd.DataFrame(
        {
            "edge": [0, 1, 2, 3],
            "source": "embed",
            "target": ["a", "b", "c", "d"],
            "drop": [0.1, 0.5, -0.3, 0.2],
            "low": [-0.1, 0.4, -0.4, np.nan],
            "high": [0.3, 0.6, -0.2, np.nan],
            "q": [0.4, 0.01, 0.02, np.nan],
            "rate": 0.05,
            "kind": ["unclear", "needed", "harmful", "unclear"],
        }
    )
    figure = needed_figure(rows, "kl")
    assert figure.layout.annotations[0].text == (
        "1 of 4 edges needed, 1 harmful; of these at most 5% are expected to be wrong"
    )
    assert figure.layout.yaxis.title.text == "rise in KL divergence"
    places = {t.name: list(t.x) for t in figure.data}
    assert places == {"needed": [1], "unclear": [2, 3], "harmful": [4]}
