"""What a run with dictionaries noted beside its scores: how well they fit, what lists of edges
leave out, how completeness is missed, how far the graph of all nodes is from the model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.storage import layout
from edgesweep.storage.layout import ATTRIBUTIONS, EVALUATIONS
from edgesweep.storage.readers import Committed


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
class Facts:
    """Of a run.

    Attributes:
        fits: shard of a trained dictionary -> how well it fits.
        lists: cell -> its lists.
        distance: patch -> over inputs, the largest difference of a logit between the graph of all
            nodes and the model, and the model's largest logit: two arrays [input].
    """

    fits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lists: Mapping[str, ListFacts] = field(default_factory=dict)
    distance: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def facts_of(
    committed: Committed, commits: pd.DataFrame, cells: Iterable[Mapping[str, Any]]
) -> Facts:
    """What is committed of it; nothing where no cell has lists, or dictionaries."""
    cells = list(cells)
    with_fit = commits[commits["fit"].notna()]
    return Facts(
        dict(zip(with_fit["shard"], with_fit["fit"], strict=True)),
        dict(_lists(committed, commits, (str(cell["key"]) for cell in cells))),
        _distances(committed, cells),
    )


def _lists(
    committed: Committed, commits: pd.DataFrame, cells: Iterable[str]
) -> Iterator[tuple[str, ListFacts]]:
    written = committed.arrays(ATTRIBUTIONS)
    dropped_in_sum = commits.set_index("shard")["dropped_share"].dropna()
    for cell in cells:
        if layout.listed(cell, "residual") not in written:
            continue
        weights = committed.blocks(ATTRIBUTIONS, layout.listed(cell, "weight"))
        kept = sum(float(np.nansum(np.abs(rows))) for _, rows in weights)
        dropped = float(_rows(committed, ATTRIBUTIONS, layout.listed(cell, "dropped_abs")).sum())
        total = kept + dropped
        yield (
            cell,
            ListFacts(
                dropped / total if total else 0.0,
                float(dropped_in_sum.get(f"{cell}.all", np.nan)),
                _rows(committed, ATTRIBUTIONS, layout.listed(cell, "residual")),
            ),
        )


def _rows(committed: Committed, store: str, array: str) -> np.ndarray:
    """What is committed of an array."""
    return np.concatenate([rows for _, rows in committed.blocks(store, array)])


def _distances(
    committed: Committed, cells: list[Mapping[str, Any]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every patch, the inputs of all the run's models and tasks together."""
    patches = sorted(committed.run.config["evaluate"]["eval_patch"])
    sources = sorted({layout.source(cell["dataset"], cell["features"]) for cell in cells})
    written = committed.arrays(EVALUATIONS)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for patch in patches:
        names = [layout.distance(source, patch) for source in sources]
        pairs = [_rows(committed, EVALUATIONS, name).T for name in names if name in written]
        if pairs:
            gaps, scales = zip(*pairs, strict=True)
            found[patch] = (np.concatenate(gaps), np.concatenate(scales))
    return found
