"""The report: one self-contained page of a run, finished or not. It needs no network."""

import json
from html import escape
from pathlib import Path
from string import Template

import pandas as pd
from plotly.offline import get_plotlyjs

from dashboards.about import again, identity
from dashboards.blocks_section import add_blocks
from dashboards.circuits_section import add_circuits
from dashboards.curves import (
    AXES,
    faithfulness_figure,
    menus,
    n_outside,
    thinned,
    with_series,
)
from dashboards.data import RunData, load_run
from dashboards.names import cell_names
from dashboards.pages import Page, glyph, legend, select, stroke, swatch
from dashboards.structure import histogram_figure, uncounted
from dashboards.style import (
    DASHES,
    GLYPHS,
    IN_THE_DARK,
    METHOD_COLOURS,
    NEGATIVE,
    POSITIVE,
    colours,
)
from dashboards.text import key_table, leading, skill_table, summary, warnings
from storage.atomic import replace

TEMPLATE = Path(__file__).with_name("page.html")
#: cells whose histograms stand side by side; more are chosen by a menu
MAX_SIDE_BY_SIDE = 2


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        run_dir: the run's directory.
        out: where to; `report.html` in the run's directory if None.

    Returns:
        Where it was written.

    Raises:
        StorageError: no run there, or the page cannot be written.
    """
    target = out or run_dir / "report.html"
    replace(target, render(load_run(run_dir)).encode())
    return target


def render(data: RunData) -> str:
    """The page as text."""
    page = Page()
    for add in (_curves, _smallest, _skill, add_circuits, _histograms, add_blocks, _identity):
        add(page, data)
    config = data.config
    what = f"{', '.join(config['sweep']['model'])} on {', '.join(config['sweep']['task'])}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{config['name']}: edgesweep"),
        heading=escape(config["name"]),
        subheading=f"{escape(what)}. Run <code>{escape(data.status['run_id'])}</code>, "
        f"{escape(data.status['state'])}.",
        summary=summary(data),
        warnings=warnings(data),
        links="".join(page.links),
        plotly=get_plotlyjs(),
        in_the_dark=json.dumps(IN_THE_DARK),
        sections="\n".join(page.sections) + page.data(),
    )


# --- faithfulness ------------------------------------------------------------------------------


def _curves(page: Page, data: RunData) -> None:
    title = "Faithfulness against size"
    if data.results.empty:
        page.section("curves", title, "No circuit has been evaluated yet.")
        return
    table, left_out = thinned(data.results)
    lead = leading(data)
    places = {
        x: page.figure(f"curve_{x}", faithfulness_figure(table, x, lead), f"{title}: {words}")
        for x, (words, _) in AXES.items()
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
        "model does, φ = 0 what the empty circuit does; up and to the left is better. Solid lines "
        "keep the circuit's edges; dashed lines keep its nodes with every edge out of them, which "
        "are many more than were selected.",
        _controls(data, lead),
        _curve_legend(data),
        "<p class='empty' hidden>Nothing was measured for this choice.</p>",
        places["n_edges"],
        f"<div class='two'>{places['n_nodes']}{places['average_degree']}</div>",
        *(f"<p class='note'>{escape(note)}</p>" for note in notes),
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


def _curve_legend(data: RunData) -> str:
    table = with_series(data.results)
    methods = colours(table["method_name"], METHOD_COLOURS)
    variants = sorted(set(table["variant"]))
    if not 1 < len(variants) <= len(GLYPHS):
        variants = []  # one needs no telling; of many, the menus show one and the pointer the rest
    ablations = [a for a in DASHES if a in set(table["ablation"])]
    return legend(
        *(swatch(colour, name) for name, colour in methods.items()),
        *(stroke(DASHES[a], f"{a} ablation") for a in ablations),
        *(glyph(g, name) for g, name in zip(GLYPHS, variants, strict=False)),
    )


def _smallest(page: Page, data: RunData) -> None:
    title = "The smallest faithful circuits"
    if data.results.empty:
        page.section("smallest", title, "No circuit has been evaluated yet.")
        return
    page.section(
        "smallest",
        title,
        "Of the sizes that were measured, the smallest that reaches a faithfulness, over all "
        "inputs; the metric is the one chosen above.",
        key_table(data),
    )


def _skill(page: Page, data: RunData) -> None:
    page.section(
        "skill",
        "Can the model do the tasks?",
        "The full model on the evaluation prompts; accuracy is how often it prefers a good answer "
        "to a bad one. No circuit explains what the model cannot do.",
        skill_table(data),
    )


# --- scores ------------------------------------------------------------------------------------


def _histograms(page: Page, data: RunData) -> None:
    title = "Scores of edges"
    if not data.histograms:
        page.section("scores", title, "No cell has been reduced yet.")
        return
    names = cell_names(data.plan["cells"])
    figures = {names[cell]: histogram_figure(scores) for cell, scores in data.histograms.items()}
    if len(figures) <= MAX_SIDE_BY_SIDE:
        places = [
            f"<div><h3>{escape(name)}</h3>{page.figure(f'scores{i}', figure, name)}</div>"
            for i, (name, figure) in enumerate(figures.items())
        ]
        body = f"<div class='two'>{''.join(places)}</div>"
    else:
        body = page.chooser("scores", "cell", figures, next(iter(figures)))
    zero, bad = map(sum, zip(*map(uncounted, data.histograms.values()), strict=True))
    page.section(
        "scores",
        title,
        f"How many edges have a score of which size: the {escape(data.aggregation)} over inputs, "
        "split by sign, both axes logarithmic. A few edges carry most of the effect. "
        f"Not drawn: {zero:,} scores of exactly zero and {bad:,} that are not finite.",
        legend(swatch(POSITIVE, "raises the metric"), swatch(NEGATIVE, "lowers it")),
        body,
    )


# --- the run -----------------------------------------------------------------------------------


def _identity(page: Page, data: RunData) -> None:
    page.section(
        "run", "The run", "What was run, by what, and what went wrong on the way.", identity(data)
    )
    page.section(
        "again",
        "Run it again",
        "Save the config below as <code>config.yaml</code>. The same config gives the same run id, "
        "and on the same kind of processor the same numbers, bit for bit.",
        again(data),
    )
