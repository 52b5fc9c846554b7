"""The driver: what is left of the plan goes to the executor, and what comes back is committed.

1. Claim an epoch; from then on an older driver commits nothing.
2. Clear what killed writers left, make every array, un-commit what is not what was committed.
3. Wave by wave: todo = plan − commits, of shards whose needs are met. The driver alone commits.
4. Between waves: masks of circuits from the folded scores, masks of block ablations from the fits.
5. Tables, from what is committed, then the page and the manifest (ending.py).

The driver's memory grows with shards, not with scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from edgesweep.engine.runtime import Executor, Failure, Work
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.atomic import remove_strays
from edgesweep.storage.blocks import move_unsound
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.ending import Page, end_run
from edgesweep.sweeps.mending import mend_records
from edgesweep.sweeps.notfinite import plain, told
from edgesweep.sweeps.plan.cells import (
    STAGES,
    WAVES,
    AttributeShard,
    BlockShard,
    BootstrapShard,
    Cell,
    DictionaryShard,
    EvaluateShard,
    MeanShard,
    ProbeShard,
    ReduceShard,
    ReferenceShard,
    Shard,
)
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.points import ranking_of
from edgesweep.sweeps.prepare import prepare, write_candidates, write_masks
from edgesweep.sweeps.progress import Progress
from edgesweep.sweeps.stages.blockmodels import (
    chain_shards,
    fitted_circuit,
    read_fitted,
    write_block_masks,
)
from edgesweep.sweeps.stages.probes import prepare_probes, truth_of
from edgesweep.sweeps.tables.tables import Tables

BLOCK_STAGES = ("blocks", "block_evaluate")
NAMES = {
    ("dictionaries",): "training of dictionaries",
    ("means",): "mean patches",
    ("attribute",): "attribution",
    ("reduce",): "reduction",
    ("refine",): "attribution of candidates",
    ("reduce_refined",): "reduction of candidates",
    ("blocks", "evaluate", "probe", "bootstrap"): "evaluation",
    ("block_evaluate",): "block ablation",
}
#: a model that is right less often than this on two-way questions cannot do the task
POOR_ACCURACY = 0.6


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
        left_out: block stages' reason for being left out, if they are.
        should_stop: polled between shards.
        take_over: go on where another driver is at work.
        page: makes the page at the end; None for a run without one.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunDirectory,
        executor: Executor,
        progress: Progress,
        *,
        left_out: str = "",
        should_stop: Callable[[], bool] = lambda: False,
        versions: dict[str, str] | None = None,
        take_over: bool = False,
        page: Page | None = None,
    ) -> None:
        self._plan, self._run, self._executor = plan, run, executor
        self._progress, self._should_stop, self._page = progress, should_stop, page
        self._log, self._take_over = CommitLog(run, versions), take_over
        used = [s for s in BLOCK_STAGES if plan.stages[s]] if left_out else []
        self._left_out = dict.fromkeys(used, left_out)

    def drive(self) -> Outcome:
        """Everything that is left of the plan. Raises Busy, Fenced, StorageError, ExecutorError."""
        with self._log.driving(self._take_over, left_out=self._left_out) as end:
            outcome = self._drive()
            end |= {
                "left": outcome.left,
                "quarantined": sorted(outcome.quarantined),
                "stopped": outcome.stopped,
            }
            self._run.log("driver_ended", epoch=self._log.epoch, **end)
        return outcome

    def _drive(self) -> Outcome:
        self._run.log("driver_started", epoch=self._log.epoch, left_out=self._left_out)
        mend_records(self._run, self._log, self._progress.say)
        remove_strays(self._run.path, self._log.epoch_began)
        prepare(self._run, self._plan)
        self._check_what_is_there()
        for wave in WAVES:
            if self._should_stop():
                break
            self._before(wave)
            self._run_wave(wave)
        outcome = self._outcome()
        if not outcome.stopped:
            tables = self._tables().build()
            end_run(self._run, self._log, tables, outcome.state, self._page)
            for line in told(self._plan, self._log):
                self._progress.say(line)
        return outcome

    # --- before work ---------------------------------------------------------------------------
    def _check_what_is_there(self) -> None:
        """Data that is not what was committed is redone; what was given up is tried again."""
        for stage in STAGES:
            for shard in move_unsound(self._run, self._log, stage):
                self._run.log("unsound", stage=stage, shard=shard)
                self._progress.say(f"{stage}/{shard} is not what was committed; it is redone")
            for shard in self._log.quarantined(stage):
                self._log.clear_quarantine(stage, shard)

    def _before(self, wave: Sequence[str]) -> None:
        """What a wave's workers read that the driver writes."""
        if not {"refine", "evaluate", "block_evaluate"} & set(wave):
            return
        committed = Committed(self._run, self._log)
        if "refine" in wave:
            for cell in self._ranked():
                write_candidates(committed, self._plan, cell)
        if "evaluate" in wave:
            for cell in self._reduced():
                write_masks(committed, self._plan, cell)
                prepare_probes(committed, self._plan, cell, self._reduced())
        if "block_evaluate" in wave and "block_evaluate" not in self._left_out:
            for cell in self._reduced():
                fitted = read_fitted(committed, self._plan, cell, self._log)
                if fitted is not None:
                    write_block_masks(self._run, self._plan, cell, fitted)

    def _reduced(self) -> list[Cell]:
        """Cells whose aggregates are all committed."""
        missing = {
            s.cell
            for stage in ("reduce", "reduce_refined")
            for s in self._missing(stage)
            if isinstance(s, ReduceShard)
        }
        return [cell for cell in self._plan.cells if cell not in missing]

    def _missing(self, stage: str) -> list[Shard]:
        done = set(self._log.keys(stage))
        return [s for s in self._plan.stages[stage] if s.key not in done]

    def _ranked(self) -> list[Cell]:
        """Refined cells whose edges are ranked."""
        reduced = set(self._reduced())
        return [c for c in self._plan.cells if c.is_refined and ranking_of(c) in reduced]

    # --- waves ---------------------------------------------------------------------------------
    def _run_wave(self, wave: Sequence[str]) -> None:
        stages = [stage for stage in wave if stage not in self._left_out]
        planned = sum(len(self._plan.stages[stage]) for stage in stages)
        if not planned:
            return
        works = [Work(f"{s.stage}.{s.key}", s, _kind(s)) for s in self._todo(stages)]
        n_done = sum(len(self._log.keys(stage)) for stage in stages)
        self._progress.begin(NAMES[tuple(wave)], planned, n_done)
        try:
            self._executor.run(works, self._on_done, self._on_failed, self._should_stop)
        finally:
            self._progress.end()
        if "evaluate" in wave:
            self._report_skill()

    def _todo(self, stages: Sequence[str]) -> Iterator[Shard]:
        done = {stage: set(self._log.keys(stage)) for stage in STAGES}
        reduced = set(self._reduced())
        needs = _Needs(self._plan, done, reduced)
        committed = cache(lambda: Committed(self._run, self._log))
        fitted = cache(lambda cell: fitted_circuit(committed(), self._plan, cell).key)
        for stage in stages:
            for shard in self._plan.stages[stage]:
                if shard.key not in done[stage] and needs.met(shard):
                    yield _with_circuit(shard, fitted)

    def _on_done(self, work: Work, receipt: dict[str, Any]) -> None:
        shard: Any = work.payload
        self._log.commit(shard.stage, shard.key, receipt)
        if receipt.get("n_bad"):
            bad = {"n_bad": receipt["n_bad"], "bad": receipt.get("bad", {})}
            self._run.log("not_finite", stage=shard.stage, shard=shard.key, **bad)
        self._progress.tick()

    def _on_failed(self, work: Work, failure: Failure) -> None:
        shard: Any = work.payload
        self._log.quarantine(shard.stage, shard.key, failure.as_dict())
        self._run.log("quarantined", stage=shard.stage, shard=shard.key, error=failure.error)
        self._progress.say(f"quarantined {failure}")
        self._progress.tick(failed=True)

    # --- after work ----------------------------------------------------------------------------
    def _outcome(self) -> Outcome:
        outcome = Outcome(left_out=self._left_out, stopped=False)
        for stage in STAGES:
            if stage in self._left_out:
                continue
            done = set(self._log.keys(stage))
            outcome.left += sum(s.key not in done for s in self._plan.stages[stage])
            for shard, record in self._log.quarantined(stage).items():
                outcome.quarantined[f"{stage}/{shard}"] = str(record.get("error", ""))
        outcome.stopped = bool(self._should_stop() and outcome.left)
        return outcome

    def _tables(self) -> Tables:
        return Tables(self._run, self._plan, self._log, self._reduced())

    def _report_skill(self) -> None:
        """The full model's own accuracy and metric, and a warning where it cannot do the task."""
        for skill in self._tables().skills():
            self._run.log("skill", **plain(skill))
            drawn = f", seed {skill['seed']}" if len(self._plan.config.seeds) > 1 else ""
            line = (
                f"{skill['model']} on {skill['task']}{drawn}: accuracy {skill['accuracy']:.2f}, "
                f"logit difference {skill['logit_diff']:.3g}"
            )
            self._progress.say(line)
            if not (skill["accuracy"] >= POOR_ACCURACY and skill["logit_diff"] > 0):
                self._progress.say(
                    f"warning: {skill['model']} cannot do {skill['task']}; its circuits explain "
                    "little"
                )


