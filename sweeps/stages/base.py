"""What a stage is: a name, its shards, what each of them reads, what a worker does with one.

The driver knows no stage by name. It hands out a shard once what the shard reads is committed, and
what it reads is named by *groups*: a shard is a member of some, and waits for others. A group is
whole when its last member is committed, so that being ready costs a counter a commit. A *gate* is
what the driver does itself between two groups (circuits from reduced scores): it opens once what it
needs is whole, and is then a whole group too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from edgesweep.storage import RunDirectory
    from edgesweep.storage.arrays import Planned
    from edgesweep.storage.tables import Table
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View

#: what a worker wrote (storage.blocks), and what else the record is to say
Done = tuple[list[dict[str, Any]], dict[str, Any]]
Row = dict[str, Any]


class Shard(Protocol):
    """What an executor hands to a worker: small, frozen, and it says all that the worker needs to
    look up. Its key is made of its contents alone."""

    @property
    def key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What an executor hands to a worker: a shard, and the name of its stage."""

    stage: str
    shard: Any

    @property
    def key(self) -> str:
        return str(self.shard.key)


S = TypeVar("S", bound=Shard)


@dataclass(frozen=True)
class Gate:
    """What the driver does once `needs` are whole; then the group `name` is whole.

    `open` writes what it makes under names of its own, whole or not at all, and the same each time,
    for it is done again by each driver.
    """

    name: str
    needs: tuple[str, ...]
    open: Callable[[View], None]


@dataclass(frozen=True)
class Passes:
    """Forwards and backwards of one micro-batch, other floating-point operations, and seconds of
    what has neither."""

    forwards: float = 0.0
    backwards: float = 0.0
    flop: float = 0.0
    seconds: float = 0.0


class Stage(Generic[S]):
    """One stage. `name` is in commits, status and plan; `title` is what a person reads while it is
    done; `tables` are those that it has rows for; `runs_model` if its workers load the model."""

    name: str
    title: str
    runs_model = False
    tables: tuple[Table, ...] = ()

    def shards(self, plan: Plan) -> Iterator[S]:
        """Its shards, in the order in which they are handed out if all are ready."""
        raise NotImplementedError

    def groups(self, plan: Plan, shard: S) -> Iterable[str]:
        """The groups that a shard is a member of."""
        return ()

    def needs(self, plan: Plan, shard: S) -> tuple[str, ...]:
        """The groups that must be whole before it is done."""
        return ()

    def gates(self, plan: Plan) -> Iterator[Gate]:
        """What the driver does on the way to it."""
        return iter(())

    def lacks(self, plan: Plan) -> str:
        """Why this machine cannot do it, and so leaves it out; "" where it can."""
        return ""

    def prepare(self, run: RunDirectory, plan: Plan) -> None:
        """What the driver writes for it before an actor starts; done again on resume, it changes
        nothing."""

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        """Every array that its shards fill."""
        return iter(())

    def run(self, context: Context, shard: S) -> Done:
        """What a worker does: compute, write, and say what was written."""
        raise NotImplementedError

    def passes(self, plan: Plan, shard: S) -> Passes:
        """What a shard costs, counted from shapes."""
        return Passes()

    def alike(self, shard: S) -> str:
        """What shards have in common that take about as long as each other."""
        cell = getattr(shard, "cell", None)
        return "" if cell is None else cell.key

    def model(self, plan: Plan, shard: S) -> str:
        """The label of the model that a worker loads for a shard; "" for none."""
        if not self.runs_model:
            return ""
        if (cell := getattr(shard, "cell", None)) is not None:
            return str(cell.model)
        if (dataset := getattr(shard, "dataset", None)) is not None:
            return plan.dataset_of(dataset).model
        return str(shard.model)  # type: ignore[attr-defined]

    def whose(self, plan: Plan, shard: S) -> str:
        """Of what a shard's numbers are, in words."""
        cell: Cell = shard.cell  # type: ignore[attr-defined]
        return f"cell {cell.key} ({cell.model}, {cell.task})"

    def rows(self, view: View, cell: Cell) -> Mapping[Table, pd.DataFrame | Iterable[Row]]:
        """What it adds to tables, by table, of a cell whose scores are reduced: rows whose inputs
        are all committed."""
        return {}
