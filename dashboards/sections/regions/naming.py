"""What is told of what a figure is of: only what differs in a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.regions import NAMES
from edgesweep.dashboards.names import varying

#: what tells two sites' units apart
OF_UNITS = ["model", "task", "site", "build_patch", "steps", "rule"]


def told(table: pd.DataFrame, columns: Sequence[str] = ()) -> list[str]:
    """The columns of a site's units, and others, that differ."""
    return list(varying(table, [*OF_UNITS, *columns]))


def ordered(data: RunData, table: pd.DataFrame) -> pd.DataFrame:
    """Rows as people look for them: models, sites and patches as the config has them, then by the
    number of blocks that was asked for, the block model first."""
    units = [about["key"] for about in data.plan["rois"]]
    places = {
        "units": units,
        "eval_patch": data.config["evaluate"]["eval_patch"],
        "partition": list(NAMES),
    }
    by = [c for c in ("units", "eval_patch", "asked", "partition") if c in table]
    return table.sort_values(by, key=lambda c: _place(c, places.get(str(c.name))), kind="stable")


def _place(column: pd.Series, known: Sequence[str] | None) -> pd.Series:
    if known is None:
        return column
    return column.map({name: i for i, name in enumerate(known)}).fillna(len(known))


def groups(
    data: RunData, table: pd.DataFrame, columns: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that agree in their units and some columns, each with a name of what differs."""
    words, table = told(table, columns), ordered(data, table)
    for _, rows in table.groupby(["units", *columns], sort=False):
        first = rows.iloc[0]
        yield " · ".join(_word(c, first) for c in words) or "all", rows


def _word(column: str, row: pd.Series) -> str:
    if column == "partition":
        return NAMES.get(str(row[column]), str(row[column]))
    if column == "asked":
        return f"{row['n_blocks']} blocks"
    if column == "eval_patch":
        return f"{row[column]} patch"
    return str(row[column])


def class_names(data: RunData, units: str) -> Callable[[int], str]:
    """What a class of a site's task is called."""
    (about,) = (about for about in data.plan["rois"] if about["key"] == units)
    names = about["classes"]
    return lambda number: str(names[number]) if number < len(names) else str(number)


def published(data: RunData) -> Mapping[str, Any]:
    """What the config has of a publication; nothing where it has none."""
    return data.config["report"].get("published") or {}
