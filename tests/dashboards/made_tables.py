"""The tables of the run made by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tests.dashboards.made import (
    CELLS,
    COST,
    GRAPH,
    KNOWN,
    NODES,
    OF_NODES,
    SCORES,
    SIZES,
    N,
    fit,
    jaccard,
    key_of,
    quality,
    rank,
    spearman,
)

METRICS = ("kl", "logit_diff")


def _base(key: str) -> dict[str, Any]:
    cell = CELLS[key]
    kept = ("model", "task", "nodes", "method", "build_patch", "build_metric")
    return {"cell": key, **{c: cell[c] for c in kept}, "steps": cell["steps"] or 0}


def ranked_by(key: str) -> dict[str, str]:
    search = CELLS[key]["tau"] is not None
    return {"aggregation": "mean", "selection": "value" if search else "topk_abs"}


def results() -> Iterator[dict[str, Any]]:
    for key, cell in CELLS.items():
        sizes = (60 if cell["tau"] < 0.05 else 15,) if cell["tau"] is not None else SIZES
        for size in sizes:
            for ablation in ("edge", "node"):
                for metric in ("kl", "logit_diff"):
                    for blocks in ("all", "complement") if ablation == "edge" else ("all",):
                        yield _result(key, size, ablation, metric, blocks)


def _result(key: str, size: int, ablation: str, metric: str, blocks: str) -> dict[str, Any]:
    grown = 1 - np.exp(-size * quality(key) / 40)
    phi = grown if blocks == "all" else 1 - grown
    n_edges = size if blocks == "all" else N - size
    threshold = CELLS[key]["tau"] if CELLS[key]["tau"] is not None else float(size)
    return {
        **_base(key),
        **ranked_by(key),
        "circuit": f"{key}-{size}",
        "subset": "all",
        "split": "eval",
        "threshold": threshold,
        "n_selected": size,
        "ablation": ablation,
        "eval_patch": "counterfactual",
        "pruned": True,
        "blocks": blocks,
        "n_nodes": min(NODES + 1, 2 + n_edges // 4),
        "n_edges": n_edges,
        "n_edges_possible": N,
        "average_degree": n_edges / 9,
        "density": n_edges / N,
        "n_edges_among_found": N,
        "density_among_found": n_edges / N,
        "metric": metric,
        "value": 2.0 * phi,
        "value_full": 2.0,
        "value_empty": 0.0,
        "faithfulness": phi,
        "n_inputs": 8,
    }


def circuits() -> Iterator[dict[str, Any]]:
    for key in (key_of("eap"), key_of("exact"), key_of("acdc"), key_of("node_ap")):
        weights = SCORES[key]
        if CELLS[key]["method"] in OF_NODES:
            weights = weights[GRAPH.edge_source]
        order = np.argsort(-np.abs(np.nan_to_num(weights, posinf=0, neginf=0)))[:60]
        for edge in order.tolist():
            yield {
                "circuit": f"{key}-80",
                "cell": key,
                **ranked_by(key),
                "threshold": 80.0,
                **_edge(edge),
                "weight": float(weights[edge]),
                "ran": "counterfactual",
            }


def _edge(edge: int) -> dict[str, Any]:
    source, target = GRAPH.edge_name(edge).split("->")
    return {"edge": edge, "source": source, "target": target}


def measures() -> Iterator[dict[str, Any]]:
    empty = dict.fromkeys(("ablation", "eval_patch", "metric", "subset"), "")
    families: set[str] = set()
    for key, cell in CELLS.items():
        base = {**_base(key), "rule": cell["rule"], "n_inputs": 8}
        del base["nodes"]
        none = {"low": np.nan, "high": np.nan}
        alone = {**base, **empty, "aggregation": "", "selection": ""}
        yield {**alone, "measure": "cost_forwards", "value": COST[key], **none}
        if cell["candidates"] != "all":
            yield {**alone, "measure": "cost_forwards_all_edges", "value": N + 1, **none}
        family = f"{cell['method']}{cell['steps']}"
        if family in families:
            continue
        families.add(family)
        for ablation in ("edge", "node"):
            for metric in ("kl", "logit_diff"):
                where = {"ablation": ablation, "eval_patch": "counterfactual", "metric": metric}
                curve = {**base, **ranked_by(key), **where, "subset": "all"}
                for name, value in areas(key).items():
                    spread = 0.03 if name == "area_log" else np.nan
                    ends = {"low": value - spread, "high": value + 2 * spread}
                    yield {**curve, "measure": name, "value": value, **ends}
        of_ranking = {**base, **empty, **ranked_by(key), **none}
        for name in ("roc_auc", "average_precision", "youden_j"):
            yield {**of_ranking, "measure": name, "value": rank(key)[name]}
        if cell["tau"] is None:
            value = {"value": 0.9, "low": 0.85, "high": 0.95}
            yield {**of_ranking, "selection": "", "measure": "stability", **value}


def areas(key: str) -> dict[str, float]:
    area = quality(key) / 2
    return {
        "area_log": area,
        "share_log": 0.75,
        "cpr": area**0.5,
        "cmd": 1 - area**0.5,
        "edges_80": 64.0 / quality(key),
        "edges_95": 120.0 / quality(key) if area > 0.3 else np.nan,
    }


def roc() -> pd.DataFrame:
    parts = []
    for key, cell in CELLS.items():
        if cell["tau"] is not None and key != key_of(cell["method"]):
            continue
        found = rank(key)
        points = ("threshold", "fpr", "tpr", "precision")
        frame = pd.DataFrame({name: found[name] for name in points})
        if cell["tau"] is not None:
            frame = frame.iloc[[0, 5, 20, 60, -1]].reset_index(drop=True)
        base = _base(key)
        del base["nodes"]
        frame = frame.assign(**base, **ranked_by(key), known="IOI (Wang et al. 2022)")
        parts.append(frame.assign(point=np.arange(len(frame))))
    return pd.concat(parts)


OF_IOI = {"task": "ioi", "subset": "all", "seed": 0}


def overlap() -> Iterator[dict[str, Any]]:
    leads = [k for k, c in CELLS.items() if c["tau"] is None]
    for i, a in enumerate(leads):
        for b in leads:
            x, y = SCORES[a], SCORES[b]
            if a == b or len(x) != len(y):
                continue
            both = np.isfinite(x) & np.isfinite(y)
            names = {"cell_a": a, "cell_b": b, "n": int(both.sum())}
            of = {"method_a": CELLS[a]["method"], "method_b": CELLS[b]["method"]}
            ends = {f"{k}_{e}": v for k, v in OF_IOI.items() for e in "ab"}
            base = {"across": "method", "model": "toy-lm", "aggregation": "mean", **names, **of}
            base |= {**ends, "chance": 0.0}
            if CELLS[b]["method"] == "exact":
                slope, r2 = fit(x[both], y[both])
                yield {**base, "measure": "slope", "size": 0, "value": slope}
                yield {**base, "measure": "r2", "size": 0, "value": r2}
                signed = {"measure": "spearman_signed", "size": 0, "value": 0.31}
                yield {**base, **signed, "n": 31}
            if i < leads.index(b):
                yield {**base, "measure": "spearman", "size": 0, "value": spearman(a, b)}
                for size in SIZES[:3]:
                    value = jaccard(a, b, size)
                    yield {**base, "measure": "jaccard", "size": size, "value": value}


def minimality() -> Iterator[dict[str, Any]]:
    draw = np.random.default_rng(1)
    for metric in ("kl", "logit_diff"):
        for row in circuits():
            if row["cell"] == key_of("eap"):
                drop = draw.normal(0.05, 0.1)
                width = abs(draw.normal(0.05, 0.02))
                kept = {k: row[k] for k in ("circuit", "cell", "edge", "source", "target")}
                yield {
                    **kept,
                    "metric": metric,
                    "drop": drop,
                    "low": drop - width,
                    "high": drop + width,
                    "p": 0.01,
                    "q": 0.02,
                    "rate": 0.05,
                    "kind": "needed" if drop > width else "unclear",
                }


def interpolation() -> Iterator[dict[str, Any]]:
    for key in (key_of("eap"), key_of("ig_inputs")):
        finite = np.nan_to_num(SCORES[key], posinf=0, neginf=0)
        for edge in np.argsort(-np.abs(finite))[:10].tolist():
            for fraction in np.linspace(0, 1, 11):
                straight = -finite[edge] * fraction
                yield {
                    "cell": key,
                    "model": "toy-lm",
                    "task": "ioi",
                    **_edge(edge),
                    "metric": "logit_diff",
                    "fraction": fraction,
                    "change": float(straight * (2 - fraction)),
                    "estimate": float(straight),
                    "n_inputs": 8,
                }


def known() -> Iterator[dict[str, Any]]:
    for edge in KNOWN.tolist():
        about = {"model": "toy-lm", "task": "ioi", "known": "IOI (Wang et al. 2022)"}
        yield {**about, "level": "edge", **_edge(edge)}


def headlines() -> Iterator[dict[str, Any]]:
    """Of each ranking's edge and node ablation, its circuit of 80 edges."""
    about = ("model", "task", "method", "build_patch", "build_metric")
    for key in (k for k, c in CELLS.items() if c["tau"] is None):
        for row in (_result(key, 80, a, m, "all") for a in ("edge", "node") for m in METRICS):
            yield {
                **{c: row[c] for c in (*about, "cell", "circuit", "steps", "threshold")},
                **{c: row[c] for c in ("aggregation", "selection", "ablation", "eval_patch")},
                **{c: row[c] for c in ("n_selected", "n_nodes", "n_edges", "n_edges_possible")},
                "n_edges_among_found": row["n_edges_among_found"],
                "metric": row["metric"],
                "subset": "all",
                "level": 0.8,
                "reached": True,
                "chosen_on": "third",
                "n_choosing": 3,
                "n_inputs": 5,
                "faithfulness": row["faithfulness"],
                "low": row["faithfulness"] - 0.1,
                "high": row["faithfulness"] + 0.05,
            }


