"""The page of regions of interest: one file, which needs nothing else."""

from collections.abc import Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.figures.regions import attribution_figure, class_figure, curve_figure

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 0 auto;
padding: 20px; color: #1d2430; background: #fff; }} h2 {{ font-size: 1.2rem; margin: 28px 0 4px; }}
pre {{ overflow-x: auto; }} .note {{ color: #56606e; }}</style></head><body>
<h1>{title}</h1>{body}</body></html>
"""


def regions_page(
    title: str,
    summary: Sequence[str],
    curves: pd.DataFrame,
    classes: pd.DataFrame,
    attributions: pd.DataFrame,
) -> str:
    """The tables of `sweeps.regions.tables.RegionTables` as a page; what is of one partition is of
    the first in them."""
    first = classes.partition.iloc[0]
    mine, means = (t[t.partition == first] for t in (classes, attributions))
    mine, means = (t[t.n_blocks == t.n_blocks.iloc[0]] for t in (mine, means))
    sections: list[tuple[str, str, go.Figure]] = [
        (
            "Without the strongest regions of each input",
            "Figure 7, left: the steeper, the better. Random blocks have the block model's sizes; "
            "clusterings have as many blocks.",
            curve_figure(curves, "ablate"),
        ),
        (
            "With only the strongest regions of each input",
            "Figure 7, right. Attribution to the true class would reach 1 with any partition.",
            curve_figure(curves, "keep"),
        ),
        (
            f"Without the regions of a class ({first})",
            "Figure 8, left. A region is of the class with the largest mean attribution of it in "
            "the build split.",
            class_figure(mine, "without"),
        ),
        (f"With only the regions of a class ({first})", "Figure 8.", class_figure(mine, "only")),
        (
            f"What regions say of each class ({first})",
            "Figure 6: mean attribution over the build split.",
            attribution_figure(means),
        ),
    ]
    parts = [f"<pre>{escape(chr(10).join(summary))}</pre>"]
    for number, (head, note, figure) in enumerate(sections):
        drawn = figure.to_html(
            full_html=False, include_plotlyjs=number == 0, config={"displayModeBar": False}
        )
        parts.append(f"<h2>{escape(head)}</h2><p class=note>{escape(note)}</p>{drawn}")
    return _PAGE.format(title=escape(title), body="".join(parts))
