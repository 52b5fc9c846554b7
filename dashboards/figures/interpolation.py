"""Single edges on their way from clean to patch."""

import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.style import OTHER, POSITIVE, styled

#: the name by which this section's own menu chooses
MENU = "interpolation_of"


def chosen_by(rows: pd.DataFrame) -> dict[str, str]:
    """What the section's menu chooses rows of one edge by."""
    return {MENU: f"{rows['cell'].iloc[0]} {rows['metric'].iloc[0]}"}


def interpolation_figure(groups: list[pd.DataFrame]) -> go.Figure:
    """The change of the metric against the fraction, measured and predicted.

    Args:
        groups: rows of one edge each, of which the menu chooses one.
    """
    figure = go.Figure()
    for rows in groups:
        for column, colour, dash in (("estimate", OTHER, "dash"), ("change", POSITIVE, "solid")):
            figure.add_scatter(
                x=rows["fraction"],
                y=rows[column],
                mode="lines+markers" if column == "change" else "lines",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 5},
                name={"change": "measured", "estimate": "predicted"}[column],
                hovertemplate="%{fullData.name} %{y:.3g}<br>%{x:.2g} of the way<extra></extra>",
                meta=chosen_by(rows),
            )
    return styled(
        figure,
        height=180,
        margin={"l": 40, "r": 8, "t": 6, "b": 24},
        xaxis={
            "tickvals": [0, 0.5, 1],
            "ticktext": ["clean", "½", "patch"],
            "range": [-0.05, 1.17],  # or the last label has no room on a phone
        },
        yaxis={"nticks": 5},
    )
