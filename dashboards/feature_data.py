"""What a run over features noted beside its scores: how well dictionaries fit, what its lists of
edges leave out, how completeness is missed, how far the graph of all features is from the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.blocks import read_block


@dataclass(frozen=True)
class ListFacts:
    """Of one cell's lists of edges.

    Attributes:
        dropped_in_lists: share of Σ|weight| that inputs' lists had no room for, all inputs.
        dropped_in_sum: share that the strongest edges of all inputs leave out; NaN until reduced.
        residual: completeness of each block of positions and input, the worst of its targets,
            in units of the largest change of a target.
    """

    dropped_in_lists: float
    dropped_in_sum: float
    residual: np.ndarray


@dataclass(frozen=True)
class FeatureFacts:
    """Of a run.

    Attributes:
        fits: shard of a trained dictionary -> how well it fits.
        lists: cell -> its lists.
        distance: patch -> over inputs, the largest difference of a logit between the graph of all
            features and the model, and the model's largest logit: two arrays [input].
    """

    fits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lists: Mapping[str, ListFacts] = field(default_factory=dict)
    distance: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def feature_facts(run: RunDirectory, cells: Iterable[Mapping[str, Any]]) -> FeatureFacts:
    """What is committed of it; nothing where no cell is over features."""
    of_features = [cell for cell in cells if cell.get("nodes") == "features"]
    if not of_features:
        return FeatureFacts()
    log = CommitLog(run)
    listed = _writes(log, "attribute")
    reduced = log.committed("reduce")
    lists = {
        key: _list_facts(run, listed, reduced.get(f"{key}.all", {}), key)
        for key in (str(cell["key"]) for cell in of_features)
        if layout.listed(key, "residual") in listed
    }
    fits = {shard: r["fit"] for shard, r in log.committed("dictionaries").items() if "fit" in r}
    return FeatureFacts(fits, lists, _distances(run, _writes(log, "evaluate"), of_features))


def _writes(log: CommitLog, stage: str) -> dict[str, list[Mapping[str, Any]]]:
    """Committed blocks of rows by array, in one reading of the log."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in log.committed(stage).values():
        for write in record.get("writes", ()):
            found.setdefault(str(write.get("array")), []).append(write)
    return {name: sorted(writes, key=lambda w: w["start"]) for name, writes in found.items()}


def _list_facts(
    run: RunDirectory,
    writes: Mapping[str, list[Mapping[str, Any]]],
    reduced: Mapping[str, Any],
    key: str,
) -> ListFacts:
    kept = sum(
        float(np.nansum(np.abs(read_block(run, write))))
        for write in writes[layout.listed(key, "weight")]
    )
    dropped = float(_rows(run, writes[layout.listed(key, "dropped_abs")]).sum())
    total = kept + dropped
    return ListFacts(
        dropped / total if total else 0.0,
        float(np.nan if (share := reduced.get("dropped_share")) is None else share),
        _rows(run, writes[layout.listed(key, "residual")]),
    )


def _rows(run: RunDirectory, writes: list[Mapping[str, Any]]) -> np.ndarray:
    return np.concatenate([read_block(run, write) for write in writes])


def _distances(
    run: RunDirectory,
    writes: Mapping[str, list[Mapping[str, Any]]],
    cells: list[Mapping[str, Any]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every patch, the inputs of all the run's models and tasks together."""
    sources = {layout.source(cell["dataset"], cell["features"]) for cell in cells}
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for array in sorted(writes):
        source, _, rest = array.removeprefix("reference/").partition("/")
        patch, _, what = rest.partition("/")
        if what == "distance/logits" and source in sources:
            scale = array.removesuffix("logits") + "scale"
            pair = _rows(run, writes[array]), _rows(run, writes[scale])
            found.setdefault(patch, []).append(pair)
    return {
        patch: (np.concatenate([d for d, _ in pairs]), np.concatenate([s for _, s in pairs]))
        for patch, pairs in found.items()
    }
