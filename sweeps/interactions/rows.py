"""Rows of the tables of interaction graphs, from what is committed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from edgesweep.engine.bases.ablation import SCORES
from edgesweep.engine.bases.search import is_enough, smallest_robust
from edgesweep.engine.measures import resamples
from edgesweep.storage.blocks import read_file
from edgesweep.storage.tables import (
    DIRECTIONS,
    EDGES_NEEDED,
    INTERACTIONS,
    LABELS,
    SECTION_CURVES,
    SPECTRA,
    Table,
)
from edgesweep.sweeps.interactions import files, shards
from edgesweep.sweeps.interactions.shards import (
    DirectionShard,
    FoldShard,
    NeededShard,
    RotationShard,
)
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.interactions.graphs import BasisOf, Graph
    from edgesweep.sweeps.view import View

#: of a section, the strongest interactions that are rows; all are in its file
MOST_ROWS = 2000


def interaction_tables(view: View) -> Mapping[Table, pd.DataFrame]:
    """Every table of interaction graphs, if the run has any."""
    if not view.plan.graphs:
        return {}
    rows = {
        EDGES_NEEDED: _needed(view),
        SECTION_CURVES: _curves(view),
        DIRECTIONS: _directions(view),
        SPECTRA: _spectra(view),
        INTERACTIONS: _interactions(view),
        LABELS: _labels(view),
    }
    return {table: pd.DataFrame(list(of)) for table, of in rows.items()}


def _done(view: View, stage: str) -> Iterator[tuple[object, files.Tensors]]:
    for shard in view.plan.stages[stage]:
        if shard.key in view.done[stage]:
            yield shard, files.read_tensors(view.run, view.log, stage, shard.key)


def _of_graph(graph: Graph) -> Row:
    of = graph.of
    told = {"graph": graph.key, "model": of.model, "task": of.task, "basis": graph.basis.kind}
    return told | {"steps": graph.steps, "rule": graph.rule}


def _of_basis(basis: BasisOf) -> Row:
    return {"model": basis.of.model, "task": basis.of.task, "basis": basis.kind}


def _of_section(shard: NeededShard) -> Row:
    return {**_of_graph(shard.graph), "source": shard.start, "target": shard.end}


def _needed(view: View) -> Iterator[Row]:
    """By the published search and by the robust rule, the latter with an interval over inputs."""
    wanted = view.plan.config.edges_needed
    for shard, found in _done(view, shards.NEEDED):
        assert isinstance(shard, NeededShard)
        record = view.log.record(shards.NEEDED, shard.key)
        sizes, base = found["sizes"].tolist(), float(found["base"].mean())
        fixed = {
            **_of_section(shard),
            "metric": wanted.metric,
            "within": wanted.within,
            "possible": record["possible"],
            "base": base,
            "n_inputs": len(found["base"]),
        }
        needed = dict(zip(sizes, found["edges"].tolist(), strict=True))[record["needed"]]
        yield {**fixed, "search": "bisect", "edges": record["needed"], "kept": needed} | _nothing()
        yield {**fixed, "search": "robust", **_robust(view, found)}


def _nothing() -> Row:
    return {"low": float("nan"), "high": float("nan")}


def _robust(view: View, found: files.Tensors) -> Row:
    """The smallest number from which on all pass, and its interval over resamples of the inputs."""
    config = view.plan.config
    wanted, measures = config.edges_needed, config.measures
    sizes, kept = found["sizes"].tolist(), found["edges"].tolist()
    _, more = SCORES[wanted.metric]

    def smallest(means: np.ndarray, base: float) -> int:
        passed = is_enough(means, base, wanted.within, more)
        return smallest_robust(dict(zip(sizes, passed, strict=True))) or sizes[-1]

    scores, base = found["scores"].numpy(), found["base"].numpy()
    edges = smallest(scores.mean(1), base.mean())
    told = {"edges": edges, "kept": dict(zip(sizes, kept, strict=True))[edges], **_nothing()}
    if not measures.bootstrap:
        return told
    groups = np.zeros(len(base), dtype=np.int64)
    weights = resamples(len(base), measures.bootstrap, config.seed, groups)
    drawn = [smallest(scores @ w, base @ w) for w in weights]
    side = (1 - measures.level) / 2
    low, high = np.quantile(drawn, [side, 1 - side], method="inverted_cdf")
    return told | {"low": float(low), "high": float(high)}


def _curves(view: View) -> Iterator[Row]:
    for shard, found in _done(view, shards.NEEDED):
        assert isinstance(shard, NeededShard)
        asked = {k: place for place, k in enumerate(found["asked"].tolist(), 1)}
        columns = found["sizes"].tolist(), found["edges"].tolist(), found["scores"].mean(1).tolist()
        for k, kept, score in zip(*columns, strict=True):
            step = asked.get(k, 0)
            yield {**_of_section(shard), "edges": k, "kept": kept, "score": score, "step": step}


def _directions(view: View) -> Iterator[Row]:
    for shard, found in _done(view, shards.DIRECTIONS):
        assert isinstance(shard, DirectionShard)
        for k, score in zip(found["sizes"].tolist(), found["scores"].tolist(), strict=True):
            yield {**_of_basis(shard.basis), "layer": shard.layer, "directions": k, "score": score}


def _spectra(view: View) -> Iterator[Row]:
    for shard, found in _done(view, shards.ROTATIONS):
        assert isinstance(shard, RotationShard)
        kept = len(found["importance"])
        for name in ("variances", "spectrum"):
            for place, value in enumerate(found[name].tolist()):
                fixed = {**_of_basis(shard.basis), "layer": shard.layer, "of": name}
                yield {**fixed, "place": place, "value": value, "kept": place < kept}


def _labels(view: View) -> Iterator[Row]:
    for shard in view.plan.stages[shards.LABELS]:
        if shard.key not in view.done[shards.LABELS]:
            continue
        write = view.log.record(shards.LABELS, shard.key)["writes"][0]
        fixed = {**_of_basis(shard.basis), "layer": shard.layer}
        for direction, terms in enumerate(json.loads(read_file(view.run, write))):
            about = {**fixed, "node": f"{shard.layer}/d{direction}", "direction": direction}
            for rank, (term, share) in enumerate(terms):
                yield {**about, "rank": rank, "term": term, "share": share}


def _interactions(view: View) -> Iterator[Row]:
    for shard in view.plan.stages[shards.FOLD]:
        if shard.key not in view.done[shards.FOLD]:
            continue
        assert isinstance(shard, FoldShard)
        found = files.read_interactions(view.run, view.log, shard.graph, shard.start)
        square, error = found.mean_square[:, 1:].numpy(), found.standard_error[:, 1:].numpy()
        end = dict(shard.graph.of.sections)[shard.start]
        fixed = {**_of_graph(shard.graph), "residual": float(found.residual)}
        for place in np.argsort(-square, axis=None, kind="stable")[:MOST_ROWS]:
            i, j = np.unravel_index(place, square.shape)
            yield {
                **fixed,
                "source": f"{shard.start}/d{j}",
                "target": f"{end}/d{i}",
                "mean_square": float(square[i, j]),
                "standard_error": float(error[i, j]),
            }
