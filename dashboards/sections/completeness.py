"""The section of what the model does without a circuit."""

from collections.abc import Iterator

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.curves import faithfulness_figure
from edgesweep.dashboards.pages import Figure, Section
from edgesweep.dashboards.series import complements, menus
from edgesweep.dashboards.summary import leading

TITLE = "What is left without the circuit"


def section(data: RunData) -> Iterator[Section]:
    """Nothing where it was not measured."""
    if data.results.empty or (table := complements(data.results)).empty:
        return
    chosen = menus(data.results, leading(data))
    figure = faithfulness_figure(table, "n_edges", None, data.marks, chosen)
    yield Section(
        "completeness",
        TITLE,
        "The same circuits, this time taken out of the model while everything else stays. φ = 0 "
        "means that nothing of what the model does is left, so the circuit is complete; φ = 1 that "
        "the model does as well without it, because other edges do the work too. Lines and menus "
        "are those above.",
        (Figure("complement_n_edges", figure, TITLE),),
        link="Without the circuit",
    )