def equal_phi() -> Iterator[dict[str, Any]]:
    """Edge ablation needs a third of the edges, and as many nodes: of these it is open."""
    about = ("model", "task", "method", "build_patch", "build_metric")
    ratios = {"edges": (1 / 3, 0.25, 0.5), "nodes": (1.0, 0.8, 1.3)}
    for key in (k for k, c in CELLS.items() if c["tau"] is None and c["method"] not in OF_NODES):
        for metric in METRICS:
            for level in (0.5, 0.8, 0.95):
                for counted, (ratio, low, high) in ratios.items():
                    base = {c: CELLS[key][c] for c in about} | {"steps": CELLS[key]["steps"] or 0}
                    sizes = {"edge": 30.0 * level, "node": 30.0 * level / ratio}
                    yield {
                        "cell": key,
                        **base,
                        **ranked_by(key),
                        "eval_patch": "counterfactual",
                        "metric": metric,
                        "subset": "all",
                        "level": level,
                        "counted": counted,
                        **sizes,
                        **{f"{side}_low": size - 2 for side, size in sizes.items()},
                        **{f"{side}_high": np.inf for side in sizes},
                        **{f"{side}_smallest": 5 for side in sizes},
                        "ratio": ratio,
                        "ratio_low": low,
                        "ratio_high": high,
                        "n_inputs": 8,
                    }


TABLES = {
    "results": results,
    "circuits": circuits,
    "measures": measures,
    "roc": roc,
    "overlap": overlap,
    "minimality": minimality,
    "interpolation": interpolation,
    "known": known,
    "headlines": headlines,
    "equal_phi": equal_phi,
}
