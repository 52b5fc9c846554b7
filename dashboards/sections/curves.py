"""The sections of faithfulness against size: of circuits, with the menus of the whole page, and of
the model without them."""

from collections.abc import Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.curves import (
    axes_of,
    faithfulness_figure,
    marks_of_variants,
    n_outside,
    thinned,
)
from edgesweep.dashboards.headline import leading
from edgesweep.dashboards.kinds import together
from edgesweep.dashboards.pages import (
    Figure,
    Section,
    Side,
    entry,
    glyph,
    legend,
    select,
    stroke,
)
from edgesweep.dashboards.series import complements, menus, with_series
from edgesweep.dashboards.style import DASHES, GLYPHS

TITLE = "Faithfulness against size"
WITHOUT = "What is left without the circuit"
NOTHING = "No circuit has been evaluated yet."


def section(data: RunData) -> Iterator[Section]:
    if data.results.empty:
        yield Section("curves", TITLE, NOTHING)
        return
    table, left_out = thinned(data.results)
    lead = leading(data)
    axes = axes_of(data.kinds[nodes] for nodes in set(table["nodes"]))
    places = {
        x: Figure(
            f"curve_{x}",
            faithfulness_figure(table, x, lead, data.marks, axes=axes),
            f"{TITLE}: {words}",
        )
        for x, (words, _) in axes.items()
    }
    yield Section(
        "curves",
        TITLE,
        "Each point is one circuit, run with everything outside it ablated. φ = 1 does what the "
        "model does, φ = 0 what the empty circuit does; up and to the left is better. "
        f"{_lines(table, data)}",
        (
            _controls(data, lead),
            _legend(data),
            *(places[x] for x in ("n_edges", "density") if x in places),
            Side((places["n_nodes"], places["average_degree"])),
            *(f"<p class='note'>{escape(note)}</p>" for note in _notes(table, left_out)),
        ),
    )


def completeness(data: RunData) -> Iterator[Section]:
    """Nothing where it was not measured."""
    if data.results.empty or (table := complements(data.results)).empty:
        return
    chosen = menus(data.results, leading(data))
    figure = faithfulness_figure(table, "n_edges", None, data.marks, chosen)
    yield Section(
        "completeness",
        WITHOUT,
        "The same circuits, this time taken out of the model while everything else stays. φ = 0 "
        "means that nothing of what the model does is left, so the circuit is complete; φ = 1 that "
        "the model does as well without it, because other edges do the work too. Lines and menus "
        "are those above.",
        (Figure("complement_n_edges", figure, WITHOUT),),
        link="Without the circuit",
    )


def _notes(table: pd.DataFrame, left_out: str) -> list[str]:
    """What of the results is not to be seen."""
    notes = [left_out] if left_out else []
    if outside := n_outside(table):
        notes.append(
            f"Of all that the menus can choose, {outside:,} points lie outside the drawn range of "
            "φ; double-click a figure to see them."
        )
    return notes


def _lines(results: pd.DataFrame, data: RunData) -> str:
    """What solid and dashed lines are, by the kinds of nodes."""
    shown = [kind for nodes, kind in data.kinds.items() if nodes in set(results["nodes"])]
    by_nodes = "node" in set(results["ablation"])
    return together(kind.curves_of_nodes if by_nodes else kind.curves for kind in shown)


def _controls(data: RunData, lead: pd.Series | None) -> str:
    """The menus that choose lines and rows, everywhere on the page."""
    found = [
        f"<label>{escape(m.label)} "
        + select(m.options, m.chosen, f"id='{m.name}' data-choose='{m.name}'")
        + "</label>"
        for m in menus(data.results, lead)
    ]
    return f"<div class='controls'>{''.join(found)}</div>"


def _legend(data: RunData) -> str:
    table = with_series(data.results)
    methods = [name for name in data.marks if name in set(table["method_name"])]
    variants, apart = sorted(set(table["variant"])), marks_of_variants(table)
    if apart:
        methods = []
    if apart or not 1 < len(variants) <= len(GLYPHS):
        variants = []  # one needs no telling; of many, the menus show one and the pointer the rest
    ablations = [a for a in DASHES if a in set(table["ablation"])]
    return legend(
        *(entry(data.marks[name], name) for name in methods),
        *(entry(mark, name) for name, mark in apart.items()),
        *(stroke(DASHES[a], f"{a} ablation") for a in ablations),
        *(glyph(g, name) for g, name in zip(GLYPHS.values(), variants, strict=False)),
    )
