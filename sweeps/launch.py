"""Starting and resuming: from a config or a directory to a driver with its executor."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgesweep.engine.runtime import Event, PoolOptions, Worker, make_executor
from edgesweep.storage import CommitLog, OtherRunError, RunDirectory, StorageError
from edgesweep.sweeps.actor.admission import check_seen, decisive_versions
from edgesweep.sweeps.actor.context import DatasetSource, WorkerSettings
from edgesweep.sweeps.actor.place import versions
from edgesweep.sweeps.actor.worker import make_worker
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import Config, apply_override, parse_config
from edgesweep.sweeps.driver import Driver, Outcome
from edgesweep.sweeps.ending import Page
from edgesweep.sweeps.mending import other_versions
from edgesweep.sweeps.plan.estimates import is_small
from edgesweep.sweeps.plan.machine import check_folder, check_machine
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.progress import Progress
from edgesweep.sweeps.soundness.verify import Verified, checker, verify
from edgesweep.sweeps.stopping import Stopper

Factory = Callable[[WorkerSettings], Worker]
#: addresses that name the cluster of this machine, whatever it is
OWN_ADDRESSES = ("auto", "local")


@dataclass
class Launch:
    """A run that is ready to be driven."""

    plan: Plan
    run: RunDirectory

    @property
    def how_to_resume(self) -> str:
        """The command. What a directory does not keep for the next, it says again."""
        execution = self.plan.config.execution
        again = {"graph_tool": execution.graph_tool, "address": execution.address}
        told = [
            f" --set execution.{key}={shlex.quote(value)}"
            for key, value in again.items()
            if value is not None and value not in OWN_ADDRESSES
        ]
        return f"resume with: edgesweep resume {self.run.url}{''.join(told)}"


def start(config: Config, out: Path | str) -> Launch:
    """Plan a run and make its directory, or open the one that holds it.

    Raises:
        ConfigError: nothing was written: the config is wrong, or the directory is another's.
    """
    check_machine(config)
    check_folder(config, out)
    plan = make_plan(resolve(config))
    _left_out(plan)
    document = {**plan.document(), "versions": versions()}
    stored = config.model_dump(mode="json", exclude={"execution": {"graph_tool"}})
    resolved = {**stored, "versions": versions()}
    try:
        return Launch(plan, RunDirectory.create(out, resolved, document))
    except (OtherRunError, StorageError) as error:
        raise ConfigError(str(error)) from None


def reopen(path: Path | str, execution: dict[str, Any] | None = None) -> Launch:
    """The run of a directory, planned again from its own config.

    Args:
        execution: keys of `execution` that are set otherwise for this time.

    Raises:
        ConfigError: no run there, or its models or tasks are not what they were.
    """
    try:
        run = RunDirectory.open(path)
        config = stored_config(run, execution or {})
        check_machine(config)
        check_folder(config, path)
        plan = make_plan(resolve(config))
        document = {**plan.document(), "versions": versions()}
        return Launch(plan, RunDirectory.create(path, run.config, document))
    except (OtherRunError, StorageError) as error:
        raise ConfigError(str(error)) from None


def stored_config(run: RunDirectory, execution: dict[str, Any]) -> Config:
    """The config of a run, with some keys of `execution` set otherwise. Raises ConfigError."""
    raw = dict(run.config)
    raw["execution"] = _execution(raw.get("execution"), execution)
    return parse_config(raw)


def _execution(stored: Any, given: dict[str, Any]) -> dict[str, Any]:
    """How a directory and the command say to run. A directory may come from somebody else: it
    starts no program here, and joins no cluster but that of this machine."""
    if not isinstance(stored, dict):
        return given
    kept = {key: value for key, value in stored.items() if key != "graph_tool"} | given
    address = kept.get("address")
    if "address" not in given and address is not None and address not in OWN_ADDRESSES:
        raise ConfigError(
            f"execution.address: {str(address)!r} stands in the run directory, and whoever runs "
            f"that cluster runs code here; if it is yours: --set execution.address={address}; "
            "else --set execution.address=null to run on this machine"
        )
    return kept


def drive(
    launch: Launch,
    progress: Progress,
    factory: Factory = make_worker,
    stopper: Stopper | None = None,
    take_over: bool = False,
    page: Page | None = None,
) -> Outcome:
    """Do what is left of a run, and end it with its tables and its page. Raises Refused, Fenced,
    StorageError, ExecutorError, KeyboardInterrupt."""
    plan, run = launch.plan, launch.run
    run.check_disk()
    for line in other_versions(run, CommitLog(run), versions()):
        progress.say(f"warning: {line}")
    left_out = _left_out(plan)
    for reason in dict.fromkeys(left_out.values()):
        stages = [plan.stage(name).title for name, why in left_out.items() if why == reason]
        progress.say(f"{', '.join(stages)}: left out: {reason}")
    stopper = stopper or Stopper(progress.say, launch.how_to_resume)
    settings = worker_settings(plan, run)
    execution = plan.config.execution

    def tell(event: Event) -> None:
        run.log(event.kind, **event.facts)
        progress.say(event.text)

    make, options = partial(factory, settings), pool_options(plan.config)
    executor = make_executor(execution.executor, make, options, tell, partial(check_seen, run))
    driver = Driver(
        plan,
        run,
        executor,
        progress,
        left_out=left_out,
        should_stop=stopper,
        versions=versions(),
        take_over=take_over,
        page=page,
        small=is_small(plan),
    )
    with stopper.listening():
        try:
            return driver.drive()
        finally:
            executor.close()


def verify_run(path: Path | str, execution: dict[str, Any], progress: Progress) -> Verified:
    """Reads all that is committed of a run with its own executor; no model is needed.

    Args:
        execution: keys of `execution` that are set otherwise.

    Raises:
        ConfigError: no run there, or a key of `execution` that cannot be.
        ExecutorError, StorageError: see `soundness.verify`.
    """
    try:
        run = RunDirectory.open(path)
    except StorageError as error:
        raise ConfigError(str(error)) from None
    config = stored_config(run, execution)
    options, kind = pool_options(config), config.execution.executor
    executor = make_executor(
        kind, checker(run.address), options, lambda event: progress.say(event.text)
    )
    try:
        return verify(run, executor, progress)
    finally:
        executor.close()


def _left_out(plan: Plan) -> dict[str, str]:
    """The stages of a plan that this machine cannot do, with the reason. Raises ConfigError for an
    interpreter that the config names and that is none."""
    reasons = {name: stage.lacks(plan) for name, stage in plan.all_stages.items()}
    return {name: why for name, why in reasons.items() if why and plan.stages[name]}


def pool_options(config: Config) -> PoolOptions:
    """How the executor runs works: of the config, what is no identity."""
    execution = config.execution
    memory = execution.memory_gb
    return PoolOptions(
        actors=execution.actors,
        address=execution.address,
        num_gpus=execution.gpus,
        memory_bytes=None if memory is None else int(memory * 1e9),
        max_attempts=execution.max_attempts,
        max_slot_deaths=execution.max_slot_deaths,
        threads=execution.threads,
        max_lost=execution.max_lost,
        work_timeout_s=execution.work_timeout_s,
        start_timeout_s=execution.start_timeout_s,
        backup=execution.backup,
    )


def worker_settings(plan: Plan, run: RunDirectory) -> WorkerSettings:
    """What every worker is told."""
    resolved = plan.resolved
    return WorkerSettings(
        run=run.address,
        config=plan.config,
        sources={label: model.source for label, model in resolved.models.items()},
        datasets={d.key: DatasetSource(d.model, d.seed) for d in resolved.datasets.values()},
        nodes=resolved.nodes,
        stages=plan.all_stages,
        nonce=run.nonce,
        versions=decisive_versions(),
    )


def execution_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`--set` of `resume`: keys of `execution` alone. Raises ConfigError."""
    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override)
    others = [key for key in values if key != "execution"]
    if others:
        raise ConfigError(
            f"--set {others[0]}: a run's config is fixed; resume takes execution.KEY=VALUE only"
        )
    found = values.get("execution", {})
    if not isinstance(found, dict):
        raise ConfigError(f"--set execution: {found!r} is not a mapping; give execution.KEY=VALUE")
    return dict(found)
