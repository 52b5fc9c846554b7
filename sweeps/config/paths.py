"""Paths in a config: made absolute, and patterns of models expanded."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesweep.sweeps.config.features import Features
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.schema import KNOWN
from edgesweep.tasks import absolute_task

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config


def with_absolute_paths(config: Config, base: Path) -> Config:
    """The same with what is relative to a folder found there.

    Raises:
        ConfigError: a pattern that matches nothing.
        OSError, RuntimeError, ValueError: a path that no disk can have.
    """
    models = tuple(path for name in config.sweep.model for path in _models(name, base))
    tasks = tuple(absolute_task(name, base) for name in config.sweep.task)
    sweep = config.sweep.model_copy(update={"model": models, "task": tasks})
    features = {name: _absolute_set(given, base) for name, given in config.features.items()}
    circuits = tuple(
        name if name == KNOWN else str((base / Path(name).expanduser()).resolve())
        for name in config.evaluate.circuits or ()
    )
    evaluate = config.evaluate.model_copy(update={"circuits": circuits or None})
    told = {"sweep": sweep, "features": features, "evaluate": evaluate}
    return config.model_copy(update=told)


def _absolute_set(given: Features, base: Path) -> Features:
    found = {
        site: _absolute_file(what, base) if isinstance(what, str) else what
        for site, what in given.dictionaries.items()
    }
    return given.model_copy(update={"dictionaries": found})


def _absolute_file(name: str, base: Path) -> str:
    """What is there, or can only be a path; words and hub names stay. `{layer}` is any layer, and
    what is in an archive is there if the archive is."""
    archive, in_archive, _ = name.partition(".zip/")
    found = f"{archive}.zip" if in_archive else name
    pattern = glob.escape(found).replace("{layer}", "*")
    is_path = name.startswith((".", "/", "~")) or any(glob.iglob(pattern, root_dir=base))
    return str((base / Path(name).expanduser()).resolve()) if is_path else name


def _models(name: str, base: Path) -> Iterator[str]:
    """A model; or all folders that a pattern, `./grok/step-*`, matches, in the order of the numbers
    in their names. Raises ConfigError where it matches none."""
    if not glob.has_magic(name) or (base / Path(name).expanduser()).is_dir():
        yield _absolute_model(name, base)
        return
    matching = glob.iglob(str(Path(name).expanduser()), root_dir=base)
    found = [path for path in (base / match for match in matching) if path.is_dir()]
    if not found:
        raise ConfigError(
            f"sweep.model: {name!r} matches no folder of {base.resolve()}; give the folders of "
            "models, as edgesweep train model --checkpoints writes them"
        )
    yield from (str(p.resolve()) for p in sorted(found, key=_by_numbers))


def _by_numbers(path: Path) -> list[tuple[int, int, str]]:
    """So that step-900 comes before step-1000."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def _absolute_model(name: str, base: Path) -> str:
    """A folder that is there, or what can only be a path; aliases and hub names stay."""
    is_path = name.startswith((".", "/", "~")) or name.endswith(".gguf")
    path = base / Path(name).expanduser()
    is_folder = path.is_dir()
    return str(path.resolve()) if is_path or (is_folder and "/" in name) else name
