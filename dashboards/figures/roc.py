"""Rankings against a known circuit: ROC, precision, and scores in it and out of it."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.series import meta
from edgesweep.dashboards.style import KNOWN, OTHER, styled

#: curves of so few points show them
FEW = 30
DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
N_BINS = 60


def roc_figure(table: pd.DataFrame, columns: list[str], data: RunData) -> go.Figure:
    """True against false positive rate; the diagonal is chance."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": OTHER, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    _add_lines(figure, table, columns, data, x="fpr", y="tpr")
    axis = {"range": [-0.01, 1.01], "dtick": 0.2}
    return styled(
        figure,
        xaxis={**axis, "title": {"text": "false positive rate"}},
        yaxis={**axis, "title": {"text": "true positive rate"}},
    )


def precision_figure(table: pd.DataFrame, columns: list[str], data: RunData) -> go.Figure:
    """Precision against recall; the dotted line is the share of true edges among all."""
    figure = go.Figure()
    of_edges = table[~table["cell"].map(data.scores_nodes).astype(bool)]
    for _, rows in of_edges.groupby(["model", "task"], sort=True):
        true = next((t for c in rows["cell"].unique() if len(t := data.true(c))), np.zeros(0))
        share = true.mean() if len(true) else np.nan
        figure.add_scatter(
            x=[0, 1],
            y=[share, share],
            mode="lines",
            line={"color": OTHER, "width": 1.5, "dash": "dot"},
            hovertemplate=f"a random order of edges: {share:.3g}<extra></extra>",
            meta=meta(rows.iloc[0].to_dict(), [c for c in columns if c in ("model", "task")]),
        )
    _add_lines(figure, table[table["tpr"] > 0], columns, data, x="tpr", y="precision")
    axis = {"range": [-0.01, 1.02], "dtick": 0.2}
    return styled(
        figure,
        xaxis={**axis, "title": {"text": "recall (true positive rate)"}},
        yaxis={**axis, "title": {"text": "precision"}},
    )


def _add_lines(
    figure: go.Figure, table: pd.DataFrame, columns: list[str], data: RunData, *, x: str, y: str
) -> None:
    variants = sorted(set(table["variant"]))
    for _, rows in table.groupby(["cell", "aggregation", "selection"], sort=True):
        first = rows.iloc[0]
        mark = data.marks[first["method_name"]]
        dash = DASHES[variants.index(first["variant"]) % len(DASHES)]
        figure.add_scatter(
            x=rows[x].to_numpy(np.float32),
            y=rows[y].to_numpy(np.float32),
            name=first["series"],
            mode="lines+markers" if len(rows) <= FEW else "lines",
            line={"color": mark.colour, "width": 2, "dash": dash},
            marker={"symbol": mark.symbol, "size": 7},
            customdata=rows["threshold"].to_numpy(np.float32),
            hovertemplate=f"<b>%{{fullData.name}}</b>{_area(first)}<br>{x} %{{x:.3f}}, {y} "
            "%{y:.3f}<br>threshold %{customdata:.3g}<extra></extra>",
            meta=meta(first.to_dict(), columns),
        )


def _area(first: pd.Series) -> str:
    area = first["roc_auc"]
    return "" if pd.isna(area) else f"<br>area under ROC {area:.3f}"


def in_out_figure(scores: np.ndarray, true: np.ndarray) -> go.Figure:
    """Histogram of signed scores, in and out of the known circuit.

    Args:
        scores: [n]; what is not finite is not counted.
        true: bool [n].
    """
    finite = np.isfinite(scores)
    edges = np.histogram_bin_edges(scores[finite], N_BINS)
    figure = go.Figure()
    for inside, colour, name in ((False, OTHER, "outside"), (True, KNOWN, "in the circuit")):
        mine = scores[finite & (true == inside)]
        counts, _ = np.histogram(mine, edges)
        figure.add_bar(
            x=(edges[1:] + edges[:-1]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": colour, "opacity": 0.75},
            name=name,
            hovertemplate=f"score %{{x:.3g}}: %{{y:,}} {name}{_spread(mine)}<extra></extra>",
        )
    return styled(
        figure,
        height=340,
        xaxis={"title": {"text": "score"}},
        yaxis={"title": {"text": "count"}, "type": "log", "dtick": 1, "range": [-0.3, None]},
        barmode="overlay",
    )


def _spread(scores: np.ndarray) -> str:
    if not len(scores):
        return ""
    return f"<br>all {len(scores):,}: mean {scores.mean():.3g}, std {scores.std():.3g}"
