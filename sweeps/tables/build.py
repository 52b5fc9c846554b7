"""The tables of a run: pure functions of what is committed, sorted, without a clock.

They are made in one pass over the cells, in the order of their keys: a cell's arrays are read once,
its rows are written, and what is derived of it alone. What compares cells comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import pandas as pd

from edgesweep.storage.tables import (
    EQUAL_PHI,
    HEADLINES,
    KNOWN,
    MEASURES,
    OVERLAP,
    PAIRS,
    RESULTS,
    ROC,
    Table,
    TableWriter,
    to_parquet,
)
from edgesweep.sweeps.interactions.tables.bases import interaction_tables
from edgesweep.sweeps.interactions.tables.needed import needed_tables
from edgesweep.sweeps.interactions.tables.structure import structure_tables
from edgesweep.sweeps.regions.rows import roi_tables
from edgesweep.sweeps.stages.networks import network_tables
from edgesweep.sweeps.tables.analysis import Analysis
from edgesweep.sweeps.tables.overlap import Overlap
from edgesweep.sweeps.tables.rankings import families
from edgesweep.sweeps.tables.rebuilt import pairs as paired

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View

Frames = dict[Table, pd.DataFrame]


def build_tables(view: View) -> dict[str, bytes]:
    """The bytes of every table by file name."""
    view.forget()
    cells, analysis = view.reduced, Analysis(view)
    tables = [*_of_stages(view), MEASURES, ROC, HEADLINES, EQUAL_PHI]
    writers = {table: TableWriter(table) for table in tables}
    for frames in _in_order(view, analysis, cells):
        for table, rows in frames.items():
            writers[table].add(rows)
    found = {table.file: writer.finish() for table, writer in writers.items()}
    pairs = _joined(paired(view, cells))
    overlap = _joined(Overlap(view, cells).frames())
    beside = (
        *(interaction_tables, needed_tables, structure_tables),
        *(network_tables, roi_tables),
    )
    for table, rows in chain.from_iterable(tables_of(view).items() for tables_of in beside):
        found[table.file] = to_parquet(table, rows)
    return found | {
        OVERLAP.file: to_parquet(OVERLAP, overlap),
        PAIRS.file: to_parquet(PAIRS, pairs),
        KNOWN.file: to_parquet(KNOWN, list(analysis.known())),
    }


def _in_order(view: View, analysis: Analysis, cells: list[Cell]) -> Iterator[Frames]:
    """Rows of one cell after another, by key. Those that a search has several of are read together,
    and wait for their turn."""
    waiting: dict[str, Frames] = {}
    turns = iter(sorted(cell.key for cell in cells))
    turn = next(turns, None)
    for family in sorted(families(cells), key=lambda of: min(cell.key for cell in of)):
        for cell in family:
            waiting[cell.key] = rows_of_cells(view, [cell])
        results = _joined(waiting[cell.key][RESULTS] for cell in family)
        for table, rows in analysis.of_family(family, results).items():
            for key, mine in rows.groupby("cell") if len(rows) else ():
                waiting[str(key)][table] = mine
        while turn in waiting:
            yield waiting.pop(turn)
            turn = next(turns, None)


def rows_of_cells(view: View, cells: Iterable[Cell]) -> Frames:
    """What all stages say of some cells whose scores are reduced."""
    found: dict[Table, list[pd.DataFrame]] = {table: [] for table in _of_stages(view)}
    for cell in cells:
        view.turn_to_another()
        for stage in view.plan.all_stages.values():
            for table, rows in stage.rows(view, cell).items():
                frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
                found[table].append(frame)
    return {table: _joined(frames) for table, frames in found.items()}


def _of_stages(view: View) -> list[Table]:
    stages = view.plan.all_stages.values()
    return list(dict.fromkeys(table for stage in stages for table in stage.tables))


def _joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    some = [frame for frame in frames if len(frame)]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame()
