"""What every built-in task must do, with every tokenizer: one suite, a task joins by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from edgesweep.tasks import TaskError, build_task, list_tasks, vocabulary
from edgesweep.tasks.registry import ARRAYS, GENERATORS, TOKENS
from edgesweep.tasks.sampling import split_of

TOKENIZERS = ("words", "smollm2", "with_bos")
every_task = pytest.mark.parametrize("task", list(GENERATORS))


@pytest.fixture(scope="module")
def with_bos(make_word_level):
    return make_word_level(bos=True)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return request.getfixturevalue(request.param)


@every_task
def test_prompts_are_what_the_model_would_be_given(task, tokenizer):
    """Ids are the tokenizer's own for the text, and an answer is what continues them by one id."""
    data = build_task(task, tokenizer, 24, 12, seed=0)
    assert (len(data.build), len(data.evaluation)) == (24, 12)
    for prompt in data.build + data.evaluation:
        assert list(prompt.clean) == tokenizer(prompt.clean_text)["input_ids"]
        assert list(prompt.patch) == tokenizer(prompt.patch_text)["input_ids"]
        assert len(prompt.clean) == len(prompt.patch)
        assert prompt.clean != prompt.patch
        assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in prompt.clean
        for answer in prompt.good + prompt.bad:
            text = tokenizer.decode([answer])
            whole = tokenizer(prompt.clean_text + text)["input_ids"]
            assert whole == [*prompt.clean, answer]


@every_task
def test_splits_are_disjoint_and_prompts_different(task, tokenizer):
    data = build_task(task, tokenizer, 40, 40, seed=3)
    cleans = [prompt.clean for prompt in data.build + data.evaluation]
    assert len(set(cleans)) == 80


@every_task
def test_seed_decides(task, words):
    assert build_task(task, words, 8, 8, seed=1) == build_task(task, words, 8, 8, seed=1)
    assert build_task(task, words, 8, 8, seed=1) != build_task(task, words, 8, 8, seed=2)


@every_task
def test_more_build_prompts_leave_the_others_as_they_are(task, words):
    few, many = build_task(task, words, 8, 16, seed=0), build_task(task, words, 24, 16, seed=0)
    assert many.build[:8] == few.build
    assert many.evaluation == few.evaluation


@every_task
def test_templates_have_their_even_share(task, words):
    data = build_task(task, words, 24, 0, seed=0)
    counts = Counter(prompt.template for prompt in data.build)
    assert len(counts) >= 3
    assert max(counts.values()) - min(counts.values()) <= 2


@every_task
def test_a_template_has_one_length_and_one_layout(task, tokenizer):
    """Per-position means are taken over a template and length, so its key words must line up.

    Labels of the two orders of IOI differ, and they sit at the same set of places.
    """
    places = {}
    for prompt in build_task(task, tokenizer, 32, 0, seed=0).build:
        layout = (len(prompt), sorted(prompt.labels.values()))
        assert places.setdefault(prompt.template, layout) == layout


@every_task
def test_bos_shifts_the_labels_and_is_there_once(task, with_bos):
    for prompt in build_task(task, with_bos, 8, 0, seed=0).build:
        assert prompt.clean.count(with_bos.bos_token_id) == 1
        assert prompt.clean[0] == with_bos.bos_token_id
        bare = with_bos(prompt.clean_text, add_special_tokens=False, return_offsets_mapping=True)
        for label, position in prompt.labels.items():
            start, end = bare["offset_mapping"][position - 1]
            assert prompt.clean_text[start:end].strip(), label


@every_task
def test_the_example_is_one_that_the_generator_could_make(task, words):
    info = next(info for info in list_tasks() if info.name == task)
    ids = [words(text)["input_ids"] for text in (info.clean, info.patch)]
    assert len(ids[0]) == len(ids[1])
    assert words.unk_token_id not in ids[0] + ids[1]
    assert info.description
    layouts = {len(prompt) for prompt in build_task(task, words, 24, 0, seed=0).build}
    assert len(ids[0]) in layouts


