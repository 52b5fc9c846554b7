from __future__ import annotations

import pickle

import pytest

from edgesweep.tasks import Prompt, TaskError, build_task, check_task_name

LINE = '{"clean": "The war", "patch": "The trial", "good": " is", "bad": " are"}\n'


def test_a_mixture_has_its_members_prompts_in_order(words):
    mixture = build_task("ioi+agreement", words, 6, 4, seed=7)
    alone = [build_task(name, words, 6, 4, seed=7) for name in ("ioi", "agreement")]
    assert mixture.name == "ioi+agreement"
    assert mixture.members == ("ioi", "agreement")
    assert mixture.build == alone[0].build + alone[1].build
    assert mixture.evaluation == alone[0].evaluation + alone[1].evaluation
    assert [prompt.task for prompt in mixture.build] == ["ioi"] * 6 + ["agreement"] * 6


def test_a_file_is_found_from_its_base_and_may_be_a_member(words, tmp_path):
    (tmp_path / "mine.jsonl").write_text(LINE + LINE.replace("war", "crisis"))
    alone = build_task("mine.jsonl", words, 1, 1, seed=0, base=tmp_path)
    assert (alone.name, alone.members) == ("mine", ("mine",))
    mixture = build_task("ioi + mine.jsonl", words, 1, 1, seed=0, base=tmp_path)
    assert (mixture.name, mixture.members) == ("ioi+mine", ("ioi", "mine"))
    assert mixture.build[1:] == alone.build


def test_a_plus_in_the_name_of_a_file_does_not_split_it(words, tmp_path):
    (tmp_path / "a+b.jsonl").write_text(LINE)
    assert build_task("a+b.jsonl", words, 1, 0, seed=0, base=tmp_path).members == ("a+b",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "greater-than",
            "unknown task 'greater-than'; did you mean 'greater_than'? allowed: ioi, greater_than, "
            "agreement, docstring, digits, modadd, own, several joined by +, a path ending in "
            ".jsonl or .txt, or one of images",
        ),
        ("IOI", "unknown task 'IOI'; did you mean 'ioi'? allowed"),
        ("induction", "unknown task 'induction'; allowed: ioi"),
        ("ioi+", "unknown task ''; allowed: ioi"),
        ("ioi+agreement+ioi", "task 'ioi+agreement+ioi' has the member 'ioi' twice"),
        ("gone.jsonl", "gone.jsonl is not there; give the path of a JSONL file"),
    ],
)
def test_a_name_that_is_no_task_is_one_clear_line(name, message, words, tmp_path):
    for check in (
        lambda: check_task_name(name, tmp_path),
        lambda: build_task(name, words, 1, 1, seed=0, base=tmp_path),
    ):
        with pytest.raises(TaskError) as caught:
            check()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_checking_a_name_reads_the_file_without_a_tokenizer(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(LINE)
    check_task_name("ioi+mine.jsonl", tmp_path)
    file.write_text(LINE + '{"clean": "The war"}\n')
    with pytest.raises(TaskError, match="line 2: key 'patch' is missing"):
        check_task_name("ioi+mine.jsonl", tmp_path)


def test_own_is_the_prompts_in_the_models_folder(words, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(LINE + LINE.replace("war", "crisis"))
    check_task_name("own")
    check_task_name("ioi+own")
    data = build_task("own", words, 1, 1, seed=0, own=tmp_path)
    assert (data.name, data.members) == ("own", ("own",))
    assert {prompt.task for prompt in (*data.build, *data.evaluation)} == {"own"}
    mixture = build_task("ioi+own", words, 1, 1, seed=0, own=tmp_path)
    assert mixture.build[1:] == data.build


def test_own_of_a_model_that_brings_none_is_one_clear_line(words, tmp_path):
    for own in (None, tmp_path):
        with pytest.raises(TaskError, match=r"this model has no prompts\.jsonl; use") as caught:
            build_task("own", words, 1, 1, seed=0, own=own)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stem", ["ioi", "own", "IOI"])
def test_a_file_may_not_take_a_built_in_name(stem, words, tmp_path):
    """Alone it would be compared with the circuits that are known of the built-in task."""
    (tmp_path / f"{stem}.jsonl").write_text(LINE)
    for name in (f"{stem}.jsonl", f"agreement+{stem}.jsonl"):
        with pytest.raises(TaskError) as caught:
            check_task_name(name, tmp_path)
        assert str(caught.value).startswith(
            f"task file {tmp_path / stem}.jsonl has the name of the "
        )
        assert str(caught.value).endswith(f"rename the file, as my-{stem}.jsonl")
        with pytest.raises(TaskError, match="rename the file"):
            build_task(name, words, 1, 0, seed=0, base=tmp_path)


def test_a_model_without_tokenizer_cannot_have_built_in_tasks():
    with pytest.raises(TaskError, match="task ioi needs a tokenizer and this model has none"):
        build_task("ioi", None, 1, 1, seed=0)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(TaskError, match="tokenizer Slow gives no character offsets"):
        build_task("ioi", Slow(), 1, 1, seed=0)


def test_negative_numbers_of_prompts_are_refused(words):
    with pytest.raises(TaskError, match="n_build is 4 and n_eval -1; allowed: 0 or more"):
        build_task("ioi", words, 4, -1, seed=0)


def test_prompts_and_errors_survive_pickling(words):
    data = build_task("ioi", words, 2, 2, seed=0)
    assert pickle.loads(pickle.dumps(data)) == data
    assert len({*data.build, *data.build}) == 2
    assert str(pickle.loads(pickle.dumps(TaskError("one line")))) == "one line"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": (), "patch": ()}, "clean has no tokens"),
        ({"patch": (1, 2, 3, 4)}, "clean has 3 tokens and patch has 4"),
        ({"good": ()}, "good is empty"),
        ({"bad": (8, 8)}, "bad has the same answer token twice: [8, 8]"),
        ({"bad": (8, 7)}, "good and bad share answer tokens [7]"),
        ({"labels": {"end": 2, "subject": 3}}, "label 'subject' is at position 3; allowed: 0 to 2"),
        ({"labels": {}}, "label 'end' is at None; it must be the last position, 2"),
    ],
)
def test_a_prompt_that_contradicts_itself_cannot_be_made(change, message):
    fields = {
        "clean": (1, 2, 3),
        "patch": (1, 2, 4),
        "good": (7,),
        "bad": (8,),
        "task": "t",
        "template": "t0",
        "labels": {"end": 2},
    }
    assert len(Prompt(**fields)) == 3
    with pytest.raises(TaskError) as caught:
        Prompt(**(fields | change))
    assert message in str(caught.value)
