"""The sections of the page, one a file: each makes values of what a run holds, and none where a run
has nothing of it."""

from collections.abc import Callable, Iterator

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.pages import Section
from edgesweep.dashboards.sections import (
    circuits,
    curves,
    dictionaries,
    equal,
    estimates,
    interpolation,
    known,
    methods,
    minimality,
    overlap,
    run,
    scores,
    skill,
    smallest,
)
from edgesweep.dashboards.sections.blockmodels import blocks, rewired, worth
from edgesweep.dashboards.sections.samples import rebuilt

#: in the page's order
SECTIONS: tuple[Callable[[RunData], Iterator[Section]], ...] = (
    curves.section,
    equal.section,
    curves.completeness,
    smallest.section,
    skill.section,
    methods.section,
    rebuilt.section,
    overlap.section,
    known.section,
    estimates.section,
    interpolation.section,
    circuits.section,
    minimality.section,
    dictionaries.section,
    scores.section,
    blocks.section,
    worth.section,
    rewired.section,
    run.section,
)
