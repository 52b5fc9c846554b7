"""Sets of images: folders of class folders and parquet files; what is wrong is one line."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgesweep.engine.network.batch import PromptBatch
from edgesweep.tasks import (
    ImageExample,
    TaskError,
    build_task,
    check_task_name,
    example_of,
    labelled,
)

pillow = pytest.importorskip("PIL.Image", reason="the extra edgesweep[vision] is not installed")

SHAPE = (4, 5)


def pixels(number: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def png(number: int, shape=SHAPE) -> bytes:
    file = io.BytesIO()
    pillow.fromarray(pixels(number, shape)).save(file, "png")
    return file.getvalue()


def put(path, number: int, shape=SHAPE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(number, shape))


def table(path, numbers, labels, image="image", label="label") -> None:
    rows = [{"bytes": png(n), "path": None} for n in numbers]
    pq.write_table(pa.table({image: rows, label: labels}), path)


@pytest.fixture
def pets(tmp_path):
    """Ten grey images of each of two classes."""
    for number in range(20):
        put(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number:02d}.png", number)
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".hidden").mkdir()
    return tmp_path


def known(numbers) -> dict[bytes, int]:
    return {pixels(n).tobytes(): n for n in numbers}


def test_a_folder_of_class_folders(pets):
    data = build_task("./pets", None, 16, 4, 0, base=pets, shape=SHAPE, n_vocab=2)
    assert (data.name, data.members) == ("pets", ("pets",))
    number = known(range(20))
    assert sorted(number[e.clean] for e in data.evaluation) == [8, 9, 18, 19]  # each fifth
    assert len({e.clean for e in (*data.build, *data.evaluation)}) == 20
    for split in (data.build, data.evaluation):
        cleans = {e.clean for e in split}
        for example in split:
            assert example.good == (number[example.clean] % 2,)
            assert example.bad == (1 - example.good[0],) == (number[example.patch] % 2,)
            assert example.patch in cleans
    again = build_task("pets/", None, 16, 4, 0, base=pets, shape=SHAPE)
    assert again == data
    assert build_task("./pets", None, 16, 4, 1, base=pets, shape=SHAPE) != data


def test_splits_that_are_given(pets):
    (pets / "pets").rename(pets / "train")
    put(pets / "val" / "cat" / "a.png", 50)
    put(pets / "val" / "dog" / "b.png", 51)
    (pets / "set").mkdir()
    for split in ("train", "val"):
        (pets / split).rename(pets / "set" / split)
    train, test = labelled("./set", pets)
    assert len(train) == 20
    assert sorted(known([50, 51])[e.clean] for e in test) == [50, 51]


@pytest.mark.parametrize("image", ["image", "img"])
def test_parquet_files_of_a_hub(image, tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    table(tmp_path / "set" / "data" / "train-00000-of-00002.parquet", range(3), [0, 1, 2], image)
    table(tmp_path / "set" / "data" / "train-00001-of-00002.parquet", range(3, 6), [0, 1, 2], image)
    table(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", range(6, 9), [2, 1, 0], image)
    train, test = labelled("./set", tmp_path)
    number = known(range(9))
    assert {number[e.clean]: e.good[0] for e in train} == {n: n % 3 for n in range(6)}
    assert {number[e.clean]: e.good[0] for e in test} == {6: 2, 7: 1, 8: 0}
    table(tmp_path / "one.parquet", range(10), [0, 1] * 5)
    train, test = labelled("one.parquet", tmp_path)
    assert (len(train), sorted(e.good[0] for e in test)) == (8, [0, 1])
    assert test[0].task == "one"


def test_colours_come_first_and_pixels_are_shares_of_255(tmp_path):
    for number in range(10):
        put(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", number, (*SHAPE, 3))
    train, _ = labelled("./set", tmp_path)
    by_pixels = {pixels(n, (*SHAPE, 3)).transpose(2, 0, 1).tobytes(): n for n in range(10)}
    batch = PromptBatch.make(train)
    assert batch.clean.shape == (8, 3, *SHAPE)
    for example, row in zip(train, batch.clean, strict=True):
        expected = pixels(by_pixels[example.clean], (*SHAPE, 3)).transpose(2, 0, 1) / 255
        assert np.array_equal(row.numpy(), expected)
    side = batch.side([e.patch for e in train])
    assert np.array_equal(side.numpy(), batch.patch.numpy())


def test_an_example_comes_back_from_json():
    example = ImageExample(b"\x00\x01", b"\xff\x02", (0,), (1,), "t", "image", (1, 2))
    assert example_of(json.loads(json.dumps(example.value()))) == example
    with pytest.raises(TaskError, match="patch has 3 pixels; allowed: 1×2"):
        ImageExample(b"\x00\x01", b"\xff\x02\x03", (0,), (1,), "t", "image", (1, 2))


def cut(folder) -> None:
    file = folder / "pets" / "cat" / "00.png"
    file.write_bytes(file.read_bytes()[:60])


def no_class(folder) -> None:
    (folder / "pets" / "emu").mkdir()


def other_size(folder) -> None:
    put(folder / "pets" / "dog" / "03.png", 3, (5, 5))


def other_depth(folder) -> None:
    put(folder / "pets" / "dog" / "03.png", 3, (*SHAPE, 3))


def one_class(folder) -> None:
    (folder / "pets" / "dog").rename(folder / "dog")


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        (cut, r"pets/cat/00\.png: no image can be read: "),
        (no_class, r"image set \S+pets: class 'emu' has no image; give it some, or drop it"),
        (other_size, r"03\.png is 5×5 in grey, and the first image of the set is 4×5 in grey"),
        (other_depth, r"03\.png is 4×5 in colours, and the first image of the set is 4×5 in grey"),
        (one_class, "has 1 class folders; give one folder of images for each of two classes"),
    ],
)
def test_a_folder_that_is_wrong_is_one_line(hurt, message, pets):
    hurt(pets)
    with pytest.raises(TaskError, match=message) as caught:
        build_task("./pets", None, 16, 4, 0, base=pets, shape=SHAPE)
    assert "\n" not in str(caught.value)


WRONG = {
    "no image": (
        {"x": [1], "label": [0]},
        r"has no column 'image' \(columns: x, label\); allowed:",
    ),
    "no label": ({"image": [b"x"], "y": [0]}, "has no column 'label'"),
    "no bytes": (
        {"image": ["a.png"], "label": [0]},
        "column 'image' is string, not bytes of images",
    ),
    "null": ({"image": [b"x", None], "label": [0, 1]}, "row 1 has no bytes of an image"),
    "text": ({"image": [b"x"], "label": ["cat"]}, "row 0 has label 'cat'; allowed: 0, 1, …"),
    "gap": ({"image": [b"x"] * 9, "label": [0, 2, 3] * 3}, "class 1 has no image in split build"),
    "one": ({"image": [b"x"], "label": [0]}, "has 1 classes; allowed: 2 or more"),
    "corrupt": ({"image": [b"x"] * 10, "label": [0, 1] * 5}, "row 0: no image can be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_parquet_file_that_is_wrong_is_one_line(case, tmp_path):
    columns, message = WRONG[case]
    pq.write_table(pa.table(columns), tmp_path / "set.parquet")
    with pytest.raises(TaskError, match=message):
        check_task_name("set.parquet", tmp_path)


def test_paths_that_are_no_sets(pets):
    (pets / "bad.parquet").write_bytes(b"PAR1 and no more")
    (pets / "pets").rename(pets / "digits")
    for name, message in (
        ("./nothing", r"image set \S+nothing is not there; give a folder or a \.parquet file"),
        ("bad.parquet", "is no readable parquet file"),
        ("./digits", "has the name of the built-in task 'digits' .*rename the file, as my-digits"),
        ("./" + "x" * 500, "cannot be read: .*too long"),
    ):
        with pytest.raises(TaskError, match=message):
            check_task_name(name, pets)


def test_more_than_there_are(pets):
    with pytest.raises(TaskError, match="task pets has 4 images for n_eval = 5; lower it"):
        build_task("./pets", None, 1, 5, 0, base=pets, shape=SHAPE)
    with pytest.raises(
        TaskError, match="task pets is arrays of 4×5 and this model reads arrays of 8×8"
    ):
        build_task("./pets", None, 1, 1, 0, base=pets, shape=(8, 8))


def test_without_pillow_it_says_what_to_install(pets, monkeypatch):
    from edgesweep.tasks.vision import decoding

    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    decoding.pillow.cache_clear()
    with pytest.raises(TaskError, match=r"images need Pillow: pip install 'edgesweep\[vision\]'"):
        check_task_name("./pets", pets)
    decoding.pillow.cache_clear()
