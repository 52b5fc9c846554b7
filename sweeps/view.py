"""What is committed of a run, for whoever reads it on the way or at the end: gates and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.storage import layout
from edgesweep.storage.layout import AGGREGATES, EVALUATIONS
from edgesweep.storage.packing.masks import Masks
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.circuits import read_ran, read_selected

if TYPE_CHECKING:
    from edgesweep.engine.graph import Graph
    from edgesweep.storage import CommitLog, RunDirectory
    from edgesweep.sweeps.plan.cells import Cell, Condition
    from edgesweep.sweeps.plan.plan import Plan


@dataclass
class View:
    """A run as it stands.

    Attributes:
        committed, done: committed blocks, and shards of each stage; the driver adds to both as it
            commits.
        say: a line for a person.
    """

    run: RunDirectory
    plan: Plan
    log: CommitLog
    committed: Committed
    done: dict[str, set[str]] = field(default_factory=dict)
    say: Callable[[str], None] = print
    _group: str = ""
    _scores: dict[str, np.ndarray] = field(default_factory=dict)
    _values: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    _references: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    _ran: dict[tuple[str, str], Masks] = field(default_factory=dict)
    _n_selected: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        run: RunDirectory,
        plan: Plan,
        log: CommitLog,
        say: Callable[[str], None] = print,
    ) -> View:
        """By one reading of the log. Scores of single inputs are not read."""
        done = {stage: log.index(stage) for stage in plan.stages}
        return cls(run, plan, log, Committed(run, log, (AGGREGATES, EVALUATIONS)), done, say)

    def is_whole(self, stage: str, cell: Cell) -> bool:
        """Whether all shards that a stage has of a cell are committed."""
        shards = self.plan.of_cell(cell).get(stage, ())
        return self.done[stage].issuperset(shard.key for shard in shards)

    def is_reduced(self, cell: Cell) -> bool:
        """Whether a cell's aggregates are committed, of all inputs and of each member."""
        return self.is_whole("reduce", cell) and self.is_whole("reduce_refined", cell)

    @property
    def reduced(self) -> list[Cell]:
        """The cells whose aggregates are committed."""
        return [cell for cell in self.plan.cells if self.is_reduced(cell)]

    def note(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """The driver has committed a shard."""
        self.done[stage].add(key)
        self.committed.add(record)

    def graph(self, cell: Cell) -> Graph:
        """The graph of a cell whose scores are reduced."""
        return self.plan.nodes(cell).graph(self.run, cell)

    def scores(self, cell: Cell, aggregation: str, member: str = "all") -> np.ndarray | None:
        """Aggregated scores of all inputs or of a member's, in the order of the cell's scores:
        edges, or nodes that write (over features, all of the dictionaries'). None where not
        committed."""
        group = layout.group(cell.key, member)
        if group != self._group:  # cell by cell, whatever asks
            self._group, self._scores = group, {}
        if aggregation not in self._scores:
            found = self.committed.aggregate(group, aggregation)
            if found is None:
                return None
            self._scores[aggregation] = found
        found = self._scores[aggregation]
        return found[: self.graph(cell).n_edges] if cell.is_sparse else found

    def forget(self) -> None:
        """What was read of arrays: it is read again, and found out if it was hurt meanwhile."""
        self.turn_to_another()
        self._references = {}

    def turn_to_another(self) -> None:
        """The same of what was read of the arrays of a cell; what many are held against stays."""
        self._group, self._scores, self._values, self._ran = "", {}, {}, {}
        self._n_selected = {}

    def values(self, cell: Cell, circuit: str, condition: Condition, metric: str) -> np.ndarray:
        """A metric of a circuit `[input]`; of inputs that are not committed NaN."""
        metrics = self.plan.config.evaluate.metric
        place = self.ran(cell, condition).circuits.index(circuit)
        found = self._read(layout.values(cell.key, condition.key), self._values)
        return np.ascontiguousarray(found[:, place, metrics.index(metric)])

    def reference(self, source: str, patch: str, side: str, metric: str) -> np.ndarray:
        """A metric of the full model or of the empty circuit, likewise."""
        metrics = self.plan.config.reference_metrics
        found = self._read(layout.reference(source, patch), self._references)
        return np.ascontiguousarray(found[:, layout.SIDES.index(side), metrics.index(metric)])

    def _read(self, name: str, known: dict[str, tuple[int, np.ndarray]]) -> np.ndarray:
        """An array of evaluations as far as it is committed."""
        n = self.committed.n_blocks(layout.EVALUATIONS, name)
        if known.get(name, (0, None))[0] != n:
            known[name] = n, self.committed.read(layout.EVALUATIONS, name, partly=True)
        return known[name][1]

    def ran(self, cell: Cell, condition: Condition) -> Masks:
        """What a condition runs of the cell's circuits."""
        if (cell.key, condition.key) not in self._ran:
            self._ran = {k: v for k, v in self._ran.items() if k[0] == cell.key}  # cell by cell
            self._ran[cell.key, condition.key] = read_ran(self.run, cell, condition)
        return self._ran[cell.key, condition.key]

    def n_selected(self, cell: Cell, circuit: str) -> int:
        """Edges that a threshold keeps, before pruning."""
        if cell.key not in self._n_selected:
            masks = read_selected(self.run, cell)
            self._n_selected = {cell.key: {key: int(masks[key].sum()) for key in masks.circuits}}
        return self._n_selected[cell.key][circuit]

    def missing_references(self, source: str, patch: str) -> frozenset[str]:
        """Members of whose inputs a reference is not committed."""
        done = self.done["references"]
        shards = self._reference_shards.get((source, patch), ())
        return frozenset(shard.rows.member for shard in shards if shard.key not in done)

    @cached_property
    def _reference_shards(self) -> dict[tuple[str, str], list[Any]]:
        """The shards of references by source and patch."""
        found: dict[tuple[str, str], list[Any]] = {}
        for shard in self.plan.stages["references"]:
            found.setdefault((shard.source, shard.eval_patch), []).append(shard)
        return found
