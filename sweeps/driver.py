"""The driver: what is left of the plan goes to the executor, and what comes back is committed.

1. Claim an epoch; from then on an older driver commits nothing.
2. Clear what killed writers left, make every array, un-commit what is not what was committed: all
   is looked at, or of a large run some (soundness.resume). A large one that is done ends here.
3. Hand out each shard once what it reads is committed. The driver alone commits; with each commit
   others become ready, and gates between them open (scheduler.py).
4. Tables, from what is committed, then the page and the manifest (ending.py).

The driver knows no stage by name. Its memory grows with shards, not with scores.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesweep.engine.runtime import Executor, Failure, Work
from edgesweep.storage import CommitLog, RunDirectory, StorageError
from edgesweep.storage.blocks import move_unsound
from edgesweep.storage.tables import give_memory_back, has_parts, write_parts
from edgesweep.sweeps.ending import Page, end_run
from edgesweep.sweeps.mending import mend_records
from edgesweep.sweeps.notfinite import told
from edgesweep.sweeps.prepare import prepare
from edgesweep.sweeps.scheduler import Scheduler
from edgesweep.sweeps.soundness.noted import forget, noted
from edgesweep.sweeps.soundness.resume import Chosen, ended_well, is_done, to_read
from edgesweep.sweeps.stages.base import Gate, Task
from edgesweep.sweeps.tables.build import build_tables, rows_of_cells
from edgesweep.sweeps.view import View

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.progress import Progress

#: so many cells are begun before the evaluation of an earlier one: in the time in which the last
#: cells are reduced there is then something to do (tests/runtime/test_simulation.py)
CELLS_AHEAD = 2


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        left: shards of the plan that are not committed and were not left out.
        quarantined: of these, given up, with their errors by shard.
        left_out: stages that this machine cannot do, with the reason.
        stopped: a person asked to stop.
    """

    left: int = 0
    quarantined: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    @property
    def exit_code(self) -> int:
        return 3 if self.stopped or self.left else 0

    @property
    def state(self) -> str:
        """What `status` says once the driver is gone."""
        if not self.left:
            return "done"
        return "quarantined" if self.quarantined and not self.stopped else "stopped"


