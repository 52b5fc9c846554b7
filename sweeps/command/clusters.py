"""The commands that have to do with machines, as the command line has them."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgesweep.sweeps.config.fields import ConfigError

cluster_app = typer.Typer()

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key.")
]


class ClusterKind(StrEnum):
    """What a file can start a cluster with."""

    ray = "ray"
    kuberay = "kuberay"
    slurm = "slurm"
    sky = "sky"


@cluster_app.command("cluster-file")
def cluster_file(
    kind: Annotated[ClusterKind, typer.Argument(help="What starts the cluster.")],
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Whose actors it is to hold.")
    ] = "smoke",
    out: Annotated[Path | None, typer.Option("--out", help="File (default: printed).")] = None,
    overrides: Overrides = None,
) -> None:
    """A file that starts a cluster, filled in for a config; it says what to fill in by hand."""
    from edgesweep.sweeps.command.cluster_file import cluster_file as filled_in

    text = filled_in(kind.value, config, overrides or [])
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written: {error.strerror}") from None
    print(out)


@cluster_app.command()
def submit(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A file in this folder, or a preset.")
    ],
    cluster: Annotated[str, typer.Option(metavar="URL", help="Of Ray's jobs: http://HEAD:8265.")],
    out: Annotated[
        str, typer.Option("--out", help="Run directory as every node sees it: a path or address.")
    ],
    overrides: Overrides = None,
) -> None:
    """Run a config as a job of a Ray cluster; submitted again, it resumes."""
    from edgesweep.engine.runtime import ExecutorError
    from edgesweep.sweeps.command.submit import submit as hand_in

    try:
        job = hand_in(config, cluster, out, overrides or [], warn)
    except ExecutorError as error:
        warn(f"error: {error}")
        sys.exit(1)
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    print(f"follow it: RAY_AUTH_MODE={mode} ray job logs --address {cluster} --follow {job}")


@cluster_app.command()
def stage(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A file or preset.")],
    to: Annotated[str, typer.Option("--to", metavar="DIR_OR_URL", help="That all nodes see.")],
    overrides: Overrides = None,
) -> None:
    """Put a config's models where nodes find them that see neither their folders nor a hub."""
    from edgesweep.storage import StorageError
    from edgesweep.sweeps.command.staging import stage_models

    try:
        for line in stage_models(config, to, overrides or []):
            print(line)
    except StorageError as error:
        warn(f"error: {error}")
        sys.exit(1)


@cluster_app.command()
def doctor(
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="HOST:PORT of Ray, or auto.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="A run directory that all nodes are to see.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="CONFIG", help="Whose models all nodes are to have.")
    ] = None,
) -> None:
    """What this machine has and what each missing thing disables; or every node of a cluster."""
    from edgesweep.sweeps.command.doctor import examine

    if cluster is None and (out or config):
        raise ConfigError("--out and --config are about the nodes of a cluster; give --cluster")
    if cluster is not None:
        sys.exit(_doctor_of(cluster, out, config))
    for line in examine():
        print(line)


def _doctor_of(cluster: str, out: str | None, config: str | None) -> int:
    from edgesweep.engine.runtime import ExecutorError
    from edgesweep.storage import Refused, StorageError
    from edgesweep.sweeps.command.cluster_doctor import examine_cluster, said_of, table

    if out is not None and "://" not in out:
        out = str(Path(out).resolve())
    try:
        nodes = examine_cluster(cluster, out, **said_of(config, out))
    except (ExecutorError, StorageError) as error:
        warn(f"error: {error}")
        return 2 if isinstance(error, Refused) else 1
    for line in table(nodes):
        print(line)
    return int(any(node.faults for node in nodes))


def warn(line: str) -> None:
    print(line, file=sys.stderr)
