"""What circuits share in one ablated forward: which sources are read, and which rows are equal."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph


@dataclass(frozen=True)
class AttentionWork:
    """What one layer's attention has to compute.

    Attributes:
        active: circuits that read some head of the layer.
        group: which distinct circuit (owner) stands for each of them; `n_owners` in all.
        owner, port: the ports to compute, as pairs.
        stream: which distinct stream each pair reads.
        rows: the (circuit, port) whose stream that is.
        keys: ids of the kept parents of each active circuit's ports; -1 where not needed.
    """

    active: Int[np.ndarray, " active"]
    group: Int[np.ndarray, " active"]
    n_owners: int
    owner: Int[np.ndarray, " pairs"]
    port: Int[np.ndarray, " pairs"]
    stream: Int[np.ndarray, " pairs"]
    rows: Int[np.ndarray, "streams 2"]
    keys: Int[np.ndarray, "active ports sources"]


def wanted_sources(
    graph: EdgeGraph, masks: Bool[np.ndarray, "circuits edges"]
) -> Bool[np.ndarray, "circuits sources"]:
    """Sources that a pruned circuit reads."""
    wanted = np.zeros((len(masks), len(graph.sources)), dtype=bool)
    for circuit, mask in enumerate(masks):
        wanted[circuit, graph.edge_source[mask]] = True
    return wanted


def rows_of(table: Tensor, rows: np.ndarray) -> Tensor:
    """Rows of a table; a view where they are one run, for a copy costs as much as the work."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return table[int(rows[0]) : int(rows[0]) + len(rows)]
    return table[torch.as_tensor(rows, device=table.device)]


def distinct_rows(keys: np.ndarray) -> tuple[Int[np.ndarray, " owners"], Int[np.ndarray, " rows"]]:
    """First row of each distinct key, in order of appearance, and each row's group among them."""
    seen: dict[bytes, int] = {}
    owners: list[int] = []
    group = np.empty(len(keys), dtype=np.int64)
    for row, key in enumerate(np.ascontiguousarray(keys)):
        known = key.tobytes()
        if known not in seen:
            seen[known] = len(owners)
            owners.append(row)
        group[row] = seen[known]
    return np.array(owners, dtype=np.int64), group
