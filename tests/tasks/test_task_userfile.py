from __future__ import annotations

import json

import pytest

from edgesweep.tasks import TaskError, build_task

GOOD_LINE = {"clean": "The war", "patch": "The trial", "good": " is", "bad": " are"}


@pytest.fixture
def load(tmp_path):
    """Writes lines (objects or raw text) to mine.jsonl and builds the task from it."""

    def write_and_build(lines, tokenizer=None, n_build=1, n_eval=0, seed=0, **options):
        raw = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "mine.jsonl").write_text("\n".join(raw), encoding="utf-8")
        return build_task("mine.jsonl", tokenizer, n_build, n_eval, seed, base=tmp_path, **options)

    return write_and_build


def _ids_line(n: int) -> dict[str, object]:
    return {"clean": [n, 4, 9], "patch": [n, 5, 9], "good": 3, "bad": [8, 7]}


def test_text_lines_are_tokenized(load, words):
    line = GOOD_LINE | {"bad": [" are", " were"], "labels": {"noun": 1}, "template": "t7"}
    (prompt,) = load([line], words).build
    assert list(prompt.clean) == words("The war")["input_ids"]
    assert list(prompt.patch) == words("The trial")["input_ids"]
    assert words.decode(prompt.good[0]) == " is"
    assert [words.decode(i) for i in prompt.bad] == [" are", " were"]
    assert prompt.labels == {"noun": 1, "end": 1}
    assert (prompt.task, prompt.template, prompt.clean_text) == ("mine", "t7", "The war")


def test_ids_need_no_tokenizer_and_get_no_bos(load, make_word_level):
    for tokenizer in (None, make_word_level(bos=True)):
        (prompt,) = load([_ids_line(17)], tokenizer).build
        assert (prompt.clean, prompt.patch) == ((17, 4, 9), (17, 5, 9))
        assert (prompt.good, prompt.bad) == ((3,), (8, 7))
        assert (prompt.labels, prompt.clean_text) == ({"end": 2}, "")


def test_text_gets_the_bos_once(load, make_word_level):
    tokenizer = make_word_level(bos=True)
    bos = tokenizer.bos_token_id
    plain, given = load([GOOD_LINE, GOOD_LINE | {"clean": "<s>The war"}], tokenizer, 2).build
    assert plain.clean == given.clean
    assert plain.clean.count(bos) == 1
    assert plain.labels == {"end": 2}


def test_answers_are_read_as_they_continue_the_prompt(load, smollm2):
    line = {"clean": "When Mary and John went to the store, John gave a book to"}
    line |= {"patch": line["clean"].replace(", John", ", Paul"), "good": " Mary", "bad": " John"}
    (prompt,) = load([line], smollm2).build
    assert (smollm2.decode(prompt.good), smollm2.decode(prompt.bad)) == (" Mary", " John")


def test_blank_lines_and_a_byte_order_mark_are_no_matter(load, words):
    lines = ["\ufeff" + json.dumps(GOOD_LINE), "", "  ", json.dumps(GOOD_LINE) + "\r", ""]
    assert len(load(lines, words, 2).build) == 2


def test_the_split_is_a_seeded_shuffle_without_overlap(load):
    lines = [_ids_line(n) for n in range(20)]
    data = load(lines, n_build=8, n_eval=6, seed=1)
    firsts = [prompt.clean[0] for prompt in data.build + data.evaluation]
    assert len(set(firsts)) == 14
    assert firsts != sorted(firsts)
    assert load(lines, n_build=8, n_eval=6, seed=1) == data
    assert load(lines, n_build=8, n_eval=6, seed=2) != data
    assert load(lines, n_build=14, n_eval=6, seed=1).evaluation == data.evaluation


def test_a_clean_prompt_that_is_there_twice_enters_one_split(load):
    lines = [_ids_line(n) | {"good": good} for n in range(6) for good in (1, 2, 3)]
    for seed in range(5):
        data = load(lines, n_build=6, n_eval=4, seed=seed)
        assert not {p.clean for p in data.build} & {p.clean for p in data.evaluation}


