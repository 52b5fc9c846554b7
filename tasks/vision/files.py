"""Where images lie: folders of class folders, and parquet files. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from edgesweep.tasks.example import TaskError
from edgesweep.tasks.sampling import BUILD, EVALUATION

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
#: how folders and files are named that are a split
SPLITS = {
    BUILD: ("train", "training", "build"),
    EVALUATION: ("test", "testing", "val", "valid", "validation", "eval", "evaluation"),
}
#: names of columns of parquet files
BYTES, LABEL = ("image", "img"), ("label", "labels", "fine_label")
#: one image in so many of a class is kept for evaluation, where no splits are given
HELD_OUT = 5


@dataclass(frozen=True)
class Entry:
    """One image: where it is, for people; the number of its class; how its bytes are had."""

    where: str
    label: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Collection:
    """All images of a path, by split, and the names of their classes."""

    splits: dict[str, list[Entry]]
    classes: tuple[str, ...]


def collect(path: Path) -> Collection:
    """What lies at a path.

    Raises:
        TaskError: nothing; no images; a class without any; a parquet file without bytes or labels.
    """
    try:
        if path.is_file():
            return _of_parquet(path, {BUILD: [path]})
        if not path.is_dir():
            raise TaskError(f"image set {path} is not there; give a folder or a .parquet file")
        files = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
        return _of_parquet(path, _by_split(files)) if files else _of_folders(path)
    except OSError as error:
        raise TaskError(f"image set {path} cannot be read: {error}") from None


def _split_of(name: str) -> str:
    """The split that a file or folder is named for; "" for none. Hubs write `train-00000-of-1`."""
    word = name.lower().split(".")[0].split("-")[0]
    return next((split for split, names in SPLITS.items() if word in names), "")


def _by_split(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the split that they are named for; all are one split if some say none."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(_split_of(path.name), []).append(path)
    return {BUILD: list(chain(*found.values()))} if "" in found else found


# --- folders ------------------------------------------------------------------------------------


def _of_folders(path: Path) -> Collection:
    folders = _folders(path)
    given = {_split_of(folder.name): folder for folder in folders}
    if given.keys() != set(SPLITS) or len(given) != len(folders):
        classes = _class_names(path, folders)
        return Collection(_dealt(_class_entries(path, classes)), classes)
    classes = tuple(sorted({f.name for split in given.values() for f in _folders(split)}))
    _class_names(path, classes)
    return Collection({s: _class_entries(given[s], classes) for s in SPLITS}, classes)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_names(path: Path, found: Sequence[Path | str]) -> tuple[str, ...]:
    names = tuple(f.name if isinstance(f, Path) else f for f in found)
    if len(names) < 2:
        raise TaskError(
            f"image set {path} has {len(names)} class folders; give one folder of images for each "
            "of two classes or more, or .parquet files"
        )
    return names


def _class_entries(path: Path, classes: Sequence[str]) -> list[Entry]:
    entries: list[Entry] = []
    for label, name in enumerate(classes):
        folder = path / name
        files = sorted(folder.rglob("*")) if folder.is_dir() else []
        files = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not files:
            raise TaskError(
                f"image set {path}: class {name!r} has no image; give it some, or drop it"
            )
        entries += [Entry(str(file), label, file.read_bytes) for file in files]
    return entries


# --- parquet ------------------------------------------------------------------------------------


def _of_parquet(path: Path, files: dict[str, list[Path]]) -> Collection:
    splits = {split: [e for f in some for e in _rows(f)] for split, some in files.items()}
    if len(splits) == 1:
        splits = _dealt(next(iter(splits.values())))
    n = 1 + max((e.label for entries in splits.values() for e in entries), default=-1)
    if n < 2:
        raise TaskError(f"image set {path} has {n} classes; allowed: 2 or more")
    for split, entries in splits.items():
        if lacking := set(range(n)) - {e.label for e in entries}:
            raise TaskError(
                f"image set {path}: class {min(lacking)} has no image in split {split}; give it "
                f"some, or number the classes 0 to {n - 1 - len(lacking)}"
            )
    return Collection(splits, tuple(map(str, range(n))))


def _rows(file: Path) -> list[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq  # not for those who have no such files

    try:
        names = pq.read_schema(file).names
        image, label = (_column(file, names, known) for known in (BYTES, LABEL))
        table = pq.read_table(file, columns=[image, label])
    except pa.ArrowException as error:
        said = " ".join(str(error).split())[:200]
        raise TaskError(f"image set {file} is no readable parquet file: {said}") from None
    images, labels = table[image].combine_chunks(), table[label].to_pylist()
    if pa.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = images.field("bytes")
    if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
        raise TaskError(f"image set {file}: column {image!r} is {images.type}, not bytes of images")
    for row, (data, number) in enumerate(zip(images, labels, strict=True)):
        if type(number) is not int or number < 0:
            raise TaskError(f"image set {file}: row {row} has label {number!r}; allowed: 0, 1, …")
        if not data.is_valid:
            raise TaskError(f"image set {file}: row {row} has no bytes of an image")
    return [
        Entry(f"{file}: row {row}", number, partial(_bytes, images, row))
        for row, number in enumerate(labels)
    ]


def _column(file: Path, names: Sequence[str], known: Sequence[str]) -> str:
    found = next((name for name in known if name in names), None)
    if found is None:
        raise TaskError(
            f"image set {file} has no column {known[0]!r} (columns: {', '.join(names)}); allowed: "
            f"one of {', '.join(BYTES)} with bytes of images, and one of {', '.join(LABEL)}"
        )
    return found


def _bytes(images: Any, row: int) -> bytes:
    data: bytes = images[row].as_py()
    return data


def _dealt(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Every fifth image of each class, in their order, for evaluation."""
    splits: dict[str, list[Entry]] = {BUILD: [], EVALUATION: []}
    seen: dict[int, int] = {}
    for entry in entries:
        seen[entry.label] = number = seen.get(entry.label, 0) + 1
        splits[BUILD if number % HELD_OUT else EVALUATION].append(entry)
    return splits
