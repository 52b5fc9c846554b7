"""Rows on how many interactions are needed: by both rules, with intervals, and one basis against
another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine.bases.needed import Curve, Scores
from edgesweep.storage.tables import EDGES_NEEDED, NEEDED_PAIRS, SECTION_CURVES, Table
from edgesweep.sweeps.interactions import files, shards
from edgesweep.sweeps.interactions.graphs import Graph
from edgesweep.sweeps.interactions.rules import bound, drawn
from edgesweep.sweeps.interactions.shards import Shard
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.view import View


def needed_tables(view: View) -> dict[Table, pd.DataFrame]:
    """What is needed, if the run has interaction graphs."""
    if not view.plan.graphs:
        return {}
    rows = {EDGES_NEEDED: _needed, NEEDED_PAIRS: _pairs, SECTION_CURVES: _curves}
    return {table: pd.DataFrame(list(of(view))) for table, of in rows.items()}


@dataclass(frozen=True)
class Search:
    """What one search found.

    Attributes:
        record: of its commit. found: its file.
    """

    shard: Shard[Graph]
    record: dict[str, Any]
    found: files.Tensors
    config: Config

    @property
    def ends(self) -> tuple[str, str]:
        """The layers of its section; of all sections the first and the last."""
        layers, at = self.shard.layers, self.shard.at
        return (at, layers.following(at)) if at else (layers.layers[0], layers.layers[-1])

    @cached_property
    def kept(self) -> dict[int, int]:
        """Edges that were kept, by the number that was asked for."""
        return dict(zip(self.found["sizes"].tolist(), self.found["edges"].tolist(), strict=True))

    @cached_property
    def curve(self) -> Curve:
        """What was measured, and no more."""

        def unknown(size: int) -> Scores:
            raise KeyError(size)

        scores = dict(zip(self.found["sizes"].tolist(), self.found["scores"].numpy(), strict=True))
        top = int(self.record["possible"]) + 1
        return Curve(unknown, self.found["base"].numpy(), bound(self.config), top, scores)

    @cached_property
    def draws(self) -> np.ndarray:
        """The robust number of each resample of the inputs; none where none are drawn."""
        if not self.config.measures.bootstrap:
            return np.zeros(0, dtype=np.int64)
        return self.curve.robust(drawn(self.config, len(self.curve.base)))

    def row(self, edges: int) -> Row:
        """A number of edges, and what is known of it."""
        score = float(self.curve.scores[edges].mean())
        return {"edges": edges, "kept": self.kept[edges], "score": score}


def _searches(view: View) -> Iterator[Search]:
    """Those that are committed, but of networks that only guess."""
    for shard in view.plan.stages[shards.NEEDED]:
        if shard.key not in view.done[shards.NEEDED]:
            continue
        record = view.log.record(shards.NEEDED, shard.key)
        if "guesses" not in record:
            found = files.read_tensors(view.run, view.log, shards.NEEDED, shard.key)
            yield Search(shard, record, found, view.plan.config)


def _needed(view: View) -> Iterator[Row]:
    """By the published search and by the robust rule; of all sections at once by the latter, and
    what they score if each keeps what it needs by itself."""
    wanted = view.plan.config.edges_needed
    own: dict[str, int] = {}
    for search in _searches(view):
        source, target = search.ends
        about = {
            **search.shard.of.columns,
            "source": source,
            "target": target,
            "metric": wanted.metric,
            "within": wanted.within,
            "possible": search.record["possible"],
            "base": float(search.curve.base.mean()),
            "n_inputs": len(search.curve.base),
        }
        key, robust = search.shard.of.key, int(search.curve.robust()[0])
        nothing = _interval(np.zeros(0), view.plan.config)
        if search.shard.at:
            own[key] = own.get(key, 0) + robust
            if "needed" in search.record:
                bisected = search.row(search.record["needed"])
                yield {**about, "search": "bisect", **bisected, **nothing}
        else:
            yield {**about, "search": "own", **search.row(own[key]), **nothing}
        told = search.row(robust) | _interval(search.draws, view.plan.config)
        yield {**about, "search": "robust", **told}


def _pairs(view: View) -> Iterator[Row]:
    """Of every two bases of one network, on the same resamples of the inputs."""
    if not view.plan.config.measures.bootstrap:
        return
    alike: dict[tuple[object, ...], list[Search]] = {}
    for search in _searches(view):
        graph = search.shard.of
        alike.setdefault((graph.of, graph.steps, graph.rule, search.ends), []).append(search)
    for same in alike.values():
        for a, b in combinations(same, 2):
            graph, (source, target) = a.shard.of, a.ends
            apart = a.draws - b.draws
            found = [int(search.curve.robust()[0]) for search in (a, b)]
            yield {
                **{c: graph.columns[c] for c in ("model", "task", "steps", "rule")},
                "source": source,
                "target": target,
                "basis_a": graph.kind,
                "basis_b": b.shard.of.kind,
                "edges_a": found[0],
                "edges_b": found[1],
                "difference": found[0] - found[1],
                **_interval(apart, view.plan.config),
                "fewer": float((apart < 0).mean()),
                "more": float((apart > 0).mean()),
                "n_inputs": len(a.curve.base),
            }


def _curves(view: View) -> Iterator[Row]:
    """Every number of edges that was tried."""
    for search in _searches(view):
        source, target = search.ends
        about = {**search.shard.of.columns, "source": source, "target": target}
        asked = {k: place for place, k in enumerate(search.found["asked"].tolist(), 1)}
        negative = search.found["negative"].tolist()
        for edges, below in zip(search.kept, negative, strict=True):
            row = {**about, **search.row(edges), "step": asked.get(edges, 0)}
            yield {**row, "negative": below}


def _interval(draws: np.ndarray, config: Config) -> Row:
    if not len(draws):
        return {"low": float("nan"), "high": float("nan")}
    side = (1 - config.measures.level) / 2
    low, high = np.quantile(draws, [side, 1 - side], method="inverted_cdf")
    return {"low": float(low), "high": float(high)}
