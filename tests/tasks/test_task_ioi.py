from __future__ import annotations

import pytest

from edgesweep.tasks import TaskError, build_task
from edgesweep.tasks.ioi import NAMES


@pytest.fixture(params=["words", "smollm2"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def test_good_is_the_name_said_once_and_bad_the_one_said_twice(tokenizer):
    for prompt in build_task("ioi", tokenizer, 32, 0, seed=0).build:
        (good,), (bad,) = prompt.good, prompt.bad
        assert prompt.clean.count(good) == 1
        assert prompt.clean.count(bad) == 2
        assert prompt.clean[prompt.labels["IO"]] == good
        assert prompt.clean[prompt.labels["S1"]] == prompt.clean[prompt.labels["S2"]] == bad


def test_patch_changes_the_second_mention_to_a_third_name_and_nothing_else(tokenizer):
    for prompt in build_task("ioi", tokenizer, 32, 0, seed=0).build:
        pairs = enumerate(zip(prompt.clean, prompt.patch, strict=True))
        changed = [i for i, (clean, patch) in pairs if clean != patch]
        assert changed == [prompt.labels["S2"]]
        third = prompt.patch[prompt.labels["S2"]]
        assert prompt.patch.count(third) == 1
        assert tokenizer.decode([third]).strip() in NAMES


def test_both_orders_have_an_even_share_in_every_template(words):
    prompts = build_task("ioi", words, 32, 0, seed=0).build
    for template in {prompt.template for prompt in prompts}:
        labels = [prompt.labels for prompt in prompts if prompt.template == template]
        abba = sum(found["IO"] < found["S1"] for found in labels)
        assert abba * 2 == len(labels)


def test_names_that_are_several_tokens_are_not_drawn(make_word_level):
    """Here " Mary" is " Ma" and "ry", both known words."""
    splits_mary = make_word_level(first=" Ma(?=ry)|ry", extra=(" Ma", "ry"))
    prompts = build_task("ioi", splits_mary, 200, 0, seed=0).build
    text = " ".join(prompt.clean_text + prompt.patch_text for prompt in prompts)
    assert "Mary" not in text
    assert all(name in text for name in NAMES if name != "Mary")


def test_too_few_names_are_one_clear_error(make_word_level):
    unknown = tuple(f" {name}" for name in NAMES[2:])
    with pytest.raises(TaskError, match=r"^task ioi: 2 of 40 names, .* it needs 3, 1 and 1"):
        build_task("ioi", make_word_level(without=unknown), 8, 8, seed=0)
