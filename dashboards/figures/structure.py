"""Description lengths beside those of what has no structure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.style import OTHER, POSITIVE, styled

#: null -> its row, bottom first, and whether it is of random graphs
ROWS = {
    "one_block": ("one block", False),
    "kind_depth": ("by kind and layer", False),
    "kind_depth_coarse": ("by kind and coarse depth", False),
    "nodes": ("random graphs, degrees of nodes", True),
    "ports": ("random graphs, degrees of ports", True),
    "half": ("halves of the prompts", False),
    "chain": ("this circuit, each chain", False),
}


def saved_figure(nulls: pd.DataFrame) -> go.Figure:
    """The share of the length of one block that each description saves, a point a draw.

    Args:
        nulls: rows of nulls.parquet of one circuit. Of coarse partitions the shortest is drawn.
    """
    figure = go.Figure()
    shown = [null for null in ROWS if null in set(nulls["null"])]
    for place, null in enumerate(shown):
        rows, (name, random) = nulls[nulls["null"] == null], ROWS[null]
        if null == "kind_depth_coarse":
            rows = rows.nlargest(1, "saved")
        spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(rows)) if random else 0.0
        figure.add_scatter(
            x=rows["saved"],
            y=np.full(len(rows), place) + spread,
            mode="markers",
            name=name,
            marker={
                "color": POSITIVE if null == "chain" else OTHER,
                "size": 6 if random else 10,
                "opacity": 0.8,
            },
            customdata=rows[["draw", "description_length", "n_blocks", "n_edges"]].to_numpy(),
            hovertemplate=f"<b>{name}</b> %{{customdata[0]}}<br>%{{x:.1%}} saved: "
            "%{customdata[1]:,.0f} nats in %{customdata[2]} blocks, %{customdata[3]:,} edges"
            "<extra></extra>",
        )
    return styled(
        figure,
        height=110 + 34 * len(shown),
        xaxis={"title": {"text": "saved, of the length of one block"}, "tickformat": ".0%"},
        yaxis={
            "tickvals": list(range(len(shown))),
            "ticktext": [ROWS[null][0] for null in shown],
            "showgrid": False,
        },
    )
