"""A run directory made by hand, with every table that a report can show: scores are drawn, and the
tables are worked out of them by the shortest way, so that what the page says can be checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.engine.graph import EdgeGraph, GraphSpec
from edgesweep.storage import CommitLog, RunDirectory, tables
from edgesweep.storage.arrays import create_array, make_store, write_static
from edgesweep.storage.blocks import write_block
from edgesweep.storage.layout import AGGREGATES
from edgesweep.storage.manifest import entry, write_manifest

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
    "model": "toy-lm",
    "task": "ioi",
    "nodes": "heads",
    "build_patch": "counterfactual",
    "build_metric": "logit_diff",
}


def cells() -> list[dict[str, Any]]:
    names = ("method", "steps", "rule", "tau", "seed", "candidates")
    return [
        {"key": f"{spec[0]}-{i:02d}", **COMMON, **dict(zip(names, spec, strict=False))}
        for i, spec in enumerate(SPECS)
    ]


CELLS = {cell["key"]: cell for cell in cells()}
NOISE = {key: spec[6] for key, spec in zip(CELLS, SPECS, strict=True)}
COST = {key: spec[7] for key, spec in zip(CELLS, SPECS, strict=True)}
KNOWN = np.arange(0, N, 17)


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


# --- tables ------------------------------------------------------------------------------------


def _base(key: str) -> dict[str, Any]:
    cell = CELLS[key]
    kept = ("model", "task", "nodes", "method", "build_patch", "build_metric")
    return {"cell": key, **{c: cell[c] for c in kept}, "steps": cell["steps"] or 0}


def _quality(key: str) -> float:
    return 1 / (0.6 + NOISE[key])


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
    grown = 1 - np.exp(-size * _quality(key) / 40)
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
        "ablation": ablation,
        "eval_patch": "counterfactual",
        "pruned": True,
        "blocks": blocks,
        "n_nodes": min(NODES + 1, 2 + n_edges // 4),
        "n_edges": n_edges,
        "n_edges_possible": N,
        "average_degree": n_edges / 9,
        "density": n_edges / N,
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
                for name, value in _areas(key).items():
                    spread = 0.03 if name == "area_log" else np.nan
                    ends = {"low": value - spread, "high": value + 2 * spread}
                    yield {**curve, "measure": name, "value": value, **ends}
        of_ranking = {**base, **empty, **ranked_by(key), **none}
        for name in ("roc_auc", "average_precision", "youden_j"):
            yield {**of_ranking, "measure": name, "value": rank(key)[name]}
        if cell["tau"] is None:
            value = {"value": 0.9, "low": 0.85, "high": 0.95}
            yield {**of_ranking, "selection": "", "measure": "stability", **value}


def _areas(key: str) -> dict[str, float]:
    area = _quality(key) / 2
    return {
        "area_log": area,
        "cpr": area**0.5,
        "cmd": 1 - area**0.5,
        "edges_80": 64.0 / _quality(key),
        "edges_95": 120.0 / _quality(key) if area > 0.3 else np.nan,
    }


def truth(key: str) -> np.ndarray:
    if CELLS[key]["method"] in OF_NODES:
        return np.isin(np.arange(NODES), GRAPH.edge_source[KNOWN])
    return np.isin(np.arange(N), KNOWN)


def rank(key: str) -> dict[str, Any]:
    """The curve of a ranking by |score|, and what it comes to."""
    sizes = _sizes(key)
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
            if i < leads.index(b):
                yield {**base, "measure": "spearman", "size": 0, "value": spearman(a, b)}
                for size in SIZES[:3]:
                    value = jaccard(a, b, size)
                    yield {**base, "measure": "jaccard", "size": size, "value": value}


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and R² of the line of y on x."""
    slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    return float(slope), float(np.corrcoef(x, y)[0, 1] ** 2)


def spearman(a: str, b: str) -> float:
    pair = pd.DataFrame({"a": np.abs(SCORES[a]), "b": np.abs(SCORES[b])})
    pair = pair[np.isfinite(pair).all(axis=1)].rank()
    return float(np.corrcoef(pair["a"], pair["b"])[0, 1])


def jaccard(a: str, b: str, size: int) -> float:
    first, second = (set(np.argsort(-_sizes(k), kind="stable")[:size].tolist()) for k in (a, b))
    return len(first & second) / len(first | second)


def _sizes(key: str) -> np.ndarray:
    return np.nan_to_num(np.abs(SCORES[key]), nan=-1.0, posinf=-1.0)


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


# --- the run directory -------------------------------------------------------------------------

TABLES = {
    "results": results,
    "circuits": circuits,
    "measures": measures,
    "roc": roc,
    "overlap": overlap,
    "minimality": minimality,
    "interpolation": interpolation,
    "known": known,
}
RECEIPT = {"attempt": 1, "crc": 0, "rows": 1, "micro_batch": 4, "device": "cpu", "seconds": 0.1}
CONFIG: dict[str, Any] = {
    "name": "made",
    "seed": 0,
    "sweep": {"model": ["toy-lm"], "task": ["ioi"]},
    "evaluate": {
        "aggregation": ["mean"],
        "selection": ["topk_abs"],
        "eval_patch": ["counterfactual"],
    },
    "data": {"n_eval": 8},
    "blocks": {"fit": "none"},
    "measures": {"level": 0.95},
    "execution": {"micro_batch": 4},
}


def make_run(path: Path, *, without: tuple[str, ...] = (), unreduced: str = "") -> RunDirectory:
    """The run, with all of TABLES but those left out, and with a cell that is not reduced yet."""
    plan = {
        "run_id": "made-0123456789ab",
        "identity": {"models": {"toy-lm": "aa"}},
        "stages": {},
        "versions": {"edgesweep": "0"},
        "cells": list(CELLS.values()),
    }
    run = RunDirectory.create(path, CONFIG, plan)
    for name, rows in TABLES.items():
        if name not in without:
            found = rows()
            frame = found if isinstance(found, pd.DataFrame) else pd.DataFrame(list(found))
            table = getattr(tables, name.upper())
            (path / table.file).write_bytes(tables.to_parquet(table, frame))
    _write_arrays(run, unreduced)
    files = sorted(path.glob("*.parquet"))
    write_manifest(run, {file.name: entry(file.read_bytes()) for file in files})
    return run


def _write_arrays(run: RunDirectory, unreduced: str) -> None:
    log = CommitLog(run)
    log.claim_epoch()
    for store in (run.attributions, run.aggregates):
        make_store(store)
    for key, values in SCORES.items():
        create_array(run.aggregates, f"{key}/mean", values.shape, values.shape, "float64")
        if key != unreduced:
            write = write_block(run, AGGREGATES, f"{key}/mean", 0, values)
            log.commit("reduce", f"{key}.all", {**RECEIPT, "writes": [write]})
        for name, table, names in (
            ("edge_source", GRAPH.edge_source, {"names": list(GRAPH.sources)}),
            ("edge_target", GRAPH.edge_target, {"names": list(GRAPH.targets)}),
            (
                "ends",
                GRAPH.ends.pairs,
                {"nodes": list(GRAPH.nodes)},
            ),
        ):
            write_static(run.attributions, f"{key}/graph/{name}", table, names)
