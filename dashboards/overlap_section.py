"""The section that sets what was found against each other: by methods, on tasks, on other draws of
the prompts. How alike edges are ranked, and how many of the strongest are shared."""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.curves import meta, told_to_menus
from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import cell_names, is_search
from edgesweep.dashboards.pages import Page
from edgesweep.dashboards.style import HEAT, styled

RANKS = "how alike they rank all edges (Spearman)"
FOUND = "the circuit of a search and as many of the strongest"
HOVER = (
    "%{y}<br>%{x}<br>%{z:.3f}, by chance %{customdata[0]:.3g}<br>over %{customdata[1]:,.0f} edges "
    "or nodes; mean of %{customdata[2]:.0f} pairs<extra></extra>"
)
TITLES = {"method": "Methods", "task": "Tasks", "seed": "Other prompts"}


def add_overlap(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where nothing can be compared."""
    parts = []
    for across, title in TITLES.items():
        figures = overlap_figures(data, across)
        if figures:
            first = next(iter(figures))
            drawn = page.chooser(f"overlaps-{across}", "compare", figures, first)
            parts.append(f"<h3>{title}</h3><p class='note'>{_note(across, data)}</p>{drawn}")
    if parts:
        page.section(
            "overlap",
            "Methods against each other" if len(parts) == 1 else "Methods, tasks and draws",
            "Were the same edges found? The rank correlation compares the whole order, over the "
            "edges that both sides measured (1: the same order, 0: unrelated). The overlap takes "
            "as many of the strongest of either: what both have, of what either has (Jaccard; 1: "
            "the same); in brackets what edges in a random order would share. Methods that score "
            "nodes are compared by nodes.",
            *parts,
        )


def _note(across: str, data: RunData) -> str:
    """What a part compares, and on what it was measured."""
    rows = _told(data).query("across == @across")
    seeds = sorted({*rows["seed_a"], *rows["seed_b"]})
    n_build = data.config.get("data", {}).get("n_build")
    drawn = f"{n_build} prompts a task to build from" if n_build else "the build prompts"
    draws = f", drawn with seed {seeds[0]}"
    if len(seeds) > 1:
        draws = f", drawn anew with each of the seeds {', '.join(map(str, seeds))}"
    means = "; values are means over seeds" if len(seeds) > 1 else ""
    told = {
        "method": f"Two methods on the same {drawn}{draws}{means}.",
        "task": f"One method on two tasks: {drawn}{draws}{means}. Where prompts are drawn more "
        "than once, two draws of one task say how much two tasks could share at the most.",
        "seed": f"One method on one task, {drawn}{draws}; values are means over pairs of draws.",
    }
    return told[across]


def overlap_figures(data: RunData, across: str = "method") -> dict[str, go.Figure]:
    """Title -> a heatmap a (model, task, aggregation), of which the page's menus choose one."""
    found: dict[str, go.Figure] = {}
    table = _told(data)
    table = table[table["across"] == across]
    columns = told_to_menus(table, data.results)
    keys = ["model", "task", "aggregation"] if across == "method" else ["model", "aggregation"]
    for title, rows in table.groupby("title", sort=False):
        figure = go.Figure()
        for _, group in rows.groupby(keys, sort=False):
            shown = meta(group.iloc[0].to_dict(), [c for c in columns if c in keys])
            figure.add_trace(_heatmap(group, data, across).update(meta={"part": "heat", **shown}))
        found[str(title)] = styled(
            figure,
            height=140 + max(36 * max(len(trace.y) for trace in figure.data), 120),
            xaxis={"type": "category", "dtick": 1, "showgrid": False, "tickangle": -35},
            yaxis={"type": "category", "autorange": "reversed", "showgrid": False},
        )
    return dict(sorted(found.items(), key=lambda item: item[0] != RANKS))


def _told(data: RunData) -> pd.DataFrame:
    """The table with the figure that each row is in, both methods' names, and what is compared."""
    table = data.overlap
    if "across" not in table:  # a run of an older version compares methods alone
        ends: dict[str, Any] = {"task": table["task"], "subset": "all", "seed": 0}
        same = {f"{name}_{end}": value for name, value in ends.items() for end in "ab"}
        table = table.assign(across="method", chance=np.nan, **same)
    table = table[table["measure"].isin(["spearman", "jaccard"])]
    names, several = _names(data), len({*table["task_a"], *table["task_b"]}) > 1
    searches = {key for key, cell in data.cells.items() if is_search(cell)}
    return table.assign(
        title=[_title(row, searches) for row in table.to_dict("records")],
        what=[_what(row, several) for row in table.to_dict("records")],
        task=table["task_a"],
        name_a=table["cell_a"].map(names),
        name_b=table["cell_b"].map(names),
    )


def _names(data: RunData) -> dict[str, str]:
    """Cell -> its method and settings, whatever its task and seed; those that score edges first."""
    cells = sorted(data.cells.values(), key=lambda cell: data.scores_nodes(str(cell["key"])))
    return cell_names([{**cell, "seed": None, "task": ""} for cell in cells])


def _title(row: Mapping[Any, Any], searches: Container[str]) -> str:
    if row["measure"] == "spearman":
        return RANKS
    found = row["cell_a"] in searches or row["cell_b"] in searches
    return FOUND if found else f"overlap of the top {row['size']:,}"


def _what(row: Mapping[Any, Any], several: bool) -> str:
    """Which tasks a row is of, by their members where it is of a member; of one task its name."""
    ends = [
        task if subset == "all" else f"{subset} in {task}" if several else subset
        for task, subset in ((row[f"task_{end}"], row[f"subset_{end}"]) for end in "ab")
    ]
    return " · ".join(dict.fromkeys(ends))


def _heatmap(rows: pd.DataFrame, data: RunData, across: str) -> go.Heatmap:
    """Methods by methods, each with itself 1; or methods by what they are compared over."""
    used = {*rows["name_a"], *rows["name_b"]}
    names = [name for name in dict.fromkeys(_names(data).values()) if name in used]
    columns, over = list(dict.fromkeys(rows["what"])), "what"
    if across == "method":
        swapped = rows.rename(columns={"name_a": "name_b", "name_b": "name_a"})
        rows, columns, over = pd.concat([rows, swapped]), names, "name_b"
    groups = rows.groupby(["name_a", over])
    told = {c: groups[c].mean() for c in ("value", "chance", "n")} | {"pairs": groups.size()}
    values, *more = (
        table.unstack().reindex(index=names, columns=columns).to_numpy(float, copy=True)
        for table in told.values()
    )
    if across == "method":
        np.fill_diagonal(values, 1.0)
    return go.Heatmap(
        z=values,
        x=columns,
        y=names,
        customdata=np.stack(more, axis=-1),
        xgap=1,
        ygap=1,
        zmin=0,
        zmax=1,
        colorscale=HEAT,
        showscale=False,
        text=[
            [_text(*cell) for cell in zip(*row, strict=True)]
            for row in zip(values, more[0], strict=True)
        ],
        texttemplate="%{text}",
        textfont={"size": 12},
        hoverongaps=False,
        hovertemplate=HOVER,
    )


def _text(value: float, chance: float) -> str:
    """A value, and in brackets what chance would give where that is no 0."""
    if np.isnan(value):
        return ""
    by_chance = "" if np.isnan(chance) or chance == 0 else f"<br>({_small(chance)})"
    return f"{round(value, 2) + 0.0:.2f}{by_chance}"


def _small(chance: float) -> str:
    return f"{chance:.2f}" if chance >= 0.01 else "&lt;0.01"
