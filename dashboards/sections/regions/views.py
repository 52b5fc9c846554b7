"""What regions see."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.regions import view_figure
from edgesweep.dashboards.pages import Choice, Section
from edgesweep.dashboards.sections.regions.naming import class_names, groups
from edgesweep.storage import RunDirectory
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.tasks import ArrayExample, Example, example_of

#: regions of a figure, and inputs beside each
MOST_REGIONS, INPUTS = 20, 5


def section(data: RunData) -> Iterator[Section]:
    table = data.rois.get("region_pictures", pd.DataFrame())
    if table.empty:
        return
    views = data.rois["region_views"]
    datasets = {about["key"]: about["dataset"] for about in data.plan["rois"]}
    run, figures = RunDirectory.open(data.path), {}
    for name, rows in groups(data, table, []):
        units = rows["units"].iloc[0]
        prompts = PromptRows(run, datasets[units], "build", example_of)
        strongest = views[views["units"] == units]
        figures[name] = view_figure(*_pictures(rows, strongest, prompts, class_names(data, units)))
    yield Section(
        "regions-views",
        "What regions see",
        "The strongest regions of each class. First: how the numbers of an input make the region's "
        "attribution (gradient times input, the mean over inputs of its class; green adds, brown "
        "takes away). Then the build inputs of which the region says most.",
        (Choice("region-views", "site", figures, next(iter(figures))),),
    )


def _pictures(
    rows: pd.DataFrame,
    strongest: pd.DataFrame,
    prompts: PromptRows[Example],
    called: Callable[[int], str],
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Pictures and inputs by the region's name, class by class."""
    pictures: dict[str, np.ndarray] = {}
    inputs: dict[str, list[np.ndarray]] = {}
    for (_, roi), mine in list(rows.groupby(["label", "roi"]))[:MOST_REGIONS]:
        name = f"{called(int(mine['label'].iloc[0]))}: roi{roi}"
        summed = mine.groupby(["row", "column"])["attribution"].sum()
        pictures[name] = summed.unstack().to_numpy()
        first = strongest[strongest["roi"] == roi].sort_values("rank")["input"][:INPUTS]
        inputs[name] = [_image(prompts[int(number)]) for number in first]
    return pictures, inputs


def _image(example: Example) -> np.ndarray:
    """Scaled to 0 to 1; a vector as one row."""
    assert isinstance(example, ArrayExample)
    image = example.array(example.clean)
    low, high = min(0.0, image.min()), max(1.0, image.max())
    image = (image - low) / (high - low)
    return image if image.ndim > 1 else image[None]
