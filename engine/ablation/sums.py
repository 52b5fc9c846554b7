"""What the ports of one circuit read: sums over a table of differences, which is read seldom.

A port reads x_patch + Σ_{kept u} δ_u. The table has a row for each live source, in forward order,
and is larger than any cache: what sums cost is how often it is read. So layers are taken in groups:

1. At the first layer of a group the sums over all sources so far are had for the ports of all its
   layers, in one matrix product. A port that keeps most takes their total less the dropped ones.
2. A layer adds to its ports' sums what the group's own layers wrote since, and x_patch, which is
   put into the row after the last. Nothing is copied; a sum is completed where it lies.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.ablation.sharing import distinct_rows, rows_of
from edgesweep.engine.graph import EdgeGraph, PortBlock

#: layers whose ports share a reading of the table (a product of 150 rows of SmolLM2's streams, one
#: thread: 22 ms a layer for one by itself, 10.5 for each of 4, 9 for each of 8)
GROUP = 4


class CircuitSums:
    """The differences of one circuit's sources, and their sums at its ports.

    Args:
        mask: kept edges.
        wanted: sources that are read, the table's rows.
        like: a stream.

    Attributes:
        row: row of each source in the table, -1 where its difference is zero or never read.
        ids: id of each source's value; 0 where the difference is zero or never read.
    """

    def __init__(
        self,
        graph: EdgeGraph,
        mask: Bool[np.ndarray, " edges"],
        wanted: Bool[np.ndarray, " sources"],
        like: Tensor,
    ) -> None:
        self._graph, self._mask = graph, mask
        self._table = like.new_empty(int(wanted.sum()) + 1, like.numel())
        self._total, self._n_summed = like.new_zeros(like.numel()), 0
        self.row = np.full(len(graph.sources), -1)
        self.ids = np.zeros(len(graph.sources), dtype=np.int64)
        self._n_rows = self._first_new = 0
        self._sums = self._space = self._table[:0]
        self._place = np.full(len(graph.targets), -1)

    # --- the table ---------------------------------------------------------------------------
    def room(self, n: int) -> Float[Tensor, "n numbers"]:
        """The next rows, to be written to, then noted."""
        return self._table[self._n_rows : self._n_rows + n]

    def note(self, sources: Int[np.ndarray, " n"], ids: Int[np.ndarray, " n"]) -> None:
        """The next rows are those sources' differences."""
        self.row[sources] = self._n_rows + np.arange(len(sources))
        self.ids[sources] = ids
        self._n_rows += len(sources)

    # --- sums --------------------------------------------------------------------------------
    def begin(self, blocks: Sequence[PortBlock], needed: Sequence[Bool[np.ndarray, " _"]]) -> None:
        """Step 1, for the needed ports of a group's blocks."""
        n_known, n = blocks[0].n_sources, 0
        parts: list[Bool[np.ndarray, "ports live"]] = []
        self._place[:] = -1
        for block, ports in zip(blocks, needed, strict=True):
            targets = np.flatnonzero(ports)
            kept = self._kept(block, targets)
            firsts, same = distinct_rows(kept)
            reads = kept[firsts, :n_known][:, self.row[:n_known] >= 0]
            acts = np.asarray(reads.any(1))
            acts |= 2 * acts.sum() > len(firsts)  # rather some rows of zeros than gaps
            places = np.where(acts, n + acts.cumsum() - 1, -1)
            self._place[block.first_target + targets] = places[same]
            parts.append(reads[acts])
            n += len(parts[-1])
        self._first_new = self._n_rows
        self._sums = self._sum(np.concatenate(parts))

    def _kept(self, block: PortBlock, ports: np.ndarray) -> Bool[np.ndarray, "ports sources"]:
        kept = self._mask[block.edges].reshape(block.n_targets, block.n_sources)
        return np.asarray(kept[ports])

    def _sum(self, kept: Bool[np.ndarray, "ports live"]) -> Float[Tensor, "ports numbers"]:
        """Σ kept δ over all rows so far, by whichever side is shorter."""
        mostly = 2 * kept.sum(1) > kept.shape[1]
        weights = np.where(mostly[:, None], kept - 1.0, kept)
        columns, table = np.flatnonzero(weights.any(0)), self._table[: self._n_rows]
        if 2 * len(columns) < self._n_rows:  # a copy of few rows beats a product over all
            table, weights = rows_of(table, columns), weights[:, columns]
        out = self._fresh(len(kept))
        torch.mm(torch.as_tensor(weights).to(table), table, out=out)
        if mostly.any():
            self._total += self._table[self._n_summed : self._n_rows].sum(0)
            self._n_summed = self._n_rows
            for port in np.flatnonzero(mostly):
                out[int(port)] += self._total
        return out

    def _fresh(self, n: int) -> Float[Tensor, "n numbers"]:
        """Where sums are written, the same memory for every group: new pages cost as much again."""
        if n > len(self._space):
            self._space = self._table.new_empty(n, self._table.shape[1])
        return self._space[:n]

    def streams(
        self,
        blocks: Sequence[PortBlock],
        ports: Sequence[Int[np.ndarray, " _"]],
        base: Float[Tensor, " numbers"],
    ) -> Float[Tensor, "ports numbers"]:
        """Step 2: what ports of blocks read of the sources before the first block, and `base`.

        Equal ports of a block may be asked for once: their sum is used up.
        """
        n = blocks[0].n_sources
        both = list(zip(blocks, ports, strict=True))
        places = np.concatenate([self._place[block.first_target + mine] for block, mine in both])
        kept = np.concatenate([self._kept(block, mine)[:, :n] for block, mine in both])
        kept = kept[:, self.row[:n] >= self._first_new]
        self._table[self._n_rows] = base
        weights = np.concatenate([kept, np.ones((len(kept), 1))], axis=1)
        table = self._table[self._first_new : self._n_rows + 1]
        has = places >= 0
        if not has.all():
            out = torch.as_tensor(weights).to(table) @ table
            out[torch.as_tensor(has)] += rows_of(self._sums, places[has])
            return out
        return rows_of(self._sums, places).addmm_(torch.as_tensor(weights).to(table), table)

    def add_new(self, stream: Float[Tensor, " numbers"], block: PortBlock, first: int) -> None:
        """Add to the stream of an MLP the kept differences of sources from `first` on."""
        kept = self._kept(block, np.zeros(1, dtype=np.int64))[0, first:]
        rows = self.row[first : block.n_sources][kept]
        rows = rows[rows >= 0]
        if len(rows):
            weights = np.zeros(rows[-1] + 1 - rows[0])
            weights[rows - rows[0]] = 1.0
            table = self._table[int(rows[0]) : int(rows[-1]) + 1]
            stream.addmv_(table.T, torch.as_tensor(weights).to(table))

    def final(
        self,
        block: PortBlock,
        at_read: Callable[[Tensor], Tensor],
        base: Float[Tensor, "inputs d_model"],
    ) -> Float[Tensor, "inputs d_model"]:
        """What the logits read, at the read positions alone; `base` is x_patch there."""
        kept = self._kept(block, np.zeros(1, dtype=np.int64))[0]
        rows = self.row[kept]
        table = at_read(self._table[: self._n_rows])
        return base + rows_of(table, rows[rows >= 0]).sum(0)
