"""The commands that have to do with clusters, as the command line has them."""

from __future__ import annotations

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
