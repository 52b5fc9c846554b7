"""What regions say of each class, and what each class loses without the regions of another."""

from collections.abc import Callable, Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.regions import attribution_figure, class_figure
from edgesweep.dashboards.pages import Choice, Section
from edgesweep.dashboards.sections.regions.naming import class_names, groups, published

#: regions of a heat map, at most: of single units there may be thousands
MOST_REGIONS = 600


def heat(data: RunData) -> Iterator[Section]:
    """Mean attribution of each region on each class (figure 6)."""
    table = data.rois.get("region_classes", pd.DataFrame())
    if table.empty:
        return
    rows = table[(table["partition"] != "random") & (table["n_blocks"] <= MOST_REGIONS)]
    figures = {
        name: attribution_figure(mine, _classes(data, mine))
        for name, mine in groups(data, rows, ["partition", "asked"])
    }
    if not figures:
        return
    target = data.config["rois"]["target"]
    yield Section(
        "regions-classes",
        "What regions say of each class",
        f"The mean attribution of each region to the {target} class, over the build inputs of that "
        "class. A region belongs to the class of which it says most; rows are in the order of "
        "these classes.",
        (Choice("region-heat", "partition", figures, next(iter(figures))),),
    )


def matrices(data: RunData) -> Iterator[Section]:
    """Accuracy on each class without the regions of each, and with only these (figures 8, 14)."""
    table = data.rois.get("region_ablation", pd.DataFrame())
    if table.empty:
        return
    rows = table[table["side"].isin(["without", "only"]) & (table["metric"] == "accuracy")]
    figures = {
        name: class_figure(mine, _classes(data, mine))
        for name, mine in groups(
            data, rows[rows["draw"] == 0], ["partition", "asked", "eval_patch"]
        )
    }
    yield Section(
        "regions-matrices",
        "Without the regions of a class",
        "Accuracy on the evaluation inputs of each class (columns) when the regions that belong to "
        "a class (rows) take their patch value, and when all others do. Regions that are of one "
        "class alone leave a dark left square but for its diagonal, and a dark diagonal on the "
        "right. Of random blocks, the first draw." + _published(data),
        (Choice("region-matrices", "partition", figures, next(iter(figures))),),
    )


def _classes(data: RunData, rows: pd.DataFrame) -> Callable[[int], str]:
    return class_names(data, str(rows["units"].iloc[0]))


def _published(data: RunData) -> str:
    found = published(data)
    own = found.get("own_class")
    if not own:
        return ""
    told = ", ".join(f"{value:.2f}" for value in own)
    mean = sum(own) / len(own)
    return f" {escape(found['source'])}: on the diagonal of the left {told} (mean {mean:.2f})."