BAD_LINES = {
    "bad JSON": ('{"clean": ', "not JSON: Expecting value at column 11"),
    "brackets without end": (200_000 * "[", "no prompt: maximum recursion depth"),
    "a number without end": ('{"clean": [' + 5000 * "9" + "]}", "no prompt: Exceeds the limit"),
    "half of a pair": ('{"clean": "\\ud800", "patch": "a", "good": 1, "bad": 2}', "clean is "),
    "no object": ("[1, 2]", "[1, 2] is no JSON object; write {...} with clean, patch, good, bad"),
    "unknown key": (
        GOOD_LINE | {"lables": {}},
        "unknown key 'lables'; did you mean 'labels'? allowed: clean, patch, good, bad and, "
        "if wanted, labels, template",
    ),
    "far from any key": (GOOD_LINE | {"xyz": 1}, "unknown key 'xyz'; allowed: clean"),
    "missing key": (
        {"clean": "The war"},
        "key 'patch' is missing; needed: clean, patch",
    ),
    "clean is a number": (GOOD_LINE | {"clean": 7}, "clean is 7; allowed: a text or a list of"),
    "clean is empty": (GOOD_LINE | {"clean": ""}, 'clean is ""; allowed: a text or a list of'),
    "patch is empty": (GOOD_LINE | {"patch": []}, "patch is []; allowed: a text or a list of"),
    "an id is negative": (GOOD_LINE | {"clean": [1, -2]}, "clean is [1, -2]; allowed: a text or"),
    "an id is a truth value": (
        GOOD_LINE | {"clean": [True]},
        "clean is [true]; allowed: a text",
    ),
    "good is empty": (GOOD_LINE | {"good": []}, "good is empty; give at least one answer"),
    "good is nothing": (GOOD_LINE | {"good": None}, "good has null; allowed: a text, a token id"),
    "good holds a list": (GOOD_LINE | {"bad": [[1]]}, "bad has [1]; allowed: a text, a token id"),
    "labels is a list": (GOOD_LINE | {"labels": [1]}, "labels is [1]; allowed: an object of names"),
    "template is a number": (GOOD_LINE | {"template": 3}, "template is 3; allowed: a name"),
    "lengths differ": (
        GOOD_LINE | {"patch": "The war is"},
        "clean has 2 tokens and patch has 3; they must have equally many",
    ),
    "nothing to patch": (
        GOOD_LINE | {"patch": "The war"},
        "clean and patch are the same 2 tokens, so nothing would be patched and every effect be "
        "0 of 0; give patch another prompt, or drop the line",
    ),
    "nothing to patch in ids": (
        GOOD_LINE | {"clean": [1, 2, 3], "patch": [1, 2, 3], "good": 4, "bad": 5},
        "clean and patch are the same 3 tokens",
    ),
    "answer of two tokens": (
        GOOD_LINE | {"good": " is the"},
        "good ' is the' is 2 tokens: [' is', ' the']; an answer is one token: give one token",
    ),
    "answer without its space": (
        GOOD_LINE | {"good": "is"},
        "good 'is' joins the end of clean: together they end in the tokens ['The', ' waris']; "
        "an answer is one token: write ' is', with its space",
    ),
    "answer unknown": (
        GOOD_LINE | {"bad": " zebra"},
        "bad ' zebra' is 1 token unknown to the tokenizer: [' zebra']",
    ),
    "word unknown": (
        GOOD_LINE | {"patch": "The zebra"},
        'patch is "The zebra", which has words unknown to this model\'s tokenizer',
    ),
    "overlap": (GOOD_LINE | {"bad": [" are", " is"]}, "good and bad share answer tokens ["),
    "label out of range": (
        GOOD_LINE | {"labels": {"noun": 2}},
        "label 'noun' is at position 2; allowed: 0 to 1",
    ),
    "end elsewhere": (
        GOOD_LINE | {"labels": {"end": 0}},
        "label 'end' is at 0; it must be the last position, 1",
    ),
    "id beyond the model": (
        GOOD_LINE | {"good": 99_999},
        "good has token id 99999; allowed: 0 to 4999",
    ),
}


@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_bad_line_is_named_with_what_is_allowed(fault, load, words, tmp_path):
    line, message = BAD_LINES[fault]
    with pytest.raises(TaskError) as caught:
        load([GOOD_LINE, "", line], words, n_vocab=5000)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'mine.jsonl'}, line 3: {message}")
    assert "\n" not in text


def test_texts_that_differ_and_tokens_that_do_not(load, make_word_level):
    line = GOOD_LINE | {"patch": "<s>The war"}
    with pytest.raises(TaskError, match=r"mine\.jsonl, line 1: clean and patch are the same 3 tok"):
        load([line], make_word_level(bos=True))


def test_text_for_a_model_without_tokenizer(load):
    with pytest.raises(TaskError, match=r'line 1: clean is the text "The war" and this model has'):
        load([GOOD_LINE])


def test_too_few_lines_say_how_many_there_are(load):
    with pytest.raises(TaskError) as caught:
        load([_ids_line(n) for n in (1, 2, 2)], n_build=2, n_eval=2)
    assert (
        "mine.jsonl has 3 prompts (2 different in clean), too few for n_build = 2 and n_eval = 2; "
        "add lines or lower n_build or n_eval"
    ) in str(caught.value)


def test_an_empty_file_and_one_that_is_no_text(load, tmp_path):
    with pytest.raises(TaskError, match=r"mine\.jsonl has no prompts; give one JSON object a line"):
        load(["", " "])
    (tmp_path / "raw.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match=r"raw\.jsonl cannot be read as UTF-8 text"):
        build_task("raw.jsonl", None, 1, 1, 0, base=tmp_path)
