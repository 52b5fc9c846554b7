"""The areas of one curve, as rows of measures.parquet.

    area_log    the mean of φ over the logarithm of the selected size, over the measured range
    share_log   how much of the axis, from one edge to all, that range is
    cpr, cmd    of MIB: where all its sizes were measured by edge ablation, the one of what ranks
                first by signed score, the other by magnitude; elsewhere no row has a value

See `engine.curves.areas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.engine.curves import areas
from edgesweep.engine.measures import interval

Row = dict[str, Any]
#: the selection and the ablation by which MIB has each of its areas
MIB_AREAS = {"cpr": ("topk_value", "edge"), "cmd": ("topk_abs", "edge")}


@dataclass(frozen=True)
class Curve:
    """The circuits of one ranking under one condition, in one metric, on one subset of the inputs.

    Attributes:
        selected: of each circuit the edges that were selected.
        sizes: how many of what is scored, edges or nodes, were asked for and had; 0 where less was
            had than asked for.
        n_edges: edges that were run.
        phi: its faithfulness.
        n_possible, n_scored: edges of the whole graph; edges or nodes that are scored.
        selection, ablation: as in results.
    """

    selected: np.ndarray
    sizes: np.ndarray
    n_edges: np.ndarray
    phi: np.ndarray
    n_possible: int
    n_scored: int
    selection: str
    ablation: str

    @classmethod
    def of(cls, rows: pd.DataFrame, n_scored: int, *, of_nodes: bool) -> Curve:
        """Of rows of results.parquet."""
        selected, asked = rows["n_selected"].to_numpy(), rows["threshold"].to_numpy()
        return cls(
            selected,
            np.where(of_nodes | (asked == selected), asked, 0).astype(np.int64),
            rows["n_edges"].to_numpy(),
            rows["faithfulness"].to_numpy(),
            int(rows["n_edges_possible"].iloc[0]),
            n_scored,
            str(rows["selection"].iloc[0]),
            str(rows["ablation"].iloc[0]),
        )

    def areas(self, resampled: np.ndarray | None, level: float) -> Iterator[Row]:
        """A row each: measure, value, low, high.

        Args:
            resampled: φ `[resample, circuit]`, of which intervals are made; None for none.
            level: what an interval covers.
        """
        told = areas.of_whole(self.n_edges, self.phi)
        if not np.isfinite(self.phi).any():  # there is nothing to be faithful to
            told = np.full(len(self.phi), np.nan)
        for name, area in self._areas().items():
            value = float(area(told))
            low, high = np.nan, np.nan
            if resampled is not None:
                samples = area(areas.of_whole(self.n_edges, resampled))
                low, high = (float(end) for end in interval(samples, level))
            yield {"measure": name, "value": value, "low": low, "high": high}
        share = areas.share_of_log_axis(self.selected, self.n_possible)
        yield {"measure": "share_log", "value": share, "low": np.nan, "high": np.nan}

    def _areas(self) -> dict[str, Callable[[np.ndarray], Any]]:
        """Each area, of φ `[…, circuit]`."""
        found: dict[str, Callable[[np.ndarray], Any]] = {
            "area_log": partial(areas.mean_over_log_size, self.selected),
            "cpr": partial(areas.cpr, self.sizes, n_scored=self.n_scored),
            "cmd": partial(areas.cmd, self.sizes, n_scored=self.n_scored),
        }
        is_mib = {name: how == (self.selection, self.ablation) for name, how in MIB_AREAS.items()}
        return {name: area if is_mib.get(name, True) else _unknown for name, area in found.items()}


def _unknown(phi: np.ndarray) -> Any:
    return np.full(phi.shape[:-1], np.nan)[()]
