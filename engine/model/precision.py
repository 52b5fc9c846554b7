"""A model's weights stored in the precision that a run computes in.

Weights are mapped from their file, and the processes of a node share its pages, unless loading has
to convert them: then each process has numbers of its own. So they are converted once, into the
cache of the node.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgesweep.engine.model.cache import cache_folder
from edgesweep.engine.model.digests import is_whole, locked, replace
from edgesweep.engine.model.weights import folder_digest

#: less than this is not worth a file
WORTH_SHARING_BYTES = 64 * 2**20
#: what of the disk stays free, as a multiple of what is written
SPARE = 2
_DIGEST = "digest"


def in_precision(folder: Path, digest: str, dtype: torch.dtype) -> Path:
    """The folder itself if its numbers are of that precision, are few, or no disk has room for a
    copy; else the node's copy of it in that precision.

    Args:
        folder: of a model.
        digest: of the folder.
        dtype: of floating-point weights.
    """
    n_bytes, is_other = _converted_bytes(folder, dtype)
    own = cache_folder() / "nodes" / f"{digest}-{str(dtype).removeprefix('torch.')}"
    if not is_other or n_bytes < WORTH_SHARING_BYTES:
        return folder
    with locked(own.with_suffix(".lock")):
        if is_whole(own, _written(own)):
            return own
        if shutil.disk_usage(own.parent).free < SPARE * n_bytes:
            return folder
        replace(own, lambda made: _convert(folder, dtype, made))
    return own


def _converted_bytes(folder: Path, dtype: torch.dtype) -> tuple[int, bool]:
    """Of all floating-point weights in that precision; and whether any is in another."""
    n_numbers, kinds = 0, set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  # no mapping
                part = weights.get_slice(name)
                n_numbers += torch.Size(part.get_shape()).numel()
                kinds.add(part.get_dtype())
    wanted = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16"}.get(dtype, "F16")
    floats = {kind for kind in kinds if kind.lstrip("B").startswith("F")}
    return n_numbers * dtype.itemsize, floats != {wanted}


def _convert(folder: Path, dtype: torch.dtype, made: Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors" and file.is_file():
            shutil.copyfile(file, made / file.name)
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        cast = {k: w.to(dtype) if w.is_floating_point() else w for k, w in weights.items()}
        save_file(cast, made / file.name, {"format": "pt"})
    (made / _DIGEST).write_text(folder_digest(made), encoding="utf-8")


def _written(own: Path) -> str:
    """The digest that it had when it was made."""
    try:
        return (own / _DIGEST).read_text(encoding="utf-8")
    except OSError:
        return ""
