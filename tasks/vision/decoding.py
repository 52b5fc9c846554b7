"""From the bytes of an image file to its pixels, by Pillow (the extra ``edgesweep[vision]``)."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

from edgesweep.tasks.example import TaskError, by

#: Pillow's modes of images that have no colours
GREY = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class Image:
    """Pixels of 0 to 255.

    Attributes:
        pixels: the last axis of ``shape`` fastest.
        shape: ``(height, width)`` of grey ones, ``(3, height, width)`` of colours.
    """

    pixels: bytes
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{by(self.shape[-2:])} in {'colours' if len(self.shape) == 3 else 'grey'}"


@cache
def pillow() -> Any:
    """Pillow's module ``Image``.

    Raises:
        TaskError: it is not installed.
    """
    try:
        from PIL import Image as module
    except ImportError:
        raise TaskError("images need Pillow: pip install 'edgesweep[vision]'") from None
    return module


def decode(data: bytes, where: str) -> Image:
    """The image in a file's bytes, without its transparency.

    Raises:
        TaskError: none can be read; ``where`` is named.
    """
    module = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", module.DecompressionBombWarning)
            opened = module.open(io.BytesIO(data))
            found = opened.convert("L" if opened.mode in GREY else "RGB")
    except Exception as error:  # decoders of many formats raise what they like
        said = str(error).replace(repr(error), "").split(" <_io.")[0] or type(error).__name__
        raise TaskError(f"{where}: no image can be read: {said}") from None
    width, height = found.size
    if found.mode == "L":
        return Image(found.tobytes(), (height, width))
    bands = (band.tobytes() for band in found.split())
    return Image(b"".join(bands), (3, height, width))
