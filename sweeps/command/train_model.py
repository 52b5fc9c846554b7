"""`edgesweep train model`: an MLP or a small CNN that tells the classes of a task of arrays.

It learns the classes (`good`) of the task's build split, and is measured on the other. The folder,
config.json and safetensors, is written whole or not at all, with a report and the loss of every
epoch beside them; it is a model like any other (`sweep.model: ./folder`). A training that was
stopped lies beside the folder, `.NAME.unfinished`, and the same command goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet
from edgesweep.engine.training import (
    NetworkTraining,
    Say,
    Unfinished,
    accuracy,
    save_network,
    train_network,
)
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.progress import Progress
from edgesweep.sweeps.training.folders import SAID, Way, check_out
from edgesweep.tasks import ArrayExample, Example, TaskError, labelled


@dataclass(frozen=True)
class ModelRequest:
    """What the command was asked.

    Attributes:
        channels: of each convolution; none for an MLP.
        hidden: width of each dense layer.
        out: the folder.
        kernel: side of each convolution's kernels; one for all.
        padding, pool: of all convolutions.
        checkpoints: epochs after which the network is kept.
    """

    task: str
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    activation: str
    how: NetworkTraining
    out: Path
    kernel: tuple[int, ...] = (3,)
    padding: int = 1
    pool: int = 2
    checkpoints: tuple[int, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Clean sides `[inputs, *shape]` and their first right answers `[inputs]`."""

    x: Tensor
    labels: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        arrays = [e.array(e.clean) for e in examples if isinstance(e, ArrayExample)]
        labels = torch.tensor([e.good[0] for e in examples])
        return cls(torch.from_numpy(np.stack(arrays).astype(np.float32)), labels)


def train_model(request: ModelRequest, progress: Progress) -> dict[str, Any]:
    """Train, measure and write.

    Returns:
        The report.

    Raises:
        ConfigError: one line; nothing was written.
    """
    check_out(request.out)
    try:
        given = labelled(request.task)
        if not all(given):
            split = "build" if not given[0] else "eval"
            raise TaskError(f"--task: {request.task!r} has no example of split {split}")
        config = _config(request, [*given[0], *given[1]])
        train, test = map(Examples.of, given)
        unfinished = Unfinished(*_kept(request, given))
        way = Way(request.out.absolute(), request.checkpoints)
        say = _told(test, request.how.epochs, way, progress)
        progress.say(f"{len(train.x)} examples to train on, {len(test.x)} held out")
        net, losses = train_network(config, train.x, train.labels, request.how, say, unfinished)
    except (TaskError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    told = {k: v for k, v in asdict(request).items() if k not in ("how", "out")}
    report = {
        **{k: list(v) if isinstance(v, tuple) else v for k, v in told.items()},
        **asdict(request.how),
        "n_train": len(train.x),
        "n_test": len(test.x),
        "train_accuracy": accuracy(net, train.x, train.labels),
        "test_accuracy": accuracy(net, test.x, test.labels),
    }
    way.write(partial(save_network, net), {**report, "loss_curve": losses})
    unfinished.clear()
    return report


def _config(request: ModelRequest, examples: Sequence[Example]) -> FeedForwardConfig:
    first = examples[0]
    assert isinstance(first, ArrayExample)
    config = FeedForwardConfig(
        input_shape=first.shape,
        channels=request.channels,
        kernel_size=request.kernel[0] if len(request.kernel) == 1 else request.kernel,
        padding=request.padding,
        pool=request.pool,
        hidden=request.hidden,
        activation=request.activation,
        n_output=1 + max(max(*e.good, *e.bad) for e in examples),
    )
    config.widths()
    return config


def _kept(request: ModelRequest, given: tuple[list[Example], list[Example]]) -> tuple[Path, str]:
    """Where an unfinished training lies, and what it is of."""
    out = request.out.absolute()
    data = digest([[e.value() for e in split] for split in given])
    told = {**asdict(request), "out": "", "data": data}
    return out.parent / f".{out.name}.unfinished", digest(told)


def _told(test: Examples, epochs: int, way: Way, progress: Progress) -> Say:
    """Says the loss, and how many of the held out are right, a few times in all, and keeps the
    networks on the way."""

    def say(net: FeedForwardNet, losses: list[float]) -> None:
        epoch = len(losses)
        if epoch and epoch % max(1, epochs // SAID) == 0:
            right = accuracy(net, test.x, test.labels)
            progress.say(
                f"epoch {epoch} of {epochs}: loss {losses[-1]:.4g}, "
                f"{right:.2%} right of those held out"
            )
        way.keep(epoch, partial(save_network, net))

    return say
