"""The section of which edges a circuit needs."""

from collections.abc import Iterator

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.minimality import KINDS, needed_figure
from edgesweep.dashboards.names import metric_name
from edgesweep.dashboards.pages import Choice, Section, legend, swatch


def section(data: RunData) -> Iterator[Section]:
    """Nothing where no edge was taken out."""
    if data.minimality.empty:
        return
    names = data.circuit_names
    figures = {
        f"{names.get(str(circuit), str(circuit))}, {metric_name(str(metric))}": needed_figure(
            rows, str(metric)
        )
        for (circuit, metric), rows in data.minimality.groupby(["circuit", "metric"], sort=True)
    }
    yield Section(
        "minimality",
        "Which edges a circuit needs",
        "Each edge is taken out of its circuit alone, and the circuit is run again; the height is "
        "what it loses, with a bootstrap interval over prompts. Edges are called needed or harmful "
        "so that of those called so at most a stated share is wrong (Benjamini and Hochberg, over "
        "all edges of the circuit): of many edges without effect some intervals miss zero. A "
        "minimal circuit has no edge that could be spared. An edge of no effect here may still "
        "matter together with another.",
        (
            legend(*(swatch(colour, words) for colour, words in KINDS.values())),
            Choice("needed", "circuit", figures, next(iter(figures))),
        ),
        link="Edges it needs",
    )
