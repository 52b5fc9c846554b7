"""Cells of a run made by hand: their scores are drawn, and what is said of them is worked out by
the shortest way, so that what a page says can be checked."""

from typing import Any

import numpy as np
import pandas as pd

from edgesweep.engine.graph import EdgeGraph, Graph, GraphSpec
from edgesweep.storage.graphs import GraphTables

GRAPH = EdgeGraph(GraphSpec(n_layers=4, n_heads=4, n_kv_heads=2))
N, NODES = GRAPH.n_edges, len(GRAPH.sources)
SIZES = (5, 20, 80, 200, N)
CANDIDATES = "150 of eap + 50 random"
#: method, steps, rule, tau, seed, candidates, noise of its scores, cost
SPECS = (
    ("eap", None, "", None, None, "all", 0.9, 3),
    ("eap_patch", None, "", None, None, "all", 1.2, 3),
    ("eap_both", None, "", None, None, "all", 0.8, 4),
    ("ig_inputs", 5, "midpoint", None, None, "all", 0.5, 11),
    ("ig_inputs", 20, "right", None, None, "all", 0.45, 41),
    ("ig_activations", 5, "midpoint", None, None, "all", 0.3, 90),
    ("ig_activations_joint", 5, "midpoint", None, None, "all", 0.4, 12),
    ("exact", None, "", None, None, CANDIDATES, 0.0, 201),
    ("acdc", None, "", 0.01, None, "all", 0.6, 900),
    ("acdc", None, "", 0.1, None, "all", 0.6, 900),
    ("eap_acdc", None, "", 0.05, None, CANDIDATES, 0.7, 200),
    ("node_ap", None, "", None, None, "all", 0.9, 3),
    ("node_ig", 5, "midpoint", None, None, "all", 0.5, 11),
    ("node_exact", None, "", None, None, "all", 0.0, 22),
    ("hisp", None, "", None, None, "all", 1.5, 3),
    ("random", None, "", None, 1, "all", 9.0, 0),
)
OF_NODES = ("node_ap", "node_ig", "node_exact", "hisp")
COMMON = {
    "dataset": "ioi-0",
    "features": "",
    "model": "toy-lm",
    "task": "ioi",
    "nodes": "heads",
    "build_patch": "counterfactual",
    "build_metric": "logit_diff",
}


def cells() -> list[dict[str, Any]]:
    names = ("method", "steps", "rule", "tau", "seed", "candidates")
    return [
        {
            "key": f"{spec[0]}-{i:02d}",
            **COMMON,
            **dict(zip(names, spec, strict=False)),
            "scores": "nodes" if spec[0] in OF_NODES else "edges",
        }
        for i, spec in enumerate(SPECS)
    ]


CELLS = {cell["key"]: cell for cell in cells()}
NOISE = {key: spec[6] for key, spec in zip(CELLS, SPECS, strict=True)}
COST = {key: spec[7] for key, spec in zip(CELLS, SPECS, strict=True)}
KNOWN = np.arange(0, N, 17)


def tables_of(graph: Graph) -> GraphTables:
    """A graph as a page reads it."""
    about = (pd.DataFrame(vars(t)) for t in (graph.node_table, graph.target_table))
    names = graph.sources, graph.targets, graph.nodes
    return GraphTables(*names, graph.edge_source, graph.edge_target, graph.ends.pairs, *about)


def key_of(method: str, **fields: Any) -> str:
    """The first cell of a method with those fields."""
    wanted = {"method": method, **fields}
    return next(k for k, c in CELLS.items() if all(c[f] == v for f, v in wanted.items()))


def scores() -> dict[str, np.ndarray]:
    """Scores of each cell: what patching gives, with noise; NaN where it did not look."""
    draw = np.random.default_rng(0)
    size = np.where(np.isin(np.arange(N), KNOWN), 0.3, 0.01)
    truth = draw.standard_t(3, N) * size
    of_nodes = np.array([truth[GRAPH.edge_source == i].sum() for i in range(NODES)])
    looked_at = np.isin(np.arange(N), draw.permutation(N)[:200])
    found = {}
    for key, cell in CELLS.items():
        exact = of_nodes if cell["method"] in OF_NODES else truth
        if cell["method"] == "random":
            found[key] = draw.random(len(exact))
            continue
        noise = draw.normal(size=len(exact)) * NOISE[key] * (0.01 + np.abs(exact))
        found[key] = exact * (1 + 0.3 * NOISE[key]) + noise
        if cell["candidates"] != "all":
            found[key] = np.where(looked_at, found[key], np.nan)
        if cell["tau"] is not None:
            found[key] = np.where(np.abs(found[key]) > cell["tau"], np.abs(found[key]), np.nan)
    found[key_of("eap")][:3] = (0.0, np.inf, -np.inf)
    return found


SCORES = scores()


def quality(key: str) -> float:
    return 1 / (0.6 + NOISE[key])


# --- what rankings come to ---------------------------------------------------------------------


def truth(key: str) -> np.ndarray:
    if CELLS[key]["method"] in OF_NODES:
        return np.isin(np.arange(NODES), GRAPH.edge_source[KNOWN])
    return np.isin(np.arange(N), KNOWN)


def rank(key: str) -> dict[str, Any]:
    """The curve of a ranking by |score|, and what it comes to."""
    sizes = sizes_of(key)
    order = np.argsort(-sizes, kind="stable")
    true = truth(key)[order]
    tpr = np.concatenate([[0], np.cumsum(true) / true.sum()])
    fpr = np.concatenate([[0], np.cumsum(~true) / (~true).sum()])
    precision = np.concatenate([[1], np.cumsum(true) / np.arange(1, len(true) + 1)])
    return {
        "threshold": np.concatenate([[np.inf], sizes[order]]),
        "tpr": tpr,
        "fpr": fpr,
        "precision": precision,
        "roc_auc": float(np.trapezoid(tpr, fpr)),
        "average_precision": float(np.sum(np.diff(tpr) * precision[1:])),
        "youden_j": float(np.max(tpr - fpr)),
    }


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and R² of the line of y on x."""
    slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    return float(slope), float(np.corrcoef(x, y)[0, 1] ** 2)


def spearman(a: str, b: str) -> float:
    pair = pd.DataFrame({"a": np.abs(SCORES[a]), "b": np.abs(SCORES[b])})
    pair = pair[np.isfinite(pair).all(axis=1)].rank()
    return float(np.corrcoef(pair["a"], pair["b"])[0, 1])


def jaccard(a: str, b: str, size: int) -> float:
    first, second = (set(np.argsort(-sizes_of(k), kind="stable")[:size].tolist()) for k in (a, b))
    return len(first & second) / len(first | second)


def sizes_of(key: str) -> np.ndarray:
    return np.nan_to_num(np.abs(SCORES[key]), nan=-1.0, posinf=-1.0)
