"""The tables of a run: pure functions of what is committed, sorted, without a clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from edgesweep.storage.tables import (
    KNOWN,
    MEASURES,
    OVERLAP,
    RESULTS,
    ROC,
    Table,
    from_parquet,
    to_parquet,
)
from edgesweep.sweeps.stages.base import Row
from edgesweep.sweeps.tables.analysis import Analysis
from edgesweep.sweeps.tables.overlap import Overlap

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View


def build_tables(view: View) -> dict[str, bytes]:
    """The bytes of every table by file name."""
    cells = view.reduced
    found = {t.file: to_parquet(t, r) for t, r in rows_of_cells(view, cells).items()}
    analysis = Analysis(view, cells, from_parquet(found[RESULTS.file]))
    derived: dict[Table, Iterable[Row]] = {
        MEASURES: analysis.measures(),
        ROC: analysis.roc(),
        OVERLAP: Overlap(view, cells).rows(),
        KNOWN: analysis.known(),
    }
    return found | {table.file: to_parquet(table, list(rows)) for table, rows in derived.items()}


def rows_of_cells(view: View, cells: Iterable[Cell]) -> dict[Table, pd.DataFrame]:
    """What all stages say of some cells whose scores are reduced."""
    stages = view.plan.all_stages.values()
    found: dict[Table, list[pd.DataFrame]] = {table: [] for s in stages for table in s.tables}
    for cell in cells:
        view.forget()
        for stage in stages:
            for table, rows in stage.rows(view, cell).items():
                frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
                found[table] += [frame] * bool(len(frame))
    return {t: pd.concat(frames) if frames else pd.DataFrame() for t, frames in found.items()}
