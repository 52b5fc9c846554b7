"""`edgesweep regions`: regions of interest of a site of an image network; tables and a page."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgesweep.sweeps.command.arguments import local_path
from edgesweep.sweeps.command.training import sizes
from edgesweep.sweeps.config.fields import ConfigError

regions_app = typer.Typer()


class Unit(StrEnum):
    """What a site is made of."""

    neuron = "neuron"
    channel = "channel"


class Target(StrEnum):
    """The class whose logit is attributed."""

    predicted = "predicted"
    label = "label"


@regions_app.command()
def regions(
    model: Annotated[str, typer.Option(help="The folder of an MLP or CNN.")],
    task: Annotated[
        str, typer.Option(help="digits, ./a-folder of images, a JSONL file of arrays.")
    ],
    site: Annotated[str, typer.Option(help="input, conv1, hidden0, …")],
    out: Annotated[Path, typer.Option(parser=local_path, help="A new folder.")],
    unit: Annotated[Unit, typer.Option()] = Unit.neuron,
    n_build: Annotated[int, typer.Option(min=2, help="Examples that they are found with.")] = 1000,
    n_eval: Annotated[int, typer.Option(min=2, help="And tested on.")] = 1000,
    patch: Annotated[str, typer.Option(help="zero, mean or counterfactual.")] = "zero",
    target: Annotated[Target, typer.Option()] = Target.predicted,
    partition: Annotated[str, typer.Option(help="Joined by commas; all of them if none.")] = "",
    blocks: Annotated[str, typer.Option(help="Further numbers of blocks of clusterings.")] = "",
    steps: Annotated[int, typer.Option(min=1, help="Of the attribution's path.")] = 1,
    chains: Annotated[int, typer.Option(min=1, help="Of the block model.")] = 2,
    draws: Annotated[int, typer.Option(min=1, help="Of random blocks.")] = 20,
    dead: Annotated[float | None, typer.Option(help="Variance below which a unit is dead.")] = None,
    max_units: Annotated[int, typer.Option(min=2)] = 20_000,
    judge: Annotated[bool, typer.Option(help="Let graph-tool have a look.")] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Find regions of interest of a site: units whose attributions go together, by a weighted block
    model; and what the network does without them, beside clusterings and random blocks."""
    from edgesweep.dashboards.figures.regions_page import regions_page
    from edgesweep.storage.atomic import replace
    from edgesweep.sweeps.progress import make_progress
    from edgesweep.sweeps.regions.study import regions as find

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} is there already; name a new folder")
    how = {"partition": tuple(p.strip() for p in partition.split(","))} if partition else {}
    found = find(
        model,
        task,
        site,
        say=make_progress().say,
        unit=unit.value,
        n_build=n_build,
        n_eval=n_eval,
        patch=patch,
        target=target.value,
        blocks=sizes("--blocks", blocks),
        steps=steps,
        chains=chains,
        draws=draws,
        dead=dead,
        max_units=max_units,
        judged=judge,
        seed=seed,
        **how,
    )
    found.save(out)
    summary = list(found.summary())
    title = f"Regions of {site} of {Path(model).name} on {Path(task).name}"
    page = regions_page(title, summary, found.curves, found.classes, found.attributions)
    replace(out / "report.html", page.encode())
    print("\n".join(summary))
    print(out / "report.html")
