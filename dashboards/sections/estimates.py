"""The section that sets estimates of scores against patching itself, edge by edge (Syed et al.
2023, figure 4a)."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.estimate import MAX_POINTS, Pair, estimate_figure
from edgesweep.dashboards.names import PATCHING, is_search
from edgesweep.dashboards.pages import Choice, Section, legend, swatch
from edgesweep.dashboards.style import KNOWN, OTHER

#: estimates that one page holds
MAX_FIGURES = 16
#: what two cells must share for one to estimate the other
SAME = ("model", "task", "nodes", "build_patch", "build_metric")


def section(data: RunData) -> Iterator[Section]:
    """Nothing where nothing was patched exactly."""
    named = estimated(data)
    found = list(islice(pairs(data), MAX_FIGURES))
    if not found:
        return
    figures = {data.cell_names[p.cell]: estimate_figure(p, data) for p in found}
    cut = any(len(p.x) > MAX_POINTS for p in found)
    thinned = f" At most {MAX_POINTS:,} points are drawn: the largest, and some of the rest."
    left = f" {len(named) - MAX_FIGURES} more estimates are left out." * (len(named) > MAX_FIGURES)
    known = legend(swatch(OTHER, "an edge"), swatch(KNOWN, "in the known circuit"))
    yield Section(
        "estimate",
        "Estimate against patching",
        "Most methods estimate what would happen if one edge alone were patched; exact patching "
        "does it. Each point is an edge, or a node of methods that score nodes, that both "
        "measured: the estimate to the right, what patching gives upwards. On the dashed line the "
        "estimate is exact; the solid line is the best fit. A slope below 1 means that the "
        "estimate is too large, and R² is the share of the differences between edges that the "
        "estimate explains."
        f"{thinned if cut else ''}{left}",
        (
            known if any(p.true.any() for p in found) else "",
            Choice("estimates", "estimate", figures, next(iter(figures))),
        ),
        link="Estimates",
    )


def pairs(data: RunData) -> Iterator[Pair]:
    """Estimates beside what they estimate, where both measured an edge."""
    return (pair for pair in (_pair(data, *cells) for cells in estimated(data)) if len(pair.x))


def estimated(data: RunData) -> list[tuple[str, str]]:
    """Every estimate with the exact patching of the same model, task, patch and metric."""
    exact = [c for c in data.histograms if data.cells[c]["method"] in PATCHING]
    found = []
    for cell in data.histograms:
        about = data.cells[cell]
        if about["method"] in (*PATCHING, "random") or is_search(about):
            continue
        same = (reference for reference in exact if _comparable(data, cell, reference))
        found += [(cell, reference) for reference in islice(same, 1)]
    return found


def _comparable(data: RunData, cell: str, reference: str) -> bool:
    a, b = data.cells[cell], data.cells[reference]
    same_kind = data.scores_nodes(cell) == data.scores_nodes(reference)
    return same_kind and all(a.get(c) == b.get(c) for c in SAME)


def _pair(data: RunData, cell: str, reference: str) -> Pair:
    x, y = data.histograms[cell], data.histograms[reference]
    both = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    true = data.true(cell)
    true = true[both] if len(true) else np.zeros(len(both), bool)
    return Pair(cell, reference, both, x[both], y[both], true)
