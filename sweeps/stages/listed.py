"""Reduction of scores that are lists: the strongest edges of all inputs, and their statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.storage import fold, layout
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.storage.fold.sparse import SparseFold, fold_inputs, part_of, strongest
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.stages.base import Done

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context

Writes = list[dict[str, Any]]
#: entries of lists that a reducer holds at once
PART_ENTRIES = 4_000_000


def reduce_lists(context: Context, cell: Cell, records: list[Writes]) -> Done:
    """The strongest edges of all inputs, and their statistics, of all and of each member.

    Args:
        records: what each of the cell's attribution shards wrote.
    """
    lists = _Lists(context, cell, records)
    n_parts = max(1, -(-lists.n_entries // PART_ENTRIES))
    parts = [lists.fold(part, n_parts) for part in range(n_parts)]
    n_edges = context.nodes(cell).max_edges
    codes, dropped = strongest([_all(members) for members in parts], n_edges)
    context.check_alive()
    ends = np.full((n_edges, 2), -1, dtype=np.int64)
    ends[: len(codes), 1], ends[: len(codes), 0] = np.divmod(codes, lists.n_nodes)
    writes = [write_block(context.run, layout.AGGREGATES, layout.edges(cell.key), 0, ends)]
    names = lists.members if len(lists.members) > 1 else []
    for i, subset in enumerate(["all", *names]):
        folds = [_all(members) if subset == "all" else members[i - 1] for members in parts]
        group = layout.group(cell.key, subset)
        for name, values in _at(folds, codes).items():
            padded = np.full(n_edges, np.nan) if name in fold.AGGREGATIONS else np.zeros(n_edges)
            padded[: len(codes)] = values
            typed = padded.astype(np.float64 if name in fold.AGGREGATIONS else np.int64)
            path = layout.folded(group, name)
            writes.append(write_block(context.run, layout.AGGREGATES, path, 0, typed))
    return writes, {"dropped_share": max(dropped, 0.0)}


def listed_scores(
    context: Context, cell: Cell, records: list[Writes], ends: np.ndarray
) -> np.ndarray:
    """Scores of the edges that all inputs together have kept, `[input, edge]` float32; 0 where an
    input does not list one.

    Args:
        ends: the cell's edges in the aggregates, -1 where there is none.
    """
    lists, ends = _Lists(context, cell, records), ends[ends[:, 0] >= 0]
    codes = ends[:, 1] * lists.n_nodes + ends[:, 0]
    found = np.zeros((lists.n_inputs, len(codes)), dtype=np.float32)
    for writes in records:
        for number, mine, weights in lists.read(writes):
            place = np.searchsorted(codes, mine)
            known = place < len(codes)
            known[known] = codes[place[known]] == mine[known]
            np.add.at(found[number], place[known], weights[known])
    return found


def _all(members: list[SparseFold]) -> SparseFold:
    total = SparseFold.empty()
    for member in members:
        total = total.merge(member)
    return total


def _at(folds: list[SparseFold], codes: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of some edges, each from the part that it falls into."""
    place = part_of(codes, len(folds))
    whole: dict[str, np.ndarray] = {}
    for part, found in enumerate(folds):
        mine = place == part
        for name, values in found.at(codes[mine]).finish().items():
            whole.setdefault(name, np.zeros(len(codes)))[mine] = values
    return whole


class _Lists:
    """The committed lists of a cell, a shard at a time.

    Attributes:
        members: names of the member tasks, in order.
        n_nodes: nodes and the logits; an edge's code is target * n_nodes + source.
        n_entries: of all lists together, at most.
    """

    def __init__(self, context: Context, cell: Cell, records: list[Writes]) -> None:
        self._context, self._cell, self._records = context, cell, records
        self.n_nodes = context.nodes(cell).n_nodes + 1
        tasks = [p.task for p in context.prompts(cell.dataset, "build")]
        self.n_inputs = len(tasks)
        self.members = list(dict.fromkeys(tasks))
        self._member = [self.members.index(task) for task in tasks]
        self.n_entries = sum(self._rows(r) for r in self._records) * (cell.keep or 0)

    def _rows(self, writes: Writes) -> int:
        return int(self._write(writes, "source")["rows"])

    def _write(self, writes: Writes, name: str) -> dict[str, Any]:
        return next(w for w in writes if w["array"] == layout.listed(self._cell.key, name))

    def fold(self, part: int, n_parts: int) -> list[SparseFold]:
        """The fold of each member, over the edges of one part."""
        inputs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for writes in self._records:
            for number, codes, weights in self.read(writes):
                mine = part_of(codes, n_parts) == part
                inputs.setdefault(number, []).append((codes[mine], weights[mine]))
        per_input = [
            (np.concatenate([c for c, _ in inputs[i]]), np.concatenate([w for _, w in inputs[i]]))
            for i in sorted(inputs)
        ]
        return [
            fold_inputs(v for v, member in zip(per_input, self._member, strict=True) if member == m)
            for m in range(len(self.members))
        ]

    def read(self, writes: Writes) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(input, codes, weights) of one shard."""
        blocks = {
            name: read_block(self._context.run, self._write(writes, name))
            for name in ("source", "target", "weight")
        }
        first = self._write(writes, "source")["start"]
        for row in range(len(blocks["source"])):
            there = blocks["target"][row] >= 0
            codes = blocks["target"][row][there] * self.n_nodes + blocks["source"][row][there]
            yield (first + row) % self.n_inputs, codes, blocks["weight"][row][there]
