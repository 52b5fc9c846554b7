"""The sections of faithfulness: its curves, what is left without the circuit, the smallest circuits
that reach it, and whether the model can do the tasks at all."""

from html import escape

import pandas as pd

from edgesweep.dashboards.curves import (
    axes_of,
    complements,
    faithfulness_figure,
    menus,
    n_outside,
    thinned,
    with_series,
)
from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import FEATURES
from edgesweep.dashboards.pages import Page, entry, glyph, legend, select, stroke
from edgesweep.dashboards.style import DASHES, GLYPHS
from edgesweep.dashboards.text import key_table, leading, skill_table

#: the same of nodes that are features
FEATURE_LINES = (
    "Nodes are features of each site's dictionary, and the error that it leaves over. Solid lines "
    "keep the circuit's edges: a feature is computed from the features that an edge joins to it, "
    "and from the patch values of all others. Dashed lines keep its nodes, as sparse feature "
    "circuits do (Marks et al. 2024): all others take their patch value, so every edge that the "
    "sites allow among the kept ones acts, and is counted. A circuit of a method that scores nodes "
    "is those nodes with all edges among them, and so the same by either ablation: its two lines "
    "coincide."
)
NOTHING = "No circuit has been evaluated yet."


def add_curves(page: Page, data: RunData) -> None:
    """Adds the curves and the menus of the whole page."""
    title = "Faithfulness against size"
    if data.results.empty:
        page.section("curves", title, NOTHING)
        return
    table, left_out = thinned(data.results)
    lead = leading(data)
    places = {
        x: page.figure(
            f"curve_{x}", faithfulness_figure(table, x, lead, data.marks), f"{title}: {words}"
        )
        for x, (words, _) in axes_of(table).items()
    }
    outside = n_outside(table)
    notes = [left_out] if left_out else []
    if outside:
        notes.append(
            f"Of all that the menus can choose, {outside:,} points lie outside the drawn range of "
            "φ; double-click a figure to see them."
        )
    page.section(
        "curves",
        title,
        "Each point is one circuit, run with everything outside it ablated. φ = 1 does what the "
        "model does, φ = 0 what the empty circuit does; up and to the left is better. "
        f"{_lines(table)}",
        _controls(data, lead),
        _legend(data),
        places["n_edges"],
        f"<div class='two'>{places['n_nodes']}{places['average_degree']}</div>",
        *(f"<p class='note'>{escape(note)}</p>" for note in notes),
    )


def _lines(results: pd.DataFrame) -> str:
    """What solid and dashed lines are, by the kinds of nodes."""
    kinds = set(results.get("nodes", ())) or {"heads"}
    heads = "Solid lines keep the circuit's edges" + (
        "; dashed lines keep its nodes with every edge out of them, which are many more than were "
        "selected."
        if "node" in set(results["ablation"])
        else "."
    )
    return " ".join(
        ([heads] if kinds - {FEATURES} else []) + ([FEATURE_LINES] if FEATURES in kinds else [])
    )


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
    variants = sorted(set(table["variant"]))
    if not 1 < len(variants) <= len(GLYPHS):
        variants = []  # one needs no telling; of many, the menus show one and the pointer the rest
    ablations = [a for a in DASHES if a in set(table["ablation"])]
    return legend(
        *(entry(data.marks[name], name) for name in methods),
        *(stroke(DASHES[a], f"{a} ablation") for a in ablations),
        *(glyph(g, name) for g, name in zip(GLYPHS.values(), variants, strict=False)),
    )


def add_completeness(page: Page, data: RunData) -> None:
    """Adds what the model does without the circuit, where that was measured."""
    if data.results.empty or (table := complements(data.results)).empty:
        return
    title = "What is left without the circuit"
    chosen = menus(data.results, leading(data))
    figure = faithfulness_figure(table, "n_edges", None, data.marks, chosen)
    page.section(
        "completeness",
        title,
        "The same circuits, this time taken out of the model while everything else stays. φ = 0 "
        "means that nothing of what the model does is left, so the circuit is complete; φ = 1 that "
        "the model does as well without it, because other edges do the work too. Lines and menus "
        "are those above.",
        page.figure("complement_n_edges", figure, title),
        link="Without the circuit",
    )


def add_smallest(page: Page, data: RunData) -> None:
    """Adds the table of the smallest circuits that reach a faithfulness."""
    title = "The smallest faithful circuits"
    if data.results.empty:
        page.section("smallest", title, NOTHING)
        return
    page.section(
        "smallest",
        title,
        "Of the sizes that were measured, the smallest that reaches a faithfulness, over all "
        "inputs; the metric is the one chosen above.",
        key_table(data),
    )


def add_skill(page: Page, data: RunData) -> None:
    """Adds how well the full model does the tasks."""
    page.section(
        "skill",
        "Can the model do the tasks?",
        f"The full model on {data.config['data']['n_eval']:,} evaluation prompts of each task; "
        "accuracy is how often it prefers a good answer to a bad one, the logit difference by how "
        "much, in the mean. No circuit explains what the model cannot do.",
        skill_table(data),
    )
