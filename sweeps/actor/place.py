"""Where a worker is, as its receipts tell it."""

from __future__ import annotations

import platform
import socket
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("edgesweep", "torch", "transformers", "ray", "zarr", "numpy", "pandas", "pyarrow")


@cache
def host() -> str:
    """The machine's name."""
    return socket.gethostname()


@cache
def processor() -> str:
    """The CPU's model, or its kind where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(next(models, platform.machine()).split())


@cache
def versions() -> dict[str, str]:
    """What decides bits here: of this Python, and of packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
