"""The command `edgesweep`. What is heavy (torch, ray) is imported where it is used, so that help
and refusals come at once.

Exit codes: 0 done; 2 bad config or arguments, nothing written; 3 finished with quarantined shards,
or stopped with work left; 1 anything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesweep.sweeps.command.addresses import check_alone, check_there, finished
from edgesweep.sweeps.command.arguments import (
    Overrides,
    RunDir,
    TakeOver,
    fail,
    local_path,
    run_address,
)
from edgesweep.sweeps.command.clusters import cluster_app
from edgesweep.sweeps.command.training import train_app
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.driver import Outcome
    from edgesweep.sweeps.ending import Page
    from edgesweep.sweeps.launch import Factory, Launch

app = typer.Typer(
    name="edgesweep",
    help="Sweep over attribution methods for circuits in language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(train_app, name="train")
app.add_typer(cluster_app)


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    tasks = "tasks"
    methods = "methods"
    presets = "presets"


def main() -> None:
    """The entry point: every known error is one line."""
    try:
        app(standalone_mode=False)
    except ConfigError as error:
        fail(error, 2)
    except (KeyboardInterrupt, typer.Abort):
        fail("aborted", 3)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():  # none where help was shown instead
            fail(f"{' '.join(message.split())} Try: edgesweep --help", 2)
        sys.exit(2)


@app.command()
def run(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a preset.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=run_address,
            help="Run directory (default runs/<name>), or s3://, gs://, az://…",
        ),
    ] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cells, shards, bytes and passes; write nothing.")
    ] = False,
    take_over: TakeOver = False,
) -> None:
    """Run a config, or resume it if its directory holds it already."""
    loaded = load_config(config, overrides or [])
    if dry_run:
        from edgesweep.sweeps.plan.estimates import describe
        from edgesweep.sweeps.plan.resolve import resolve
        from edgesweep.sweeps.planning import make_plan

        print(describe(make_plan(resolve(loaded))))
        return
    from edgesweep.sweeps.launch import start

    out = out or Path("runs") / loaded.name
    check_alone(out, take_over)
    sys.exit(drive_and_tell(start(loaded, out), take_over=take_over))


@app.command()
def resume(run_dir: RunDir, overrides: Overrides = None, take_over: TakeOver = False) -> None:
    """Finish what is missing of a run; done twice, it changes nothing.

    `--set` takes keys of `execution` that do not change numbers, such as execution.actors=4.
    """
    check_alone(run_dir, take_over)
    if not overrides and (done := finished(run_dir)) is not None:
        print(f"run {done.run_id} in {done.url} is finished\n{done.report}")
        return
    from edgesweep.sweeps.launch import execution_overrides, reopen

    launch = reopen(run_dir, execution_overrides(overrides or []))
    sys.exit(drive_and_tell(launch, take_over=take_over))


def make_page(run: RunDirectory, state: str) -> Iterator[tuple[str, bytes]]:
    """The pages of a run that is about to be in that state."""
    from edgesweep.dashboards.report import pages

    yield from pages(run.address, state)


def drive_and_tell(
    launch: Launch,
    factory: Factory | None = None,
    *,
    take_over: bool = False,
    page: Page | None = make_page,
) -> int:
    """Drive a run to its end and say how it ended; the exit code.

    Args:
        factory: makes the workers; None for the real ones.
        take_over: go on where another driver is at work.
        page: makes the page; None for a run without one.
    """
    from edgesweep.engine.runtime import ExecutorError, NoPlaceError, RunRefused
    from edgesweep.storage import Refused, StorageError
    from edgesweep.sweeps.actor.worker import make_worker
    from edgesweep.sweeps.launch import drive
    from edgesweep.sweeps.progress import make_progress

    progress = make_progress()
    progress.say(f"run {launch.plan.run_id} in {launch.run.url}")
    try:
        factory = factory or make_worker
        outcome = drive(launch, progress, factory, take_over=take_over, page=page)
    except (Refused, RunRefused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StorageError, ExecutorError) as error:
        print(f"error: {error}; {launch.how_to_resume}", file=sys.stderr)
        return 2 if isinstance(error, NoPlaceError) else 1
    except KeyboardInterrupt:
        print(f"aborted; {launch.how_to_resume}", file=sys.stderr)
        return 3
    say_how_it_ended(launch, outcome)
    return outcome.exit_code


def say_how_it_ended(launch: Launch, outcome: Outcome) -> None:
    """What was left out, quarantined or is left, and where the page is."""
    for stage, reason in outcome.left_out.items():
        print(f"left out: {stage} ({reason})")
    for shard, error in outcome.quarantined.items():
        print(f"quarantined: {shard}: {error}")
    if outcome.stopped:
        print(f"stopped with {outcome.left} shards left; {launch.how_to_resume}")
        return
    if outcome.left:
        print(f"{outcome.left} shards are missing; {launch.how_to_resume}")
    print(launch.run.report)


@app.command()
def verify(run_dir: RunDir, overrides: Overrides = None) -> None:
    """Read every byte that is committed, with the run's actors; resume redoes what is not sound.

    `--set` takes keys of `execution`, as for resume.
    """
    from edgesweep.engine.runtime import ExecutorError
    from edgesweep.storage import StorageError
    from edgesweep.sweeps.launch import execution_overrides, verify_run
    from edgesweep.sweeps.progress import make_progress

    progress = make_progress()
    try:
        found = verify_run(run_dir, execution_overrides(overrides or []), progress)
    except (StorageError, ExecutorError) as error:
        fail(error, 1)
    for shard, why in sorted(found.unsound.items()):
        print(f"unsound: {shard}: {why}")
    if found.n_lines:
        print(f"unsound: {found.n_lines} damaged lines of commits; their shards do not count")
    if found.unsound or found.n_lines:
        n = len(found.unsound) + found.n_lines
        print(f"{n} shards are to be redone, of {found.n_shards}: edgesweep resume {run_dir}")
        sys.exit(3)
    print(f"all {found.n_shards} committed shards are as they were committed")


@app.command()
def status(
    run_dir: RunDir, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """How far a run is."""
    from edgesweep.sweeps.command.watching import run_status, status_lines

    found = run_status(run_dir)
    print(
        json.dumps(found, indent=1, sort_keys=True) if as_json else "\n".join(status_lines(found))
    )


@app.command()
def report(
    run_dir: RunDir,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", parser=local_path, help="File (default RUN_DIR/report.html)."
        ),
    ] = None,
) -> None:
    """Write the report page of a run."""
    from edgesweep.dashboards.report import write_report
    from edgesweep.storage import StorageError

    check_there(run_dir)
    try:
        print(write_report(run_dir, output))
    except StorageError as error:
        fail(error, 1)


@app.command()
def pull(
    run_dir: RunDir,
    folder: Annotated[Path, typer.Argument(metavar="DIR", parser=local_path, help="A folder.")],
    scores: Annotated[
        bool, typer.Option("--scores", help="Also what is stored of every input.")
    ] = False,
) -> None:
    """Copy a run to a folder; again, what is new of it."""
    from edgesweep.storage import StorageError
    from edgesweep.sweeps.command.pulling import pull_run

    check_there(run_dir)
    try:
        n_files, n_bytes = pull_run(run_dir, folder, scores=scores)
    except StorageError as error:
        fail(error, 1)
    print(f"{n_files} files, {n_bytes / 1e6:.1f} MB: {folder}")


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    model: Annotated[str | None, typer.Option(help="Whose cost `list methods` shows.")] = None,
) -> None:
    """List models, tasks, methods or presets."""
    from edgesweep.sweeps.command.listing import LISTINGS, methods

    lines = methods(model) if model and kind is Kind.methods else LISTINGS[kind.value]()
    print("\n".join(lines))


if __name__ == "__main__":
    main()
