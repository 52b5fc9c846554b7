"""Rows of the tables of bases and interactions, from what is committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.storage.blocks import read_file
from edgesweep.storage.tables import (
    DIRECTIONS,
    INTERACTIONS,
    LABELS,
    SPECTRA,
    Table,
)
from edgesweep.sweeps.interactions import files, shards
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.interactions.graphs import BasisOf
    from edgesweep.sweeps.interactions.shards import Shard
    from edgesweep.sweeps.view import View

#: of a section, the strongest interactions that are rows; all are in its file
MOST_ROWS = 2000


def interaction_tables(view: View) -> dict[Table, pd.DataFrame]:
    """Tables of bases and interactions, if the run has any."""
    if not view.plan.graphs:
        return {}
    rows = {
        DIRECTIONS: _directions(view),
        SPECTRA: _spectra(view),
        INTERACTIONS: _interactions(view),
        LABELS: _labels(view),
    }
    return {table: pd.DataFrame(list(of)) for table, of in rows.items()}


def _done(view: View, stage: str) -> Iterator[tuple[Any, files.Tensors]]:
    for shard in view.plan.stages[stage]:
        if shard.key in view.done[stage]:
            yield shard, files.read_tensors(view.run, view.log, stage, shard.key)


def _of_basis(basis: BasisOf) -> Row:
    return {"model": basis.of.model, "task": basis.of.task, "basis": basis.kind}


def _of_layer(shard: Shard[BasisOf]) -> Row:
    of = shard.layers
    alias = of.aliases[of.layers.index(shard.at)]
    return {**_of_basis(shard.of), "layer": shard.at, "alias": alias}


def _nodes(view: View, basis: BasisOf, layer: str) -> list[str]:
    """Names of a layer's directions."""
    return [f"{layer}/{n}" for n in files.read_basis(view.run, view.log, basis, layer).names()]


def _directions(view: View) -> Iterator[Row]:
    for shard, found in _done(view, shards.DIRECTIONS):
        for k, score in zip(found["sizes"].tolist(), found["scores"].tolist(), strict=True):
            yield {**_of_layer(shard), "directions": k, "score": score}


def _spectra(view: View) -> Iterator[Row]:
    for shard, found in _done(view, shards.ROTATIONS):
        kept = len(found["importance"])
        for name in ("variances", "spectrum"):
            for place, value in enumerate(found[name].tolist()):
                fixed = {**_of_layer(shard), "of": name}
                yield {**fixed, "place": place, "value": value, "kept": place < kept}


def _labels(view: View) -> Iterator[Row]:
    for shard in view.plan.stages[shards.LABELS]:
        if shard.key not in view.done[shards.LABELS]:
            continue
        write = view.log.record(shards.LABELS, shard.key)["writes"][0]
        fixed = {**_of_basis(shard.of), "layer": shard.at}
        nodes = _nodes(view, shard.of, shard.at)
        for direction, terms in enumerate(json.loads(read_file(view.run, write))):
            about = {**fixed, "node": nodes[direction], "direction": direction}
            for rank, (kind, term, share) in enumerate(terms):
                yield {**about, "rank": rank, "kind": kind, "term": term, "share": share}


def _interactions(view: View) -> Iterator[Row]:
    for shard in view.plan.stages[shards.FOLD]:
        if shard.key not in view.done[shards.FOLD]:
            continue
        found = files.read_interactions(view.run, view.log, shard.of, shard.at)
        square, error = found.mean_square[:, 1:].numpy(), found.standard_error[:, 1:].numpy()
        nodes = [_nodes(view, shard.of.basis, layer) for layer in (shard.at, shard.end)]
        fixed = {**shard.of.columns, "residual": float(found.residual)}
        for place in np.argsort(-square, axis=None, kind="stable")[:MOST_ROWS]:
            i, j = np.unravel_index(place, square.shape)
            yield {
                **fixed,
                "source": nodes[0][j],
                "target": nodes[1][i],
                "mean_square": float(square[i, j]),
                "standard_error": float(error[i, j]),
            }
