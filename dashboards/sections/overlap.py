"""The section that sets what was found against each other: by methods, on tasks, on other draws of
the prompts. How alike edges are ranked, and how many of the strongest are shared."""

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.overlap import overlap_figure
from edgesweep.dashboards.names import cell_names, is_search
from edgesweep.dashboards.pages import Choice, Part, Section
from edgesweep.dashboards.series import told_to_menus

RANKS = "how alike they rank all edges (Spearman)"
FOUND = "the circuit of a search and as many of the strongest"
TITLES = {"method": "Methods", "task": "Tasks", "seed": "Other prompts"}


def section(data: RunData) -> Iterator[Section]:
    """Nothing where nothing can be compared."""
    compared = {across: overlap_figures(data, across) for across in TITLES}
    compared = {across: figures for across, figures in compared.items() if figures}
    parts: list[Part] = []
    for across, figures in compared.items():
        parts.append(f"<h3>{TITLES[across]}</h3><p class='note'>{_note(across, data)}</p>")
        parts.append(Choice(f"overlaps-{across}", "compare", figures, next(iter(figures))))
    if parts:
        yield Section(
            "overlap",
            "Methods against each other" if len(compared) == 1 else "Methods, tasks and draws",
            "Were the same edges found? The rank correlation compares the whole order, over the "
            "edges that both sides measured (1: the same order, 0: unrelated). The overlap takes "
            "as many of the strongest of either: what both have, of what either has (Jaccard; 1: "
            "the same); in brackets what edges in a random order would share. Methods that score "
            "nodes are compared by nodes.",
            tuple(parts),
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
        "method": f"Two methods on the same {drawn}{draws}{means}.{_left_out(data)}",
        "task": f"One method on two tasks: {drawn}{draws}{means}. Where prompts are drawn more "
        "than once, two draws of one task say how much two tasks could share at the most.",
        "seed": f"One method on one task, {drawn}{draws}; values are means over pairs of draws.",
    }
    return told[across]


def _left_out(data: RunData) -> str:
    """How many cells are not compared, where a task has more than the config's most."""
    most = data.config.get("measures", {}).get("overlap")
    groups = Counter(
        (cell["model"], cell["task"], cell["dataset"], cell["scores"])
        for cell in data.cells.values()
    )
    left = sum(max(n - most, 0) for n in groups.values()) if most is not None else 0
    return (
        f" At most {most} cells of a task are compared, as many of every method as there is room "
        f"for; {left:,} are left out (<code>measures.overlap</code>)."
        if left
        else ""
    )


def overlap_figures(data: RunData, across: str = "method") -> dict[str, go.Figure]:
    """Title -> a figure, the ranks first."""
    table = _told(data)
    table = table[table["across"] == across]
    columns, names = told_to_menus(table, data.results), list(_names(data).values())
    found = {
        str(title): overlap_figure(rows, across, names, columns)
        for title, rows in table.groupby("title", sort=False)
    }
    return dict(sorted(found.items(), key=lambda item: item[0] != RANKS))


def _told(data: RunData) -> pd.DataFrame:
    """The table with the figure that each row is in, both methods' names, and what is compared."""
    table = data.overlap
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
    return cell_names([{**cell, "seed": None, "task": ""} for cell in cells], data.kinds)


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
