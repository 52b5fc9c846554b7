"""Starting and resuming: from a config or a directory to a driver with its executor."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgesweep.engine.blockmodel import HOW_TO_INSTALL, BlockOptions
from edgesweep.engine.runtime import PoolOptions, Worker, make_executor
from edgesweep.storage import CommitLog, OtherRunError, RunDirectory, StorageError
from edgesweep.storage.atomic import check_disk
from edgesweep.sweeps.config.load import Config, ConfigError, apply_override, parse_config
from edgesweep.sweeps.context import WorkerSettings
from edgesweep.sweeps.driver import Driver, Outcome
from edgesweep.sweeps.ending import Page
from edgesweep.sweeps.mending import other_versions
from edgesweep.sweeps.plan.cells import MeanShard
from edgesweep.sweeps.plan.machine import check_machine
from edgesweep.sweeps.plan.plan import Plan, make_plan
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.progress import Progress
from edgesweep.sweeps.stages.blockmodels import graph_tool_is_here
from edgesweep.sweeps.stopping import Stopper
from edgesweep.sweeps.worker import make_worker

Factory = Callable[[WorkerSettings], Worker]
#: addresses that name the cluster of this machine, whatever it is
OWN_ADDRESSES = ("auto", "local")
PACKAGES = ("edgesweep", "torch", "transformers", "ray", "zarr", "numpy", "pandas", "pyarrow")


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
        return f"resume with: edgesweep resume {self.run.path}{''.join(told)}"


def start(config: Config, out: Path) -> Launch:
    """Plan a run and make its directory, or open the one that holds it.

    Raises:
        ConfigError: nothing was written: the config is wrong, or the directory is another's.
    """
    check_machine(config)
    plan = make_plan(resolve(config))
    graph_tool_is_here(plan)
    document = {**plan.document(), "versions": versions()}
    stored = config.model_dump(mode="json", exclude={"execution": {"graph_tool"}})
    resolved = {**stored, "versions": versions()}
    try:
        return Launch(plan, RunDirectory.create(out, resolved, document))
    except (OtherRunError, StorageError) as error:
        raise ConfigError(str(error)) from None


def reopen(path: Path, execution: dict[str, Any] | None = None) -> Launch:
    """The run of a directory, planned again from its own config.

    Args:
        execution: keys of `execution` that are set otherwise for this time.

    Raises:
        ConfigError: no run there, or its models or tasks are not what they were.
    """
    try:
        run = RunDirectory.open(path)
        raw = dict(run.config)
        raw["execution"] = _execution(raw.get("execution"), execution or {})
        config = parse_config(raw)
        check_machine(config)
        plan = make_plan(resolve(config))
        document = {**plan.document(), "versions": versions()}
        return Launch(plan, RunDirectory.create(path, run.config, document))
    except (OtherRunError, StorageError) as error:
        raise ConfigError(str(error)) from None


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
    check_disk(run.path)
    for line in other_versions(run, CommitLog(run), versions()):
        progress.say(f"warning: {line}")
    reason = "" if graph_tool_is_here(plan) else HOW_TO_INSTALL
    if reason:
        progress.say(f"block models are left out: {reason}")
    stopper = stopper or Stopper(progress.say, launch.how_to_resume)
    settings = worker_settings(plan, run)
    execution = plan.config.execution
    executor = make_executor(
        execution.executor, partial(factory, settings), pool_options(plan), progress.say
    )
    driver = Driver(
        plan,
        run,
        executor,
        progress,
        left_out=reason,
        should_stop=stopper,
        versions=versions(),
        take_over=take_over,
        page=page,
    )
    with stopper.listening():
        try:
            return driver.drive()
        finally:
            executor.close()


def pool_options(plan: Plan) -> PoolOptions:
    """How the executor runs works: of the config, what is no identity."""
    execution = plan.config.execution
    memory = execution.memory_gb
    return PoolOptions(
        actors=execution.actors,
        address=execution.address,
        num_gpus=execution.num_gpus,
        memory_bytes=None if memory is None else int(memory * 1e9),
        max_attempts=execution.max_attempts,
        max_slot_deaths=execution.max_slot_deaths,
        threads=execution.threads,
        work_timeout_s=execution.work_timeout_s,
    )


def worker_settings(plan: Plan, run: RunDirectory) -> WorkerSettings:
    """What every worker is told."""
    config, execution = plan.config, plan.config.execution
    means: dict[str, dict[str, str]] = {}
    for shard in plan.stages["means"]:
        if isinstance(shard, MeanShard):
            means.setdefault(shard.source, {})[shard.group] = shard.key
    return WorkerSettings(
        run=run.path.resolve(),
        models={label: model.source for label, model in plan.resolved.models.items()},
        datasets={d.key: d.model for d in plan.resolved.datasets.values()},
        seeds={d.key: d.seed for d in plan.resolved.datasets.values()},
        mean_shards=means,
        features=plan.resolved.features,
        tasks=config.sweep.task,
        feature_edges=config.features.edges,
        feature_error=config.features.error,
        metrics=plan.metrics(),
        reference_metrics=plan.reference_metrics(),
        device="cuda" if execution.num_gpus > 0 else "cpu",
        dtype=execution.dtype,
        threads=execution.threads,
        micro_batch=execution.micro_batch,
        circuits_per_batch=execution.circuits_per_batch,
        seed=config.seed,
        noise_scale=config.data.noise_scale,
        fractions=config.measures.fractions,
        bootstrap=config.measures.bootstrap,
        level=config.measures.level,
        pooled=config.data.mean_positions == "pooled",
        mean_over=config.data.mean_over,
        block_options=_block_options(config),
        graph_tool=execution.graph_tool,
    )


def _block_options(config: Config) -> BlockOptions | None:
    blocks = config.blocks
    if blocks.fit == "none":
        return None
    return BlockOptions(
        fit=blocks.fit,  # type: ignore[arg-type]
        degree_corrected=blocks.degree_corrected,
        n_iter=blocks.n_iter,
        patience=blocks.patience,
        max_rounds=blocks.max_rounds,
    )


def versions() -> dict[str, str]:
    """What made the run, for its config.yaml and its commit records."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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
