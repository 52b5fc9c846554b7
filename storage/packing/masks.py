"""Circuits as bits: which edges each circuit of a cell has, one array a cell and condition.

An array is uint8 `[circuit, ceil(edges / 8)]`; its attributes say which circuits, in order, and how
many edges. The driver writes it, whole or not at all (`storage.arrays.write_static`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgesweep.storage.arrays import read_static, write_static
from edgesweep.storage.errors import StorageError
from edgesweep.storage.rundir import RunDirectory


@dataclass(frozen=True)
class Masks:
    """Which edges some circuits have.

    Attributes:
        circuits: their keys.
        n_edges: of the graph.
        bits: uint8 `[circuit, ceil(n_edges / 8)]`.
    """

    circuits: tuple[str, ...]
    n_edges: int
    bits: np.ndarray

    def __getitem__(self, circuit: str) -> np.ndarray:
        """Bool `[edge]`."""
        if circuit not in self.circuits:
            raise StorageError(f"there is no mask of circuit {circuit}")
        row = self.bits[self.circuits.index(circuit)]
        return np.unpackbits(row, count=self.n_edges).view(bool)

    def all(self) -> np.ndarray:
        """Bool `[circuit, edge]`."""
        return np.unpackbits(self.bits, axis=1, count=self.n_edges).view(bool)


def write_masks(
    run: RunDirectory, name: str, masks: Mapping[str, np.ndarray], n_edges: int | None = None
) -> None:
    """Writes masks, bool `[edge]` each, by circuit; `n_edges` says how many edges where there may
    be no circuit."""
    n_edges = len(next(iter(masks.values()))) if n_edges is None else n_edges
    bits = np.zeros((len(masks), -(-n_edges // 8)), np.uint8)
    for row, mask in zip(bits, masks.values(), strict=True):
        row[:] = np.packbits(mask)
    told = {"circuits": list(masks), "edges": n_edges}
    write_static(run.evaluations, name, bits, told, compress=True)


def read_masks(run: RunDirectory, name: str) -> Masks:
    """Raises StorageError where they are not what was written."""
    bits, told = read_static(run.evaluations, name)
    return Masks(tuple(told["circuits"]), int(told["edges"]), bits)
