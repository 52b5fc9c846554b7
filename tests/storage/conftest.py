"""A run directory with one stage of shards, and a way to put it on a disk of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesweep.storage import RunDirectory

PLAN: dict[str, Any] = {
    "run_id": "toy-0123456789ab",
    "identity": {"model": {"name": "tiny", "digest": "aa"}, "seeds": [1, 2], "dtype": "float32"},
    "stages": {"attribute": [f"s{i:03d}" for i in range(4)], "evaluate": 2},
}
CONFIG: dict[str, Any] = {"name": "toy", "seed": 1, "execution": {"actors": 2}}

Disk = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", CONFIG, PLAN)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """disk(size) mounts an empty file system of that size; disk(path, "ro") makes it read-only."""
    mounted: list[Path] = []

    def mount(what: str | Path, mode: str = "rw") -> Path:
        if mode == "ro":
            _mount("-o", "remount,ro", str(what))
            return Path(what)
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={what}", "tmpfs", str(folder))
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip(f"may not mount a small disk here: {done.stderr.strip()}")