def _with_circuit(shard: Shard, fitted: Callable[[Cell], str]) -> Shard:
    """Block shards are told which circuit is fitted, now that the scores have decided it."""
    if isinstance(shard, BlockShard):
        return dataclasses.replace(shard, circuit=fitted(shard.cell))
    if isinstance(shard, EvaluateShard) and not shard.circuits:
        return dataclasses.replace(shard, circuits=(fitted(shard.cell),))
    return shard


def _kind(shard: Shard) -> str:
    """What shards have in common that take about as long as each other."""
    if isinstance(shard, DictionaryShard):
        return f"{shard.stage}.{shard.key}"
    if isinstance(shard, MeanShard | ReferenceShard):
        return f"{shard.stage}.{shard.source}"
    probed = shard.kind if isinstance(shard, ProbeShard) else ""
    return f"{shard.stage}.{shard.cell.key}.{probed}"


class _Needs:
    """Whether what a shard reads is committed."""

    def __init__(self, plan: Plan, done: dict[str, set[str]], reduced: set[Cell]) -> None:
        self._plan, self._done, self._reduced = plan, done, reduced
        means = [s for s in plan.stages["means"] if isinstance(s, MeanShard)]
        self._without_means = {s.source for s in means if s.key not in done["means"]}
        dictionaries = plan.stages["dictionaries"]
        missing = [s for s in dictionaries if s.key not in done["dictionaries"]]
        models = {s.model for s in missing if isinstance(s, DictionaryShard)}
        self._untrained = {plan.resolved.features[model].digest for model in models}

    def met(self, shard: Shard) -> bool:
        if isinstance(shard, AttributeShard):
            ranked = not shard.cell.is_refined or ranking_of(shard.cell) in self._reduced
            return ranked and self._values(shard.cell, shard.cell.build_patch)
        if isinstance(shard, ReduceShard | BootstrapShard):
            return set(shard.leaves) <= self._done[shard.leaf_stage]
        if isinstance(shard, ReferenceShard):
            trained = shard.features not in self._untrained
            return trained and self._patch(shard.eval_patch, shard.source)
        if isinstance(shard, EvaluateShard):
            patch = self._values(shard.cell, shard.condition.eval_patch)
            fitted = not shard.condition.needs_fit or self._fitted(shard.cell)
            return shard.cell in self._reduced and patch and fitted
        if isinstance(shard, ProbeShard):
            truth = truth_of(self._plan, shard.cell) if shard.kind == "interpolation" else None
            ready = {shard.cell} | ({truth} - {None}) <= self._reduced
            return ready and self._patch(shard.patch, shard.cell.dataset)
        if isinstance(shard, MeanShard):
            return shard.features not in self._untrained
        return isinstance(shard, DictionaryShard) or shard.cell in self._reduced

    def _values(self, cell: Cell, patch: str) -> bool:
        """Whether a cell's dictionaries and patch values are there."""
        trained = cell.features not in self._untrained
        return trained and self._patch(patch, cell.source)

    def _patch(self, kind: str, source: str) -> bool:
        return kind != "mean" or source not in self._without_means

    def _fitted(self, cell: Cell) -> bool:
        return all(s.key in self._done["blocks"] for s in chain_shards(self._plan, cell))
