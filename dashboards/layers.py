"""Tables of interaction graphs in the order of the network's layers, and which search they go
by."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


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
    found = alone.sort_values("search", key=lambda s: s != "bisect", kind="stable")
    return found.drop_duplicates(of).sort_index()
