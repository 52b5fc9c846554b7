"""What every kind of input has: a clean and a patch side, good and bad answers, a task.

An example is a pair of runs: ``clean``, the input of interest, and ``patch``, the baseline, of the
same shape, so that place p of one can be replaced by place p of the other. ``good`` and ``bad`` are
outputs of the network: next tokens of a language model, classes of a classifier. A text or a
sequence of token ids is a ``Prompt`` (``prompt``); numbers of a shape are an ``ArrayExample``, and
pixels an ``ImageExample``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


class TaskError(ValueError):
    """A task that cannot be had: one line that says what is wrong, the value, what to do."""


@dataclass(frozen=True)
class Example:
    """One clean and patch pair with its answers.

    Attributes:
        clean, patch: the numbers of both sides, equally many.
        good: numbers of the right outputs, at least one, none twice.
        bad: of the wrong ones, at least one, none of them in ``good``.
        task: name of the member task that made it, such as ``ioi``, also within a mixture.
        template: name of its kind within the task. Examples of one task, template and length are
            aligned place by place, so per-position means are taken over them.

    Raises:
        TaskError: where the fields contradict the above.
    """

    clean: tuple[Any, ...]
    patch: tuple[Any, ...]
    good: tuple[int, ...]
    bad: tuple[int, ...]
    task: str
    template: str

    def __post_init__(self) -> None:
        if fault := self.fault():
            raise TaskError(fault)

    def fault(self) -> str:
        """What is wrong with the fields; empty where nothing is."""
        return answers_fault(self)

    def __len__(self) -> int:
        """Positions that a network reads it at."""
        return len(self.clean)

    def unchanged(self) -> int:
        """Positions before the first at which clean and patch differ; 0 where none does."""
        pairs = enumerate(zip(self.clean, self.patch, strict=True))
        return next((i for i, (a, b) in pairs if a != b), 0)

    def value(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class ArrayExample(Example):
    """Numbers of a shape: an image, a vector. It is read at one position.

    Attributes:
        clean, patch: the numbers, the last axis fastest.
        shape: of both.
    """

    clean: tuple[float, ...]
    patch: tuple[float, ...]
    shape: tuple[int, ...]

    def fault(self) -> str:
        for key, numbers in (("clean", self.clean), ("patch", self.patch)):
            if len(numbers) != math.prod(self.shape):
                return f"{key} has {len(numbers)} numbers; allowed: {by(self.shape)}"
            if not all(map(math.isfinite, numbers)):
                return f"{key} has a number that is not finite"
        return super().fault()

    def __len__(self) -> int:
        return 1

    def unchanged(self) -> int:
        return 0

    def array(self, side: Sequence[float]) -> np.ndarray:
        """A side as float64 ``[*shape]``."""
        return np.asarray(side, dtype=np.float64).reshape(self.shape)


@dataclass(frozen=True)
class ImageExample(ArrayExample):
    """Pixels, a byte each: one of value v is the number v / 255.

    Attributes:
        clean, patch: the pixels, the last axis fastest.
        shape: ``(height, width)``, or ``(3, height, width)``.
    """

    clean: bytes  # type: ignore[assignment]
    patch: bytes  # type: ignore[assignment]

    def fault(self) -> str:
        for key, pixels in (("clean", self.clean), ("patch", self.patch)):
            if len(pixels) != math.prod(self.shape):
                return f"{key} has {len(pixels)} pixels; allowed: {by(self.shape)}"
        return answers_fault(self)

    def array(self, side: Sequence[float]) -> np.ndarray:
        assert isinstance(side, bytes)
        return np.frombuffer(side, dtype=np.uint8).reshape(self.shape) / 255

    def value(self) -> dict[str, Any]:
        """Its fields as plain values, the pixels in base64."""
        sides = {"clean": self.clean, "patch": self.patch}
        told = {key: base64.b64encode(pixels).decode() for key, pixels in sides.items()}
        return {**super().value(), **told}


def image_of(fields: dict[str, Any]) -> ImageExample:
    """The example whose ``value`` this is."""
    sides = {key: base64.b64decode(fields[key]) for key in ("clean", "patch")}
    return ImageExample(**{**fields, **sides})


def answers_fault(example: Example) -> str:
    """What is wrong with the answers."""
    for key, ids in (("good", example.good), ("bad", example.bad)):
        if not ids:
            return f"{key} is empty; give at least one answer token"
        if len(set(ids)) != len(ids):
            return f"{key} has the same answer token twice: {list(ids)}"
    shared = sorted(set(example.good) & set(example.bad))
    if shared:
        return f"good and bad share answer tokens {shared}; an answer is either good or bad"
    return ""


def flat(value: Any) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The shape of nested lists of numbers, and the numbers.

    Raises:
        TaskError: anything else, or rows of different lengths.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (), (float(value),)
    if not isinstance(value, list) or not value:
        raise TaskError("not nested lists of numbers")
    parts = [flat(item) for item in value]
    if len({shape for shape, _ in parts}) > 1:
        raise TaskError("its rows are not of one length")
    return (len(value), *parts[0][0]), tuple(x for _, numbers in parts for x in numbers)


def by(shape: Sequence[int]) -> str:
    """A shape as people write it: ``8×8``."""
    return "×".join(map(str, shape))
