"""Tasks of arrays: the digits, and files of nested lists; splits that are given."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgesweep.tasks import ArrayExample, TaskError, build_task, example_of, labelled
from edgesweep.tasks.files.userfile import BUILD, EVAL

SHAPE = (2, 3)


def line(number: int, **more) -> dict:
    clean = [[number, 0.5, 1], [2, 3, 4]]
    return {"clean": clean, "patch": [[0, 0, 0]] * 2, "good": number % 2, "bad": 2, **more}


@pytest.fixture
def build(tmp_path):
    def write_and_build(lines, n_build=1, n_eval=1, shape=SHAPE, n_vocab=3, seed=0):
        text = "\n".join(json.dumps(given) for given in lines)
        (tmp_path / "mine.jsonl").write_text(text, encoding="utf-8")
        how = {"base": tmp_path, "shape": shape, "n_vocab": n_vocab}
        return build_task("mine.jsonl", None, n_build, n_eval, seed, **how)

    return write_and_build


def test_digits_are_the_images_of_their_classes():
    data, images = build_task("digits", None, 200, 100, 3, shape=(8, 8)), load_digits()
    places = enumerate(zip(images.data / 16, images.target, strict=True))
    known = {tuple(x): (i, y) for i, (x, y) in places}
    for split, fold in ((data.build, range(4)), (data.evaluation, [4])):
        assert len({e.clean for e in split}) == len(split)
        for example in split:
            for numbers, answers in ((example.clean, example.good), (example.patch, example.bad)):
                place, label = known[numbers]
                assert answers == (label,)
                assert place % 5 in fold
            assert example.good != example.bad


def test_digits_follow_the_seed_and_not_the_other_split():
    def of(seed, n_build=50, n_eval=20):
        return build_task("digits", None, n_build, n_eval, seed, shape=(8, 8))

    assert of(0) == of(0)
    assert of(0).build != of(1).build
    assert of(0, n_build=3).evaluation == of(0).evaluation


def test_all_digits_are_there_to_train_on():
    train, test = labelled("digits")
    assert (len(train), len(test)) == (1438, 359)
    assert not {e.clean for e in train} & {e.clean for e in test}


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("digits", {"shape": (28, 28)}, "arrays of 8×8 and this model reads arrays of 28×28"),
        ("digits", {}, "arrays of 8×8 and this model reads tokens"),
        ("digits", {"shape": (8, 8), "n_vocab": 2}, "10 classes and this model 2 outputs"),
        ("ioi", {"shape": (8, 8)}, "ioi is text and this model reads arrays of 8×8; use digits"),
    ],
)
def test_tasks_of_another_kind_are_refused(name, how, message):
    with pytest.raises(TaskError, match=message):
        build_task(name, None, 1, 1, 0, **how)


def test_too_few_images_are_refused():
    with pytest.raises(TaskError, match="digits has 359 images for n_eval = 360; lower it"):
        build_task("digits", None, 1, 360, 0, shape=(8, 8))


def test_lines_of_nested_lists_are_arrays(build):
    (example,) = build([line(5)], n_eval=0).build
    assert example.clean == (5.0, 0.5, 1.0, 2.0, 3.0, 4.0)
    assert (example.shape, example.good, example.bad, example.task) == (SHAPE, (1,), (2,), "mine")
    assert len(example) == 1
    assert example_of(json.loads(json.dumps(example.value()))) == example


def test_given_splits_are_kept(build):
    lines = [line(i, split=EVAL if i < 3 else BUILD) for i in range(12)]
    for seed in range(3):
        data = build(lines, 5, 3, seed=seed)
        assert {e.clean[0] for e in data.evaluation} == {0, 1, 2}
        assert min(e.clean[0] for e in data.build) >= 3
    with pytest.raises(TaskError, match=r"12 prompts .*9 of split build.*too few"):
        build(lines, 5, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": [[1, 2], [3, 4]]}, "clean has the shape 2×2; this model reads 2×3"),
        ({"clean": [[1, 2], [3]]}, "its rows are not of one length"),
        ({"patch": "x"}, "patch is the text .*this model reads arrays: give nested lists of 2×3"),
        ({"good": "three"}, "good is the text .*numbers of its outputs"),
        ({"bad": 3}, "bad has token id 3; allowed: 0 to 2"),
        ({"clean": [[0, 0, 0]] * 2}, "clean and patch are the same 6 numbers"),
        ({"split": "test"}, 'split is "test"; allowed: build, eval'),
        ({"clean": [[float("inf"), 0, 0]] * 2}, "clean has a number that is not finite"),
    ],
)
def test_a_bad_line_says_what_is_allowed(change, message, build):
    with pytest.raises(TaskError, match=f"line 1: .*{message}"):
        build([line(1) | change], n_eval=0)


def test_a_split_on_some_lines_only_is_refused(build):
    with pytest.raises(TaskError, match="line 2: key 'split' is missing; give it on every line"):
        build([line(1, split=BUILD), line(2)])


def test_arrays_are_nothing_for_a_model_of_tokens(build):
    with pytest.raises(TaskError, match="allowed: a text or a list of token ids"):
        build([line(1)], shape=None, n_eval=0)


def test_an_array_has_as_many_numbers_as_its_shape():
    with pytest.raises(TaskError, match="clean has 5 numbers; allowed: 2×3"):
        ArrayExample((0.0,) * 5, (0.0,) * 6, (0,), (1,), "t", "line", SHAPE)


def test_a_file_to_train_on_says_its_splits(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps(line(i, split=(BUILD, EVAL)[i % 2])) for i in range(6)))
    train, test = labelled("mine.jsonl", tmp_path)
    assert [np.asarray(e.clean)[0] for e in train + test] == [0, 2, 4, 1, 3, 5]
    file.write_text(json.dumps(line(0)))
    with pytest.raises(TaskError, match="key 'split' is missing; training needs build and eval"):
        labelled("mine.jsonl", tmp_path)
    with pytest.raises(TaskError, match="task ioi is no task of arrays; use digits"):
        labelled("ioi")
