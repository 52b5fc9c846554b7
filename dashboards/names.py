"""Names of methods, metrics, cells and circuits as people read them."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from edgesweep.dashboards.kinds import Kind
from edgesweep.engine.graph import BY_SIZE

#: an entry of `cells` in plan.json
Cell = Mapping[str, Any]

#: method -> short name, long name
METHODS = {
    "eap": ("EAP", "edge attribution patching"),
    "eap_patch": ("EAP at patch", "edge attribution patching with gradients of the patched run"),
    "eap_both": ("EAP at both ends", "edge attribution patching with gradients of both runs"),
    "relp": ("RelP", "relevance patching"),
    "relp_qk": ("RelP with patterns", "relevance patching with attention patterns differentiated"),
    "ig_inputs": ("IG inputs", "integrated gradients along inputs"),
    "ig_activations": ("IG activations", "integrated gradients along activations"),
    "ig_activations_joint": (
        "IG activations, joint",
        "integrated gradients along all activations at once",
    ),
    "exact": ("exact patching", "exact patching of one edge at a time"),
    "acdc": ("ACDC", "automatic circuit discovery (ACDC)"),
    "eap_acdc": ("EAP then ACDC", "automatic circuit discovery among the edges EAP ranks first"),
    "node_ap": ("node AP", "attribution patching of nodes"),
    "node_ig": ("node IG", "integrated gradients of nodes"),
    "node_exact": ("exact node patching", "exact patching of one node at a time"),
    "hisp": ("HISP", "head importance scores for pruning"),
    "random": ("random", "a random order"),
}
#: methods that patch one edge or node at a time, which the others estimate
PATCHING = ("exact", "node_exact")
METRICS = {
    "logit_diff": "logit difference",
    "prob_diff": "probability difference",
    "kl": "KL divergence",
    "kl_reverse": "KL divergence, reversed",
    "js": "Jensen–Shannon divergence",
    "stat_dist": "statistical distance",
    "nll": "negative log-likelihood",
    "accuracy": "accuracy",
}
RULES = {
    "right": "right Riemann rule",
    "left": "left Riemann rule",
    "midpoint": "midpoint rule",
    "trapezoid": "trapezoid rule",
    "gauss_legendre": "Gauss–Legendre rule",
}
#: what may vary between cells beside the method and its steps
CELL_FIELDS = ("model", "task", "nodes", "build_patch", "build_metric")
#: what may vary between cells of one method beside its steps, all of which make lines of their own
METHOD_FIELDS = ("rule", "candidates", "seed")


def metric_name(metric: str) -> str:
    """A metric in words; its own name if it has none here."""
    return METRICS.get(metric, metric)


def method_name(
    method: str,
    steps: Any,
    own: Mapping[str, Sequence[str]] | None = None,
    *,
    long: bool = False,
) -> str:
    """A method with its integration steps: `IG inputs ×5`, `node IG ×5 (Marks et al.)`.

    Args:
        own: short and long names that methods have for the kind of nodes.
    """
    name = (own or {}).get(method, METHODS.get(method, (method, method)))[long]
    how = ""
    if not (steps is None or pd.isna(steps) or int(steps) <= 1):
        how = f" in {int(steps)} steps" if long else f" ×{int(steps)}"
    return name.replace("{}", how) if "{}" in name else name + how


def share(part: float) -> str:
    """A share in percent with two digits that matter: 0.012 is 1.2%, 1 is 100%."""
    percent = 100 * part
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def decimal(value: float) -> str:
    """Two decimals, never `-0.00`."""
    return f"{round(value, 2) + 0.0:.2f}"


def varying(rows: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Columns that hold more than one value; "" is none."""
    return [c for c in columns if c in rows and rows[c].astype(str).replace("", None).nunique() > 1]


def is_search(cell: Cell) -> bool:
    """Whether a cell finds one circuit at its own τ: a line of such circuits has a cell a point."""
    return cell.get("tau") is not None


def method_names(cells: Sequence[Cell], kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Cell key -> its method as lines are named: with its steps, and whatever else tells it from
    other cells of its method. All τ of a search make one line, which has one name."""
    return _names(cells, kinds, METHOD_FIELDS, ())


def cell_names(cells: Sequence[Cell], kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Cell key -> its method and whatever else tells it from the run's other cells."""
    return _names(cells, kinds, (*METHOD_FIELDS, "order", "tau"), CELL_FIELDS)


def _names(
    cells: Sequence[Cell], kinds: Mapping[str, Kind], own: Iterable[str], common: Iterable[str]
) -> dict[str, str]:
    table = pd.DataFrame([dict(cell) for cell in cells])
    told = varying(table, common)
    of_method = {m: varying(rows, own) for m, rows in table.groupby("method")} if len(table) else {}
    return {
        str(cell["key"]): " · ".join(
            [
                method_name(cell["method"], cell.get("steps"), kinds[cell["nodes"]].methods),
                *filter(None, [str(cell.get("given", ""))]),  # which circuit was given
                *(_in_words(c, cell[c]) for c in of_method[cell["method"]]),
                *(str(cell[c]) for c in told),
            ]
        )
        for cell in cells
    }


def _in_words(field: str, value: Any) -> str:
    if field == "candidates":
        return str(value).replace(" eap", " EAP")
    if field == "rule":
        return RULES.get(str(value), str(value))
    return f"{field} {value:.0f}" if field in ("seed", "order") else f"τ {value:g}"


def circuit_names(
    circuits: pd.DataFrame, cells: Mapping[str, str], of_nodes: Container[str] = ()
) -> dict[str, str]:
    """Circuit key -> its cell, how it was selected where that varies, and its threshold.

    Args:
        circuits: columns circuit, cell, aggregation, selection, threshold; a row a circuit or more.
        cells: names of the cells.
        of_nodes: the cells that score nodes, whose thresholds count nodes.
    """
    rows = circuits.drop_duplicates("circuit")
    told = varying(rows, ("aggregation", "selection"))
    found = {}
    for row in rows.to_dict("records"):
        size = _size(row["selection"], row["threshold"])
        size += " nodes" if size.startswith("top") and row["cell"] in of_nodes else ""
        parts = [cells.get(row["cell"], row["cell"]), *(str(row[c]) for c in told), size]
        found[str(row["circuit"])] = " · ".join(filter(None, parts))
    return found


def _size(selection: str, threshold: float) -> str:
    if selection in BY_SIZE:
        return f"top {int(threshold):,}"
    if not selection:  # of a search, whose τ is the cell's
        return ""
    return f"{'|score|' if selection == 'abs' else 'score'} > {threshold:.3g}"
