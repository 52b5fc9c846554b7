"""`edgesweep train model --task modadd`: a one-layer transformer that adds modulo p, to grokking.

The folder holds model.safetensors in TransformerLens's names, as the published networks do, and a
report with the loss of every step; with `--checkpoints` also the network on its way (`folders`). It
is written whole or not at all, and a training that was stopped goes on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgesweep.engine.training import Unfinished
from edgesweep.engine.training.modadd import (
    Modadd,
    ModaddNet,
    SayStep,
    right,
    save_modadd,
    splits,
    train_modadd,
)
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.progress import Progress
from edgesweep.sweeps.training.folders import SAID, Way, check_out

TASK = "modadd"


@dataclass(frozen=True)
class ModaddRequest:
    """What the command was asked.

    Attributes:
        out: the folder.
        checkpoints: steps after which the network is kept.
    """

    how: Modadd
    out: Path
    checkpoints: tuple[int, ...] = ()


def train_sums(request: ModaddRequest, progress: Progress) -> dict[str, Any]:
    """Train, measure and write.

    Returns:
        The report.

    Raises:
        ConfigError: one line; nothing was written.
    """
    check_out(request.out)
    how, out = request.how, request.out.absolute()
    train, test = splits(how.p, how.share)
    progress.say(f"{len(train.sums)} sums to train on, {len(test.sums)} held out")
    out.parent.mkdir(parents=True, exist_ok=True)
    way, asked = Way(out, request.checkpoints), {**asdict(how), "checkpoints": request.checkpoints}
    unfinished = Unfinished(out.parent / f".{out.name}.unfinished", digest(asked))
    say = _told(request, way, progress)
    try:
        net, losses = train_modadd(how, say, unfinished)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    report = {
        "task": TASK,
        **asdict(how),
        "checkpoints": list(request.checkpoints),
        "n_train": len(train.sums),
        "n_test": len(test.sums),
        "train_accuracy": right(net, train),
        "test_accuracy": right(net, test),
    }
    way.write(partial(save_modadd, net, how), {**report, "loss_curve": losses})
    unfinished.clear()
    return report


def _told(request: ModaddRequest, way: Way, progress: Progress) -> SayStep:
    """Says how it goes a few times in all, and keeps the networks on the way."""
    how = request.how
    train, test = splits(how.p, how.share)

    def say(net: ModaddNet, losses: list[float]) -> None:
        step = len(losses)
        if step and step % max(1, how.steps // SAID) == 0:
            progress.say(
                f"step {step} of {how.steps}: loss {losses[-1]:.4g}, "
                f"{right(net, train):.2%} right, {right(net, test):.2%} of those held out"
            )
        way.keep(step, partial(save_modadd, net, how))

    return say
