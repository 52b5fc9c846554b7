"""The answer sets, worked out by hand for each way to split a year."""

from __future__ import annotations

import re

import pytest

from edgesweep.tasks import TaskError, build_task
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.greater_than import year_split

# split: (digits of the stem, digits of an answer, first digits of the patch after the stem)
BY_HAND = {
    "1 digit": (2, 1, "01"),
    "2 digits": (2, 2, "01"),
    "3 digits": (3, 1, "0"),
    "3 digits from the right": (1, 3, "001"),
}


def _decoded(tokenizer, ids: tuple[int, ...]) -> list[str]:
    return [tokenizer.decode([i]).strip() for i in ids]


@pytest.mark.parametrize("split", BY_HAND)
def test_answers_follow_the_tokens_of_a_year(split, make_number_splitter):
    tokenizer = make_number_splitter(split)
    n_stem, width, tail = BY_HAND[split]
    for prompt in build_task("greater_than", tokenizer, 30, 0, seed=0).build:
        start, stem = re.findall("[0-9]+", prompt.clean_text)
        compared = start[n_stem : n_stem + width]
        answers = [f"{n:0{width}d}" for n in range(10**width)]
        if width == 3:  # the years end with 1899
            answers = [answer for answer in answers if answer <= "899"]
        assert stem == start[:n_stem]
        assert _decoded(tokenizer, prompt.good) == [a for a in answers if a > compared]
        assert _decoded(tokenizer, prompt.bad) == [a for a in answers if a < compared]
        assert re.findall("[0-9]+", prompt.patch_text)[0] == stem + tail


@pytest.mark.parametrize("split", ["1 digit", "2 digits", "3 digits"])
def test_labels_are_the_tokens_of_the_year(split, make_number_splitter):
    tokenizer = make_number_splitter(split)
    n_stem, width, _ = BY_HAND[split]
    for prompt in build_task("greater_than", tokenizer, 12, 0, seed=0).build:
        start, stem = re.findall("[0-9]+", prompt.clean_text)
        text = {label: tokenizer.decode([prompt.clean[i]]) for label, i in prompt.labels.items()}
        assert text["YY"].strip() == start[n_stem : n_stem + width]
        assert stem.endswith(text["XX"].strip())
        assert text["end"] == text["XX"]
        assert prompt.labels["XX"] + 1 == prompt.labels["YY"] < prompt.labels["end"]
        assert prompt.clean_text.split()[1] == text["noun"].strip()


def test_smollm2_answers_are_decades(smollm2):
    for prompt in build_task("greater_than", smollm2, 30, 0, seed=0).build:
        start, _ = re.findall("[0-9]+", prompt.clean_text)
        decade = int(start[2])
        assert _decoded(smollm2, prompt.good) == [str(n) for n in range(decade + 1, 10)]
        assert _decoded(smollm2, prompt.bad) == [str(n) for n in range(decade)]
        assert _decoded(smollm2, (prompt.clean[prompt.labels["YY"]],)) == [start[2]]


def test_patch_changes_only_the_digits_after_the_stem(make_number_splitter):
    tokenizer = make_number_splitter("1 digit")
    for prompt in build_task("greater_than", tokenizer, 30, 0, seed=0).build:
        yy = prompt.labels["YY"]
        assert prompt.clean[:yy] == prompt.patch[:yy]
        assert prompt.clean[yy] != prompt.patch[yy]
        assert prompt.clean[yy + 2 :] == prompt.patch[yy + 2 :]


def test_years_written_in_another_way_are_neither_drawn_nor_answers(make_number_splitter):
    tokenizer = make_number_splitter("2 digits, 1776 and 1750 whole")
    prompts = build_task("greater_than", tokenizer, 400, 0, seed=0).build
    in_1700s = [prompt for prompt in prompts if prompt.clean_text.endswith(" 17")]
    assert in_1700s
    for prompt in in_1700s:
        assert not re.search("1776|1750", prompt.clean_text)
        assert not {"76", "50"} & set(_decoded(tokenizer, prompt.good + prompt.bad))
        assert len(prompt.good + prompt.bad) == 100 - 2 - 1
    others = [prompt for prompt in prompts if prompt.clean_text.endswith(" 16")]
    assert {len(prompt.good + prompt.bad) for prompt in others} == {99}


def test_the_split_is_the_most_frequent_one(make_number_splitter):
    split = year_split(Encoder(make_number_splitter("2 digits, 1776 and 1750 whole")))
    assert (split.stem, split.width, len(split.written)) == (2, 2, 898)


def test_whole_years_are_one_clear_error(make_number_splitter):
    with pytest.raises(TaskError, match="makes one token of a year such as 1743"):
        build_task("greater_than", make_number_splitter("whole"), 4, 4, seed=0)
