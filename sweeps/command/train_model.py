"""`edgesweep train model`: an MLP or a small CNN that tells the classes of a task of arrays.

It learns the classes (`good`) of the task's build split, and is measured on the other. The folder,
config.json and safetensors, is written whole or not at all, with a report beside them; it is a
model like any other (`sweep.model: ./folder`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgesweep.engine.network.feedforward_net import FeedForwardConfig
from edgesweep.engine.training import NetworkTraining, accuracy, save_network, train_network
from edgesweep.storage.atomic import to_json
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.progress import Progress
from edgesweep.tasks import ArrayExample, Example, TaskError, labelled

#: in the folder: what the network was trained on, and how well it does
REPORT = "training.json"


@dataclass(frozen=True)
class ModelRequest:
    """What the command was asked.

    Attributes:
        channels: of each convolution; none for an MLP.
        hidden: width of each dense layer.
        out: the folder.
    """

    task: str
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    activation: str
    how: NetworkTraining
    out: Path


def train_model(request: ModelRequest, progress: Progress) -> dict[str, Any]:
    """Train, measure and write.

    Returns:
        The report.

    Raises:
        ConfigError: one line; nothing was written.
    """
    _check_out(request.out)
    try:
        train, test = labelled(request.task)
        config = _config(request, [*train, *test])
    except (TaskError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if not train or not test:
        raise ConfigError(f"--task: {request.task!r} has no example of split build, or of eval")
    progress.say(f"{len(train)} examples to train on, {len(test)} held out")

    def say(epoch: int, loss: float) -> None:
        if epoch % max(1, request.how.epochs // 10) == 0:
            progress.say(f"epoch {epoch} of {request.how.epochs}: loss {loss:.4g}")

    net = train_network(config, *_tensors(train), request.how, say)
    report = {
        "task": request.task,
        "channels": list(request.channels),
        "hidden": list(request.hidden),
        "activation": request.activation,
        **asdict(request.how),
        "train_accuracy": accuracy(net, *_tensors(train)),
        "test_accuracy": accuracy(net, *_tensors(test)),
    }
    _write(net, report, request.out)
    return report


def _check_out(out: Path) -> None:
    """Refuse what cannot be written, before the work and not after."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} is there already; name a new folder")
    above = next(p for p in out.absolute().parents if p.exists())
    if not above.is_dir():
        raise ConfigError(f"--out: {above} is a file; choose another folder")


def _config(request: ModelRequest, examples: Sequence[Example]) -> FeedForwardConfig:
    first = examples[0]
    assert isinstance(first, ArrayExample)
    config = FeedForwardConfig(
        input_shape=first.shape,
        channels=request.channels,
        hidden=request.hidden,
        activation=request.activation,
        n_output=1 + max(max(*e.good, *e.bad) for e in examples),
    )
    config.widths()
    return config


def _tensors(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """The clean sides, flat, and their first right answers."""
    x = torch.tensor([e.clean for e in examples], dtype=torch.float32)
    return x, torch.tensor([e.good[0] for e in examples])


def _write(net: Any, report: dict[str, Any], out: Path) -> None:
    """Beside, then moved in whole."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        save_network(net, scratch / "made")
        (scratch / "made" / REPORT).write_bytes(to_json(report))
        (scratch / "made").replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