class Driver:
    """One driver of one run.

    Args:
        plan: what the run consists of.
        run: its directory.
        executor: runs shards; the driver does not close it.
        left_out: stages that are not done here, with the reason.
        should_stop: polled between shards.
        take_over: go on where another driver is at work.
        page: makes the page at the end; None for a run without one.
        small: all that is committed is read before anything is done.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunDirectory,
        executor: Executor,
        progress: Progress,
        *,
        left_out: Mapping[str, str] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        versions: dict[str, str] | None = None,
        take_over: bool = False,
        page: Page | None = None,
        small: bool = True,
    ) -> None:
        self._plan, self._run, self._executor = plan, run, executor
        self._progress, self._asked_to_stop, self._page = progress, should_stop, page
        self._log, self._take_over = CommitLog(run, versions), take_over
        self._left_out, self._small = dict(left_out or {}), small
        self._place = {cell: place for place, cell in enumerate(plan.cells)}
        self._order = {name: place for place, name in enumerate(plan.stages)}

    def drive(self) -> Outcome:
        """Everything that is left of the plan. Raises Busy, Fenced, StorageError, ExecutorError."""
        give_memory_back()
        with self._log.driving(self._take_over, left_out=self._left_out) as end:
            try:
                outcome = self._drive()
            except StorageError as error:
                end["error"] = str(error)
                raise
            end |= {
                "left": outcome.left,
                "quarantined": sorted(outcome.quarantined),
                "stopped": outcome.stopped,
            }
            self._run.log("driver_ended", epoch=self._log.epoch, **end)
        return outcome

    def _drive(self) -> Outcome:
        self._run.log("driver_started", epoch=self._log.epoch, left_out=self._left_out)
        is_sound = mend_records(self._run, self._log, self._progress.say)
        if not ended_well(self._log):
            self._run.clear_strays(self._log.epoch_began)
        if (
            is_sound
            and not self._small
            and is_done(self._run, self._plan, self._log, self._left_out)
        ):
            return Outcome(left_out=self._left_out)
        prepare(self._run, self._plan)
        self._check_what_is_there()
        self._view = View.of(self._run, self._plan, self._log, self._progress.say)
        self._do_shards()
        outcome = self._outcome()
        if not outcome.stopped:
            whole = not outcome.left and not outcome.left_out
            tables, state = build_tables(self._view), outcome.state
            end_run(self._run, self._log, tables, state, self._page, whole)
            for line in told(self._view):
                self._progress.say(line)
        return outcome

    def _check_what_is_there(self) -> None:
        """Data that is not what was committed is redone."""
        chosen = None if self._small else to_read(self._run, self._plan, self._log)
        news = self._move_unsound(chosen) - (noted(self._run) or set())
        if news and chosen is not None:
            self._progress.say("some of what was looked at is not what was committed; all is read")
            self._move_unsound(None)
        forget(self._run)

    def _move_unsound(self, chosen: Chosen | None) -> set[str]:
        """Un-commits what is not sound of the chosen shards, None for all, and names it."""
        found = set()
        for stage in self._plan.stages:
            among = None if chosen is None else chosen.get(stage, set())
            for shard in move_unsound(self._run, self._log, stage, among):
                self._run.log("unsound", stage=stage, shard=shard)
                self._progress.say(f"{stage}/{shard} is not what was committed; it is redone")
                found.add(f"{stage}/{shard}")
        return found

    def _should_stop(self) -> bool:
        """Whether a person has asked for it. Raises Fenced once the lease is another driver's."""
        self._log.check_lease()
        return self._asked_to_stop()

    # --- shards --------------------------------------------------------------------------------
    def _do_shards(self) -> None:
        stages = {n: s for n, s in self._plan.all_stages.items() if n not in self._left_out}
        self._scheduler = Scheduler(self._plan, stages, self._view.done)
        planned = {name: len(self._plan.stages[name]) for name in stages}
        done = {name: len(self._view.done[name]) for name in stages}
        self._n_to_come = sum(planned.values()) - sum(done.values())
        self._left = Counter(
            shard.cell
            for name in stages
            for shard in self._plan.stages[name]
            if shard.key not in self._view.done[name] and hasattr(shard, "cell")
        )
        self._progress.begin({n: s.title for n, s in stages.items()}, planned, done)
        try:
            works = iter(self._ready())  # of which only those that wait are kept
            for cell in self._view.reduced:
                if not self._left[cell]:
                    self._write_part(cell)
            callbacks = self._on_done, self._on_failed, self._should_stop
            self._executor.run(works, *callbacks, to_come=lambda: self._n_to_come)
        finally:
            self._progress.end()

    def _ready(self) -> list[Work]:
        """What can be done now, after whatever the driver does itself on the way to it. It reads
        what is committed."""
        works = []
        for item in self._scheduler.ready():
            self._log.flush()
            if isinstance(item, Gate):
                item.open(self._view)
            else:
                works.append(self._work(*item))
        return works

    def _work(self, name: str, shard: Any) -> Work:
        """A shard as the executor knows it. Cell by cell, so that the first cells of a run are soon
        done; what nothing waits for fills the time in which later cells have to wait."""
        self._n_to_come -= 1
        stage = self._plan.stage(name)
        place = self._place.get(getattr(shard, "cell", None), 0)  # type: ignore[arg-type]
        place += 0 if self._scheduler.is_waited_for(name, shard) else CELLS_AHEAD
        rank = place * len(self._order) + self._order[name]
        kind, model = sys.intern(f"{name}.{stage.alike(shard)}"), stage.model(self._plan, shard)
        return Work(f"{name}.{shard.key}", Task(name, shard), kind, rank, model)

    def _on_done(self, work: Work, receipt: dict[str, Any]) -> list[Work]:
        stage, shard = work.payload.stage, work.payload.shard
        self._log.commit(stage, shard.key, receipt)
        self._view.note(stage, shard.key, receipt)
        if receipt.get("n_bad"):
            bad = {"n_bad": receipt["n_bad"], "bad": receipt.get("bad", {})}
            self._run.log("not_finite", stage=stage, shard=shard.key, **bad)
        self._progress.tick(stage)
        self._scheduler.done(stage, shard)
        stops = self._should_stop()
        works = [] if stops else self._ready()  # opens gates: rows may stand on what they write
        if (cell := getattr(shard, "cell", None)) is not None:
            self._left[cell] -= 1
            if not self._left[cell] and not stops:
                self._write_part(cell)
        return works

    def _write_part(self, cell: Cell) -> None:
        """A cell is done: its rows, so that the page of a running run has curves. The last cells
        have none, for the tables are next."""
        if any(self._left.values()) and not has_parts(self._run, cell.key):
            self._log.flush()
            write_parts(self._log, cell.key, rows_of_cells(self._view, [cell]))

    def _on_failed(self, work: Work, failure: Failure) -> None:
        stage, shard = work.payload.stage, work.payload.shard
        self._log.quarantine(stage, shard.key, failure.as_dict())
        self._run.log("quarantined", stage=stage, shard=shard.key, error=failure.error)
        self._progress.say(f"quarantined {failure}")
        self._progress.tick(stage, failed=True)

    def _outcome(self) -> Outcome:
        outcome = Outcome(left_out=self._left_out, stopped=False)
        for stage, shards in self._plan.stages.items():
            if stage in self._left_out:
                continue
            outcome.left += sum(shard.key not in self._view.done[stage] for shard in shards)
            for key, record in self._log.quarantined(stage).items():
                outcome.quarantined[f"{stage}/{key}"] = str(record.get("error", ""))
        outcome.stopped = bool(self._should_stop() and outcome.left)
        return outcome
