"""What a circuit loses without each of its edges."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.names import metric_name
from edgesweep.dashboards.style import NEGATIVE, OTHER, POSITIVE, styled

#: edges of one circuit that are drawn
MAX_EDGES = 300
#: metrics of which less is better: to lose one is to see it rise
LESS_IS_BETTER = frozenset({"kl", "kl_reverse", "js", "stat_dist", "nll"})
#: kind of edge -> its colour and its words
KINDS = {
    "needed": (POSITIVE, "needed: the circuit is worse without it"),
    "unclear": (OTHER, "no clear effect"),
    "harmful": (NEGATIVE, "harmful: the circuit is better without it"),
}


def needed_figure(rows: pd.DataFrame, metric: str) -> go.Figure:
    """What a circuit loses without each of its edges, the most needed first.

    Args:
        rows: rows of minimality.parquet of one circuit and metric.
    """
    rows = rows.sort_values(["drop", "edge"], ascending=[False, True], ignore_index=True)
    kind = rows["kind"].to_numpy(dtype=str)
    figure = go.Figure()
    for name, (colour, _) in KINDS.items():
        mine = rows[kind == name].head(MAX_EDGES)
        figure.add_scatter(
            x=mine.index + 1,
            y=mine["drop"],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 6},
            error_y=_bars(mine, colour),
            hovertext=[f"{s} → {t}" for s, t in zip(mine["source"], mine["target"], strict=True)],
            customdata=mine[["low", "high", "q"]].to_numpy(),
            hovertemplate="<b>%{hovertext}</b><br>%{y:.3g} (%{customdata[0]:.3g} to "
            "%{customdata[1]:.3g})<br>q %{customdata[2]:.2g}<extra></extra>",
        )
    figure.add_hline(0, line={"color": "#8a93a0", "width": 1})
    direction = "rise in" if metric in LESS_IS_BETTER else "fall in"
    return styled(
        figure,
        height=380,
        xaxis={"title": {"text": "edges, the most needed first"}, "tickformat": "~d"},
        yaxis={"title": {"text": f"{direction} {metric_name(metric)}"}},
        annotations=[_counted(kind, float(rows["rate"].iloc[0]))],
    )


def _bars(rows: pd.DataFrame, colour: str) -> dict[str, object]:
    drop = rows["drop"].to_numpy()
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(rows["high"].to_numpy() - drop),
        "arrayminus": np.nan_to_num(drop - rows["low"].to_numpy()),
        "color": colour,
        "thickness": 1,
        "width": 0,
    }


def _counted(kind: np.ndarray, rate: float) -> dict[str, object]:
    needed, harmful = (int((kind == k).sum()) for k in ("needed", "harmful"))
    return {
        "text": f"{needed:,} of {len(kind):,} edges needed, {harmful:,} harmful; "
        f"of these at most {rate:.0%} are expected to be wrong",
        "xref": "paper",
        "yref": "paper",
        "x": 0.99,
        "y": 0.99,
        "xanchor": "right",
        "yanchor": "top",
        "showarrow": False,
        "font": {"size": 13},
    }
