"""Regions of interest: accuracy without the strongest of them, what each class loses, and what they
say of each class (*Emerging Structures in Computational Graphs*, figures 6 to 8)."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.style import styled

COLOURS = {
    "sbm": "#D55E00",
    "singletons": "#56606e",
    "ward": "#0072B2",
    "kmeans": "#2FA4DC",
    "spectral": "#7B4FA3",
    "spectral_svd": "#B07CC6",
    "cocluster": "#0B8A62",
    "random": "#9AA3AE",
}
SIDES = {"ablate": "gone", "keep": "kept"}


def equal(table: pd.DataFrame) -> pd.DataFrame:
    """Partitions with as many blocks as the block model, and single units."""
    of = table[table["partition"].isin(["sbm", "random"])]["n_blocks"]
    if of.empty:
        return table
    return table[table["n_blocks"].eq(of.max()) | table["partition"].eq("singletons")]


def curve_figure(curves: pd.DataFrame, side: str) -> go.Figure:
    """Accuracy against the share of units in the regions that are gone, or kept; random blocks of
    the block model's sizes as a band from the least to the largest of their draws."""
    rows = equal(curves[curves["side"] == side])
    rows = rows.assign(share=rows["units"] if side == "ablate" else 1 - rows["units"])
    figure = go.Figure()
    for name, of in rows.groupby("partition", sort=False):
        share = of.groupby("tau")["share"].mean().to_numpy()
        accuracy = of.groupby("tau")["accuracy"]
        if of["draw"].nunique() > 1:
            low, high = accuracy.min().to_numpy(), accuracy.max().to_numpy()
            figure.add_scatter(
                x=np.concatenate([share, share[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                mode="lines",
                line={"width": 0},
                fillcolor="rgba(154,163,174,0.3)",
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=share,
            y=accuracy.mean().to_numpy(),
            name=f"{name} ({of['n_blocks'].iloc[0]})",
            mode="lines+markers",
            line={"color": COLOURS.get(str(name), "#000"), "width": 2},
            marker={"size": 5},
            hovertemplate="%{x:.1%} of units: %{y:.3f}<extra>%{fullData.name}</extra>",
        )
    return styled(
        figure,
        xaxis={"title": {"text": f"share of units {SIDES[side]}"}, "range": [-0.01, 1.01]},
        yaxis={"title": {"text": "accuracy"}, "range": [-0.02, 1.02]},
        showlegend=True,
    )


def class_figure(classes: pd.DataFrame, mode: str) -> go.Figure:
    """Accuracy on each class (columns) without a class's regions (rows), or with only these."""
    rows = classes[classes["mode"] == mode]
    table = rows.pivot_table(index="of", columns="on", values="accuracy")
    figure = go.Figure(
        go.Heatmap(
            z=table.to_numpy(),
            x=[str(c) for c in table.columns],
            y=[str(c) for c in table.index],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            hovertemplate=f"{mode} class %{{y}}, on %{{x}}: %{{z:.3f}}<extra></extra>",
        )
    )
    axis = {"type": "category", "dtick": 1}
    return styled(
        figure,
        xaxis={**axis, "title": {"text": "accuracy on class"}},
        yaxis={**axis, "title": {"text": f"{mode} the regions of class"}, "autorange": "reversed"},
    )


def attribution_figure(means: pd.DataFrame) -> go.Figure:
    """Mean attribution of each region (rows, by the class that has most of it) on each class."""
    table = means.pivot_table(index="region", columns="class", values="attribution")
    values = table.to_numpy(dtype=float)
    order = np.lexsort((-values.max(1), values.argmax(1)))
    values, limit = values[order], float(np.abs(values).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[str(c) for c in table.columns],
            y=[f"roi{r}" for r in table.index[order]],
            zmin=-limit,
            zmax=limit,
            colorscale="RdBu_r",
            hovertemplate="%{y} on class %{x}: %{z:.3g}<extra></extra>",
        )
    )
    return styled(
        figure,
        height=560,
        xaxis={"type": "category", "dtick": 1, "title": {"text": "class"}},
        yaxis={"title": {"text": "region"}, "showticklabels": len(table) <= 40},
    )
