"""The task of a set of images: which class is it?

Clean is an image, patch one of another class from the same split, drawn with the seed; good is
clean's class and bad patch's, numbers of the network's outputs. A pixel of value v is the number
v / 255. Images are decoded when they are drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgesweep.tasks.example import ArrayExample, ImageExample, TaskError, by
from edgesweep.tasks.prompt import ArrayTask, TaskInfo
from edgesweep.tasks.sampling import BUILD, EVALUATION
from edgesweep.tasks.vision.decoding import Image, decode
from edgesweep.tasks.vision.files import Collection, Entry, collect


def is_images(name: str) -> bool:
    """Whether a task's name is the path of a set of images."""
    return name.endswith(".parquet") or ("/" in name and not name.endswith((".jsonl", ".txt")))


def image_task(path: Path) -> ArrayTask:
    """The task of the images at a path; its name is the folder's, or the file's stem.

    Raises:
        TaskError: see ``files.collect``; the first image cannot be read.
    """
    found = collect(path)
    first = _decoded(found.splits[BUILD][0])
    name = path.stem if path.suffix == ".parquet" else path.resolve().name
    classes = ", ".join(found.classes[:4]) + (", …" if len(found.classes) > 4 else "")
    info = TaskInfo(
        name=name,
        description=f"the class of an image of {path} ({first}; {classes})",
        clean=f"an image of {found.classes[0]}",
        patch=f"an image of {found.classes[1]}",
        good="0",
        bad="1",
    )
    draw = partial(_draw, name, found, first.shape)
    return ArrayTask(info, first.shape, len(found.classes), draw, found.classes)


def _draw(
    name: str, found: Collection, shape: tuple[int, ...], split: str, n: int | None, seed: int
) -> Sequence[ArrayExample]:
    """See ``ArrayTask.draw``."""
    pool = _Pool(found.splits[split], shape)
    n = len(pool.entries) if n is None else n
    if n > len(pool.entries):
        key = {BUILD: "n_build", EVALUATION: "n_eval"}[split]
        raise TaskError(f"task {name} has {len(pool.entries)} images for {key} = {n}; lower it")
    digest = hashlib.sha256(f"images\x1f{seed}\x1f{split}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    return [pool.example(i, name, rng) for i in rng.sample(range(len(pool.entries)), n)]


class _Pool:
    """The images of a split, decoded once each."""

    def __init__(self, entries: Sequence[Entry], shape: tuple[int, ...]) -> None:
        self.entries, self._shape = entries, shape
        self._pixels: dict[int, bytes] = {}

    def example(self, clean: int, name: str, rng: random.Random) -> ImageExample:
        """An image beside one of another class."""
        good = self.entries[clean].label
        patch = rng.randrange(len(self.entries))
        while (bad := self.entries[patch].label) == good:
            patch = rng.randrange(len(self.entries))
        sides = self._read(clean), self._read(patch)
        return ImageExample(*sides, (good,), (bad,), name, "image", self._shape)

    def _read(self, number: int) -> bytes:
        if number not in self._pixels:
            entry = self.entries[number]
            image = _decoded(entry)
            if image.shape != self._shape:
                raise TaskError(
                    f"{entry.where} is {image}, and the first image of the set is "
                    f"{by(self._shape[-2:])} in {'colours' if len(self._shape) == 3 else 'grey'}; "
                    "make all alike"
                )
            self._pixels[number] = image.pixels
        return self._pixels[number]


def _decoded(entry: Entry) -> Image:
    return decode(entry.read(), entry.where)
