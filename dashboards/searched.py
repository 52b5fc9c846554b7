"""What a run's searches for sizes have found (`evaluate.reach`, `edges_needed`), for whoever speaks
of a curve."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

#: what a search is of
SEARCHED = ("cell", "aggregation", "selection", "ablation", "eval_patch", "metric")


class Searched:
    """Answers by curve and level. Of the curves of all inputs; others have none.

    Args:
        reach: the run's table, maybe without rows.
    """

    def __init__(self, reach: pd.DataFrame) -> None:
        self.levels = sorted(set(reach["level"])) if len(reach) else []
        rows = reach.to_dict("records") if len(reach) else []
        self._rows = {(*(row[c] for c in SEARCHED), row["level"]): row for row in rows}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def answer(self, curve: Mapping[Hashable, Any], level: float) -> Mapping[Hashable, Any] | None:
        """Its row of the table, with `reached`; None where the curve was not searched."""
        if curve.get("subset", "all") != "all":
            return None
        return self._rows.get((*(curve.get(c) for c in SEARCHED), level))


# --- interaction graphs --------------------------------------------------------------------------


def forward(table: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Rows by where their layer, or the start of their section, lies in the network."""
    column = next((c for c in ("layer", "source") if c in table), None)
    if column is None or table.empty:
        return table
    places: dict[str, int] = {}
    for graph in plan["graphs"]:
        for place, layer in enumerate(graph["layers"]):
            places.setdefault(layer, place)
    at = table[column].str.partition("/")[0].map(places)
    return table.assign(place_=at).sort_values("place_", kind="stable").drop(columns="place_")


def leading(needed: pd.DataFrame) -> pd.DataFrame:
    """Of each single section the published search's row; where it was not made, the robust
    rule's."""
    if needed.empty:
        return needed
    of = ["graph", "source", "target"]
    alone = needed[~needed.groupby(of)["search"].transform(lambda found: "own" in set(found))]
    alone = alone.reset_index(drop=True)
    found = alone.sort_values("search", key=lambda s: s != "bisect", kind="stable")
    return found.drop_duplicates(of).sort_index()
