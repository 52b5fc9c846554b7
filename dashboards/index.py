"""What a run of many cells is split into, a page a model and task, and the list of these."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.headline import headline
from edgesweep.dashboards.names import decimal
from edgesweep.dashboards.pages import Table
from edgesweep.storage.layout import PAGES

#: with more cells than this each model and task of a run has a page of its own
MOST_CELLS = 200


@dataclass(frozen=True)
class Part:
    """The `number`-th model and task: its cells, and the `place` of its page in the run."""

    number: int
    model: str
    task: str
    cells: frozenset[str]

    @property
    def heading(self) -> str:
        return f"{self.model} on {self.task}"

    @property
    def place(self) -> str:
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{self.model}.{self.task}")
        return f"{PAGES}/{self.number:03d}.{name[:80]}.html"


def parts_of(data: RunData) -> list[Part]:
    """In the order of the run's cells."""
    found: dict[tuple[str, str], list[str]] = {}
    for key, cell in data.cells.items():
        found.setdefault((str(cell["model"]), str(cell["task"])), []).append(key)
    return [Part(n, *of, frozenset(cells)) for n, (of, cells) in enumerate(found.items(), 1)]


def note(data: RunData) -> str:
    """Why there are several pages."""
    return (
        f"This run has {len(data.cells):,} cells, more than one page can show; each model and task "
        "has one, which lies beside this one. Here is what each leads with: a circuit under one "
        "condition, chosen on other prompts than those that φ is of; of a mixture φ is the mean "
        "over its tasks."
    )


def table(data: RunData, parts: Sequence[Part]) -> Table:
    """A row a page, with what it leads with."""
    rows = []
    for part in parts:
        found, told = headline(data.of_cells(part.cells)), ["", "", ""]
        if found is not None and not found.objection:
            best = found.row
            size, phi = f"{best['n_edges']:,}", decimal(best["faithfulness"])
            told = [size, phi, escape(best["method_name"])]
        elif found is not None:
            told = ["", "", f"nothing is claimed: {escape(found.objection)}"]
        link = f"<a href='{escape(part.place)}'>{escape(part.heading)}</a>"
        rows.append([link, f"{len(part.cells):,}", *told])
    return Table(["page", "cells", "edges", "φ", "chosen by"], rows, (1, 2, 3))
