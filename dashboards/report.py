"""The report: one self-contained page of a run, finished or not. It needs no network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from dashboards.curves import AXES, METRIC_NAMES, default_metric, faithfulness_figure, subsets
from dashboards.data import RunData, load_run
from dashboards.structure import (
    MAX_DRAWN_EDGES,
    block_ablation_figure,
    block_matrix,
    block_matrix_figure,
    circuit_figure,
    histogram_figure,
)
from dashboards.text import (
    block_table,
    identity,
    key_table,
    leading,
    skill_table,
    summary,
    warnings,
)
from storage.atomic import replace

TEMPLATE = Path(__file__).with_name("page.html")
#: circuits offered in the drawing, beyond which the page would grow by megabytes
MAX_DRAWN_CIRCUITS = 12


@dataclass
class Page:
    """Sections of the page and the figures they name."""

    sections: list[str] = field(default_factory=list)
    figures: dict[str, go.Figure] = field(default_factory=dict)

    def section(self, title: str, note: str, *parts: str) -> None:
        head = f"<h2>{escape(title)}</h2><p class='note'>{note}</p>"
        self.sections.append(f"<section>{head}{''.join(parts)}</section>")

    def figure(self, name: str, figure: go.Figure, attributes: str = "") -> str:
        """The place of a figure that is drawn at once."""
        self.figures[name] = figure
        return f"<div id='{name}' data-figure='{name}' {attributes}></div>"

    def chooser(self, name: str, label: str, figures: Mapping[str, go.Figure], first: str) -> str:
        """The place of one figure of several, and the menu that chooses it."""
        options = []
        for i, (title, figure) in enumerate(figures.items()):
            self.figures[f"{name}{i}"] = figure
            selected = " selected" if title == first else ""
            options.append(f"<option value='{name}{i}'{selected}>{escape(title)}</option>")
        menu = f"<select data-target='{name}'>{''.join(options)}</select>"
        return f"<div class='controls'><label>{label} {menu}</label></div><div id='{name}'></div>"


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
    for build in (_curves, _skill, _circuits, _histograms, _blocks, _identity):
        build(page, data)
    figures = ",".join(f'"{name}":{to_json(figure)}' for name, figure in page.figures.items())
    blob = "{" + figures.replace("</", "<\\/") + "}"
    holder = f"<script type='application/json' id='figures'>{blob}</script>"
    config = data.config
    what = f"{', '.join(config['sweep']['model'])} on {', '.join(config['sweep']['task'])}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{config['name']}: edgesweep"),
        heading=escape(config["name"]),
        subheading=f"{escape(what)}. Run <code>{escape(data.status['run_id'])}</code>, "
        f"{escape(data.status['state'])}.",
        summary=summary(data),
        warnings=warnings(data),
        plotly=get_plotlyjs(),
        sections="\n".join(page.sections) + holder,
    )


# --- sections ----------------------------------------------------------------------------------


def _curves(page: Page, data: RunData) -> None:
    table = data.results
    if table.empty:
        page.section("Faithfulness against size", "No circuit has been evaluated yet.")
        return
    metrics = {m: METRIC_NAMES.get(m, m) for m in dict.fromkeys(table["metric"])}
    chosen = default_metric(table)
    controls = (
        "<div class='controls'>"
        + _menu("metric", "metric", metrics, chosen)
        + _menu("subset", "inputs", {s: s for s in subsets(table)}, "all")
        + "</div>"
    )
    figures = {x: faithfulness_figure(table, x) for x in AXES}
    places = {x: page.figure(f"curve_{x}", f, "data-curves='1'") for x, f in figures.items()}
    page.section(
        "Faithfulness against size",
        "φ = (λ(circuit) − λ(empty)) / (λ(model) − λ(empty)): 1 is the model, 0 the empty "
        "circuit. "
        "Solid lines run the circuit's edges, dotted ones only its nodes: node ablation keeps "
        "every edge out of a kept node, so its circuits have many more edges than were selected.",
        controls,
        places["n_edges"],
        "<div class='two'>"
        f"<div>{places['n_nodes']}</div><div>{places['average_degree']}</div></div>",
    )
    page.section(
        "The smallest faithful circuits",
        "Of the sizes measured, the smallest that reaches a faithfulness; the metric is the one "
        "chosen above.",
        key_table(data),
    )


def _menu(name: str, label: str, options: Mapping[str, str], chosen: str) -> str:
    items = "".join(
        f"<option value='{escape(v)}'{' selected' if v == chosen else ''}>{escape(t)}</option>"
        for v, t in options.items()
    )
    return f"<label>{label} <select id='{name}'>{items}</select></label>"


def _skill(page: Page, data: RunData) -> None:
    page.section(
        "Can the model do the tasks?",
        "The full model on the evaluation prompts. No circuit explains what the model cannot do.",
        skill_table(data),
    )


def _circuits(page: Page, data: RunData) -> None:
    figures, first = _drawn(data)
    if not figures:
        page.section("The circuit by layer", "No circuit with edges has been found yet.")
        return
    page.section(
        "The circuit by layer",
        "Heads (circles) side by side, MLPs (squares) to their right, embeddings at the bottom. "
        "A wider edge has a larger score; hover over a node for its strongest neighbours. Query, "
        "key and value edges are drawn as one; of circuits with more edges the "
        f"{MAX_DRAWN_EDGES} strongest are drawn.",
        page.chooser("circuit", "circuit", figures, first),
    )


def _drawn(data: RunData) -> tuple[dict[str, go.Figure], str]:
    """Circuits worth drawing by their titles, and the one to begin with: the largest whose edges
    are all drawn, of the cell that the page leads with."""
    best = leading(data)
    table = data.circuits.groupby(["cell", "circuit"], sort=True).size().rename("n").reset_index()
    table = table.sort_values(["cell", "n"])
    readable = table[table["n"] <= 4 * MAX_DRAWN_EDGES].tail(MAX_DRAWN_CIRCUITS)
    figures, first = {}, ""
    for cell, circuit, n_edges in readable.itertuples(index=False):
        edges = data.circuits[data.circuits["circuit"] == circuit]
        title = f"{circuit}: {n_edges:,} edges"
        figures[title] = circuit_figure(edges, data.graphs[cell])
        if n_edges <= MAX_DRAWN_EDGES and (best is None or cell == best["cell"]):
            first = title
    return figures, first


def _histograms(page: Page, data: RunData) -> None:
    if not data.histograms:
        page.section("Scores of edges", "No cell has been reduced yet.")
        return
    figures = {cell: histogram_figure(scores) for cell, scores in data.histograms.items()}
    page.section(
        "Scores of edges",
        f"The {escape(data.aggregation)} over inputs of every edge's score, by sign. A few edges "
        "carry most of the effect; the bulk lies many orders of magnitude lower.",
        page.chooser("histogram", "cell", figures, next(iter(figures))),
    )


def _blocks(page: Page, data: RunData) -> None:
    if data.blocks.empty:
        reasons = [
            escape(str(reason))
            for event in data.log
            for reason in (event.get("left_out") or {}).values()
        ]
        asked = data.config["blocks"]["fit"] != "none"
        why = reasons[-1] if reasons else "none has been fitted yet" if asked else "not asked for"
        page.section("Block models", f"There are none: {why}.")
        return
    for circuit in sorted(set(data.blocks["circuit"])):
        _block_section(page, data, circuit, len(page.figures))


def _block_section(page: Page, data: RunData, circuit: str, number: int) -> None:
    blocks = data.blocks[data.blocks["circuit"] == circuit]
    edges = data.circuits[data.circuits["circuit"] == circuit]
    graph = data.graphs[str(blocks["cell"].iloc[0])]
    counts, names = block_matrix(edges, blocks, graph)
    ablated = data.results[data.results["circuit"] == circuit]
    metric = default_metric(data.results)
    about = blocks.iloc[0]
    corrected = "degree-corrected" if about["degree_corrected"] else "not degree-corrected"
    parts = [
        page.figure(f"blocks{number}", block_matrix_figure(counts, names)),
        block_table(blocks),
    ]
    if (ablated["blocks"] != "all").any():
        parts += [
            "<h2>Ablating blocks, task by task</h2><p class='note'>Faithfulness "
            f"({escape(METRIC_NAMES.get(metric, metric))}) measured on each task (rows) when the "
            "blocks labelled by a task (columns) are removed, or are all that is kept. "
            "Embeddings and logits are never removed.</p>",
            "<div class='two'>",
            *(
                f"<div><h3>{title}</h3>"
                + page.figure(f"{mode}{number}", block_ablation_figure(ablated, metric, mode))
                + "</div>"
                for mode, title in (("without", "Without them"), ("only", "With only them"))
            ),
            "</div>",
        ]
    page.section(
        f"Block model of {circuit}",
        f"A {escape(about['fit'])}, {corrected} stochastic block model of the circuit's nodes; "
        f"description length {about['description_length']:,.1f} nats. A block is labelled by the "
        "task that gives it the largest share of its attribution.",
        *parts,
    )


def _identity(page: Page, data: RunData) -> None:
    page.section("The run", "What was run, by what, and how to run it again.", identity(data))
