"""`edgesweep train`: dictionaries, and small networks, the modular-addition transformer too."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgesweep.sweeps.command.arguments import fail, local_path
from edgesweep.sweeps.config.fields import ConfigError

train_app = typer.Typer(help="Train dictionaries, and small networks.", no_args_is_help=True)


class NetworkKind(StrEnum):
    """What can be trained on arrays."""

    mlp = "mlp"
    cnn = "cnn"
    transformer = "transformer"


def sizes(option: str, text: str) -> tuple[int, ...]:
    """`64,32` as numbers."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"{option}: {text!r} is no list of sizes; write them as 64,32")
    return tuple(map(int, parts))


@train_app.command()
def dictionary(
    site: Annotated[str, typer.Option(help="embed, resid3, attn3 or mlp3.")],
    out: Annotated[Path, typer.Option(parser=local_path, help="The file, ending in .safetensors.")],
    model: Annotated[str, typer.Option(help="As in sweep.model.")] = "smollm2-135m",
    kind: Annotated[str, typer.Option(help="topk, relu or pca.")] = "topk",
    features: Annotated[int, typer.Option(min=1)] = 4096,
    k: Annotated[int, typer.Option(min=1, help="Features on at a position (topk).")] = 32,
    l1: Annotated[float, typer.Option(min=0, help="Price of a feature (relu).")] = 0.05,
    steps: Annotated[int, typer.Option(min=1)] = 2000,
    batch: Annotated[int, typer.Option(min=1)] = 1024,
    lr: Annotated[float, typer.Option(min=1e-8)] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    tasks: Annotated[str, typer.Option(help="Tasks, joined by +.")] = "ioi+greater_than+agreement",
    text: Annotated[
        Path | None, typer.Option(help="A text file, one text a line, instead of tasks.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of each task.")] = 1024,
) -> None:
    """Train a dictionary on the activations of a site, and say how well it does."""
    from edgesweep.engine.training import Training
    from edgesweep.storage import StorageError
    from edgesweep.sweeps.command.train import Request, told, train_dictionary
    from edgesweep.sweeps.progress import make_progress

    how = Training(kind, features, k, l1, steps, batch, lr, seed)
    request = Request(model, site, how, (tasks,), text, prompts, out)
    try:
        print(told(train_dictionary(request, make_progress())))
    except StorageError as error:
        fail(error, 1)
    print(out)


@train_app.command()
def model(
    out: Annotated[Path, typer.Option(parser=local_path, help="The folder.")],
    task: Annotated[
        str, typer.Option(help="digits, ./a-folder of images, a JSONL file of arrays, modadd.")
    ] = "digits",
    kind: Annotated[
        NetworkKind | None, typer.Option(help="transformer of modadd; else mlp, if not cnn.")
    ] = None,
    hidden: Annotated[str, typer.Option(help="Width of each dense layer.")] = "64",
    channels: Annotated[str, typer.Option(help="Of each convolution (cnn).")] = "8,16",
    kernel: Annotated[str, typer.Option(help="Side of each convolution's kernels.")] = "3",
    padding: Annotated[int, typer.Option(min=0, help="Of all convolutions.")] = 1,
    pool: Annotated[int, typer.Option(min=1, help="Side of the max-pooling after each.")] = 2,
    activation: Annotated[str, typer.Option(help="relu, gelu or linear.")] = "relu",
    epochs: Annotated[int, typer.Option(min=1)] = 100,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    lr: Annotated[
        float | None, typer.Option(min=1e-8, help="3e-3 if none is given, of modadd 1e-3.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    p: Annotated[int, typer.Option(min=2, help="modadd: sums are modulo p.")] = 29,
    d_model: Annotated[int, typer.Option(min=1, help="modadd.")] = 64,
    heads: Annotated[int, typer.Option(min=1, help="modadd.")] = 4,
    d_mlp: Annotated[int, typer.Option(min=1, help="modadd.")] = 256,
    share: Annotated[float, typer.Option(help="modadd: of all pairs, to train on.")] = 0.5,
    steps: Annotated[int, typer.Option(min=1, help="modadd.")] = 12_000,
    decay: Annotated[float, typer.Option(min=0, help="modadd: of the weights.")] = 1.0,
    checkpoints: Annotated[
        str,
        typer.Option(
            help="Networks on the way that are kept: 'every 500' steps (epochs of mlp and cnn), or "
            "0,100,1000."
        ),
    ] = "",
) -> None:
    """Train an MLP or a small CNN on a task of arrays, or a one-layer transformer on modular
    addition, and say how well it does. What was stopped goes on where it was."""
    from edgesweep.engine.training import NetworkTraining
    from edgesweep.engine.training.modadd import Modadd
    from edgesweep.sweeps.command.train import told
    from edgesweep.sweeps.command.train_model import ModelRequest, train_model
    from edgesweep.sweeps.progress import make_progress
    from edgesweep.sweeps.training.folders import steps_of
    from edgesweep.sweeps.training.modadd import TASK, ModaddRequest, train_sums

    if kind is not None and (task == TASK) != (kind is NetworkKind.transformer):
        raise ConfigError(f"--kind: {kind.value!r} is not for task {task!r}; leave it out")
    if task == TASK:
        try:
            sums = Modadd(p, d_model, heads, d_mlp, share, steps, lr or 1e-3, decay, seed)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        way = steps_of(checkpoints, steps)
        print(told(train_sums(ModaddRequest(sums, out, way), make_progress())))
    else:
        convolutions = sizes("--channels", channels) if kind is NetworkKind.cnn else ()
        how = NetworkTraining(epochs, batch, lr or 3e-3, seed)
        layers = convolutions, sizes("--hidden", hidden)
        kernels = sizes("--kernel", kernel)
        way = steps_of(checkpoints, epochs)
        request = ModelRequest(task, *layers, activation, how, out, kernels, padding, pool, way)
        print(told(train_model(request, make_progress())))
    print(out)
