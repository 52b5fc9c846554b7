"""The sections of regions of interest: what is left without them, beside other partitions; what
they say of classes; what they see."""

from collections.abc import Callable, Iterator

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.pages import Section
from edgesweep.dashboards.sections.regions import classes, compared, curves, views

#: in the page's order
ROIS: tuple[Callable[[RunData], Iterator[Section]], ...] = (
    compared.section,
    curves.section,
    classes.heat,
    classes.matrices,
    views.section,
    compared.fits,
)
