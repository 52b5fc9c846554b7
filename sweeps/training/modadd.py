"""`edgesweep train model --task modadd`: a one-layer transformer that adds modulo p, to grokking.

The folder holds model.safetensors in TransformerLens's names, as the published networks do, and a
report with the loss of every step; with `--every N` also folders `step-000000`, … of the network on
its way. It is written whole or not at all, and a training that was stopped goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
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
from edgesweep.storage.atomic import to_json
from edgesweep.sweeps.command.train_model import REPORT, SAID, check_out
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.progress import Progress

TASK = "modadd"


@dataclass(frozen=True)
class ModaddRequest:
    """What the command was asked.

    Attributes:
        every: steps between two networks that are kept on the way; 0: none.
        out: the folder.
    """

    how: Modadd
    every: int
    out: Path


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
    way = out.parent / f".{out.name}.steps"
    unfinished = Unfinished(
        out.parent / f".{out.name}.unfinished", digest({**asdict(how), "every": request.every})
    )
    say = _told(request, way, progress)
    try:
        net, losses = train_modadd(how, say, unfinished)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    report = {
        "task": TASK,
        **asdict(how),
        "every": request.every,
        "n_train": len(train.sums),
        "n_test": len(test.sums),
        "train_accuracy": right(net, train),
        "test_accuracy": right(net, test),
    }
    _write(net, {**report, "loss_curve": losses}, way, out)
    unfinished.clear()
    return report


def _told(request: ModaddRequest, way: Path, progress: Progress) -> SayStep:
    """Says how it goes a few times in all, and keeps the networks on the way."""
    how = request.how
    train, test = splits(how.p, how.share)

    def say(net: ModaddNet, losses: list[float]) -> None:
        step = len(losses)
        if step % max(1, how.steps // SAID) == 0:
            progress.say(
                f"step {step} of {how.steps}: loss {losses[-1]:.4g}, "
                f"{right(net, train):.2%} right, {right(net, test):.2%} of those held out"
            )
        if request.every and step % request.every == 0:
            save_modadd(net, way / f"step-{step:06d}")

    return say


def _write(net: ModaddNet, report: dict[str, Any], way: Path, out: Path) -> None:
    """Beside, then moved in whole."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        made = scratch / "made"
        save_modadd(net, made)
        (made / REPORT).write_bytes(to_json(report))
        for step in sorted(way.glob("step-*")):
            shutil.copytree(step, made / step.name)
        made.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(way, ignore_errors=True)
