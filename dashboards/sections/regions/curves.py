"""Accuracy without each input's strongest regions, and with only these."""

from collections.abc import Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.regions import curve_figure
from edgesweep.dashboards.pages import Choice, Section
from edgesweep.dashboards.sections.regions.naming import groups, published

WORDS = {"ablate": "without the strongest", "keep": "with only the strongest"}


def section(data: RunData) -> Iterator[Section]:
    table = data.rois.get("region_ablation", pd.DataFrame())
    if table.empty:
        return
    rows = table[table["side"].isin(list(WORDS)) & (table["metric"] == "accuracy")]
    figures, told_elsewhere = {}, published(data)
    for side, words in WORDS.items():
        for name, mine in groups(data, rows[rows["side"] == side], ["eval_patch"]):
            for asked, told in _sizes(mine).items():
                figures[" · ".join(filter(None, (words, told, _named(name))))] = curve_figure(
                    mine[mine["asked"].eq(asked) | mine["partition"].eq("singletons")],
                    told_elsewhere.get(side, ()) if not asked else (),
                )
    target = data.config["rois"]["target"]
    leaks = (
        "The true class's logit is attributed, which tells the label to what is kept."
        if target == "label"
        else "The class that the network predicts is attributed, for the true one would tell the "
        "label to what is kept."
    )
    yield Section(
        "regions-curves",
        "Without the strongest regions",
        "Of each evaluation input the regions with the largest attribution take their patch value, "
        "or all but these do. Left against the share of regions, right of units, for regions "
        "differ in size: the steeper on the right, the better a partition finds what an input "
        "stands on. Random blocks of as many regions (of the block model's sizes, or of even "
        "ones) are a band, from the least to the largest of their draws. "
        + leaks
        + (f" Open circles: {escape(told_elsewhere['source'])}." if told_elsewhere else ""),
        (Choice("region-curves", "curves", figures, next(iter(figures))),),
    )


def _named(name: str) -> str:
    return "" if name == "all" else name


def _sizes(rows: pd.DataFrame) -> dict[int, str]:
    """Numbers of blocks that were asked for; in words, where there are several."""
    asked = sorted(set(rows.loc[rows["partition"] != "singletons", "asked"]))
    if len(asked) < 2:
        return dict.fromkeys(asked or [0], "")
    return {n: f"{n} blocks" if n else "as many as the block model" for n in asked}
