"""Names of methods, metrics, cells and circuits as people read them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

#: method -> short name, long name
METHODS = {
    "eap": ("EAP", "edge attribution patching"),
    "ig_inputs": ("IG inputs", "integrated gradients along inputs"),
}
METRICS = {
    "logit_diff": "logit difference",
    "kl": "KL divergence",
    "kl_reverse": "KL divergence, reversed",
    "stat_dist": "statistical distance",
    "accuracy": "accuracy",
}
#: what may vary between cells beside the method and its steps
CELL_FIELDS = ("model", "task", "nodes", "build_patch", "build_metric")


def metric_name(metric: str) -> str:
    """A metric in words; its own name if it has none here."""
    return METRICS.get(metric, metric)


def method_name(method: str, steps: Any, *, long: bool = False) -> str:
    """A method with its integration steps: `IG inputs ×5`."""
    name = METHODS.get(method, (method, method))[long]
    if steps is None or pd.isna(steps) or int(steps) <= 1:
        return name
    return f"{name} in {int(steps)} steps" if long else f"{name} ×{int(steps)}"


def share(part: float) -> str:
    """A share in percent with two digits that matter: 0.012 is 1.2%, 1 is 100%."""
    percent = 100 * part
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def varying(rows: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Columns that hold more than one value."""
    return [c for c in columns if c in rows and rows[c].astype(str).nunique() > 1]


def cell_names(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Cell key -> its method and whatever else tells it from the run's other cells."""
    table = pd.DataFrame([dict(cell) for cell in cells])
    told = varying(table, CELL_FIELDS)
    return {
        str(cell["key"]): " · ".join(
            [method_name(cell["method"], cell.get("steps")), *(str(cell[c]) for c in told)]
        )
        for cell in cells
    }


def circuit_names(circuits: pd.DataFrame, cells: Mapping[str, str]) -> dict[str, str]:
    """Circuit key -> its cell, how it was selected where that varies, and its threshold.

    Args:
        circuits: columns circuit, cell, aggregation, selection, threshold; a row a circuit or more.
        cells: names of the cells.
    """
    rows = circuits.drop_duplicates("circuit")
    told = varying(rows, ("aggregation", "selection"))
    found = {}
    for row in rows.to_dict("records"):
        parts = [cells.get(row["cell"], row["cell"]), *(str(row[c]) for c in told)]
        found[str(row["circuit"])] = " · ".join([*parts, _size(row["selection"], row["threshold"])])
    return found


def _size(selection: str, threshold: float) -> str:
    if selection.startswith("topk"):
        return f"top {int(threshold):,}"
    return f"{'|score|' if selection == 'abs' else 'score'} > {threshold:.3g}"
