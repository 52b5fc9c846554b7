"""The sections of interaction graphs: their course in training, how much is needed, the graphs,
what they are made of, the spectra of layers."""

from collections.abc import Callable, Iterator

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.pages import Section
from edgesweep.dashboards.sections.layered import (
    graphs,
    growth,
    labels,
    modules,
    needed,
    spectra,
)

#: in the page's order
LAYERED: tuple[Callable[[RunData], Iterator[Section]], ...] = (
    growth.section,
    needed.section,
    graphs.section,
    modules.section,
    labels.section,
    needed.directions,
    spectra.section,
)