@every_task
def test_a_tokenizer_that_cannot_write_the_task_is_one_clear_error(task, make_word_level):
    """Every sentence of every task has a "the" or, in the years' carrier, needs one."""
    without_the = make_word_level(without=(" the",))
    with pytest.raises(TaskError, match=rf"^task {task}: .*use another task or model$"):
        build_task(task, without_the, 8, 8, seed=0)


def test_vocabulary_is_sorted_and_has_no_doubles():
    assert list(vocabulary()) == sorted(set(vocabulary()))
    assert {" Mary", "When", ",", " ", "7", " are"} <= set(vocabulary())


def test_too_many_prompts_asked_for_says_how_many_there_are(make_word_level):
    """Two nouns, one adjective: few sentences are left."""
    nouns = {word for pair in _nouns()[2:] for word in pair}
    adjectives = {" young", " old", " clever", " quiet", " happy", " strong"}
    prepositions = {" behind", " beside", " with", " opposite"}
    scarce = make_word_level(without=tuple(nouns | adjectives | prepositions))
    with pytest.raises(TaskError) as caught:
        build_task("agreement", scarce, 5000, 5000, seed=0)
    message = str(caught.value)
    found = int(message.split("only ")[1].split(" of ")[0])
    assert 10 < found < 500
    assert f"only {found} of 5000 build prompts could be had" in message
    assert "lower n_build and n_eval" in message
    assert len(build_task("agreement", scarce, found, 0, seed=0).build) == found


def test_a_variant_that_the_tokenizer_breaks_is_left_out(make_word_level):
    """Without "While" one template of IOI has no prompts; the others take its share."""
    data = build_task("ioi", make_word_level(without=("While",)), 24, 0, seed=0)
    counts = Counter(prompt.template for prompt in data.build)
    assert counts == {"when": 8, "then": 8, "after": 8}


def test_a_patch_that_the_tokenizer_cannot_tell_apart_is_not_drawn(words):
    """A tokenizer that writes singular and plural of a noun with the same id."""
    ids = [words.convert_tokens_to_ids(list(pair)) for pair in zip(*_nouns(), strict=True)]
    singular = dict(zip(ids[1], ids[0], strict=True))

    class Stemming:
        is_fast, unk_token_id, bos_token_id = True, words.unk_token_id, None

        def __call__(self, text, **options):
            found = words(text, **options)
            return found | {"input_ids": [singular.get(i, i) for i in found["input_ids"]]}

    with pytest.raises(TaskError, match="only 0 of 4 build prompts could be had"):
        build_task("agreement", Stemming(), 4, 4, seed=0)


def test_the_content_decides_the_split(words):
    data = build_task("ioi", words, 16, 16, seed=5)
    assert {split_of("ioi", 5, prompt.clean) for prompt in data.build} == {"build"}
    assert {split_of("ioi", 5, prompt.clean) for prompt in data.evaluation} == {"evaluation"}


def test_prompts_do_not_depend_on_the_hash_seed():
    """The tokenizer is a stand-in of a few lines, so that the two processes start at once."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _PRINT_PROMPTS],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().count("Prompt(") == 3 * 8


def _nouns() -> list[tuple[str, ...]]:
    from edgesweep.tasks.agreement import NOUNS

    return [tuple(f" {word}" for word in pair) for pair in NOUNS]


_PRINT_PROMPTS = """
import re
from edgesweep.tasks import WORD_PATTERN, build_task, vocabulary

class Words:
    is_fast, unk_token_id, bos_token_id = True, -1, None
    ids = {word: i for i, word in enumerate(vocabulary())}
    def __call__(self, text, **options):
        found = list(re.finditer(WORD_PATTERN, text))
        return {
            "input_ids": [self.ids.get(word.group(), -1) for word in found],
            "offset_mapping": [word.span() for word in found],
        }

print(build_task("ioi+greater_than+agreement", Words(), 4, 4, seed=0))
"""


def test_generators_are_known_by_their_own_names():
    assert [info.name for info in list_tasks()] == [*GENERATORS, *ARRAYS, *TOKENS]
