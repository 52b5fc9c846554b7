"""The folder that a training writes, whole or not at all, and the networks on its way.

With `--checkpoints` the folder holds `step-000000`, `step-000500`, …, each a model of its own.
Until the training is done they lie beside it, `.NAME.steps`; one that was stopped writes those
again that came after what it goes on from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesweep.storage.atomic import to_json
from edgesweep.sweeps.config.fields import ConfigError

#: in the folder: what the network was trained on, and how well it does
REPORT = "training.json"
#: lines of the loss curve that are said
SAID = 10
#: checkpoints of a training at most
MOST_KEPT = 10_000

#: writes a model into a folder
Save = Callable[[Path], None]


def check_out(out: Path) -> None:
    """Refuse what cannot be written, before the work and not after."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} is there already; name a new folder")
    above = next(p for p in out.absolute().parents if p.exists())
    if not above.is_dir():
        raise ConfigError(f"--out: {above} is a file; choose another folder")


def steps_of(text: str, last: int) -> tuple[int, ...]:
    """The steps that `--checkpoints` names, ascending: `every 500` (with the first, 0, and the
    last), or `0,100,1000`.

    Raises:
        ConfigError: it names none, or one that the training has not.
    """
    words = text.replace(",", " ").split()
    if not words:
        return ()
    every = words[0] == "every"
    numbers = words[1:] if words[0] in ("every", "at") else words
    if not numbers or not all(map(str.isdecimal, numbers)) or (every and len(numbers) > 1):
        raise ConfigError(
            f"--checkpoints: {text!r} names no steps; allowed: 'every 500', or '0,100,1000'"
        )
    found = {int(number) for number in numbers}
    if every and found != {0}:
        found = {*range(0, last, *found), last}
    elif every or max(found) > last:
        raise ConfigError(
            f"--checkpoints: {text!r} of a training of {last} steps; allowed: "
            + ("every 1 or more" if every else f"0 to {last}")
        )
    if len(found) > MOST_KEPT:
        raise ConfigError(
            f"--checkpoints: {text!r} are {len(found)} networks; allowed: at most {MOST_KEPT}"
        )
    return tuple(sorted(found))


@dataclass(frozen=True)
class Way:
    """The networks that are kept of a training whose folder is `out`, after so many steps."""

    out: Path
    steps: tuple[int, ...]

    @property
    def _beside(self) -> Path:
        return self.out.parent / f".{self.out.name}.steps"

    def keep(self, step: int, save: Save) -> None:
        """After a step, if the network of then is to be kept."""
        if step in self.steps:
            save(self._beside / _named(step))

    def write(self, save: Save, report: dict[str, Any]) -> None:
        """The folder: beside, then moved in whole."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{self.out.name}-", dir=self.out.parent))
        try:
            made = scratch / "made"
            save(made)
            (made / REPORT).write_bytes(to_json(report))
            for step in self.steps:
                shutil.copytree(self._beside / _named(step), made / _named(step))
            check_out(self.out)  # hours may have gone by
            made.replace(self.out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(self._beside, ignore_errors=True)


def _named(step: int) -> str:
    return f"step-{step:06d}"
