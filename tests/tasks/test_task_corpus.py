"""Running text: its windows against a cut by hand, how they are dealt out, what is refused."""

from __future__ import annotations

import random

import pytest

from edgesweep.tasks import TaskError, build_task, check_task_name
from edgesweep.tasks.example import Example

WORDS = ("The", " war", " is", " are", " trial", " key", ".")


def story(n: int, seed: int = 0) -> str:
    """So many words that the tokenizer knows, a token each."""
    draw = random.Random(seed)
    return WORDS[0] + "".join(draw.choice(WORDS[1:]) for _ in range(n - 1))


def made(tmp_path, tokenizer, n_build=4, n_eval=3, seed=0, context=8, text=None):
    (tmp_path / "my.txt").write_text(story(100) if text is None else text, encoding="utf-8")
    return build_task("./my.txt", tokenizer, n_build, n_eval, seed, base=tmp_path, context=context)


def by_hand(tokens: list[int], context: int) -> dict[tuple[int, ...], int]:
    """Windows, and the token after each."""
    found, at = {}, 0
    while at + context < len(tokens):
        found[tuple(tokens[at : at + context])] = tokens[at + context]
        at += context
    return found


def test_windows_are_the_texts_in_order_whole_and_without_overlap(words, tmp_path):
    tokens = words(story(100), add_special_tokens=False)["input_ids"]
    assert len(tokens) == 100
    cut = by_hand(tokens, 8)
    assert len(cut) == 12  # the last four tokens are no window
    data = made(tmp_path, words, n_build=8, n_eval=4)
    assert (data.name, data.members) == ("my", ("my",))
    everything = [*data.build, *data.evaluation]
    assert {e.clean: e.good for e in everything} == {k: (v,) for k, v in cut.items()}
    assert len({e.clean for e in everything}) == 12
    for split in (data.build, data.evaluation):
        own = {e.clean for e in split}
        for e in split:
            assert e.patch in own - {e.clean}  # no window is left over to patch with
            assert e.bad == (cut[e.patch],) != e.good
            assert e.labels == {"end": 7}


def test_the_seed_deals_and_evaluation_does_not_hang_on_build(words, tmp_path):
    def cleans(examples: list[Example]) -> list[tuple[int, ...]]:
        return [e.clean for e in examples]

    few, again = made(tmp_path, words, n_build=2), made(tmp_path, words, n_build=2)
    assert few == again
    more, other = made(tmp_path, words, n_build=6), made(tmp_path, words, seed=1)
    assert more.evaluation == few.evaluation
    assert cleans(more.build)[:2] == cleans(few.build)
    assert set(cleans(other.evaluation)) != set(cleans(few.evaluation))


def test_one_window_alone_takes_its_patch_from_those_of_no_split(words, tmp_path):
    data = made(tmp_path, words, n_build=3, n_eval=1)
    (only,) = data.evaluation
    assert only.patch not in {only.clean, *(e.clean for e in data.build)}


def test_every_window_begins_with_a_bos_where_texts_do(make_word_level, tmp_path):
    tokenizer = make_word_level(bos=True)
    data = made(tmp_path, tokenizer, n_build=8, n_eval=6)
    tokens = tokenizer(story(100), add_special_tokens=False)["input_ids"]
    cut = by_hand(tokens, 7)
    bos = tokenizer.bos_token_id
    for e in [*data.build, *data.evaluation]:
        assert len(e) == 8
        assert e.clean[0] == bos
        assert e.good == (cut[e.clean[1:]],)


def test_equal_windows_count_once_and_unknown_words_leave_theirs_out(words, tmp_path):
    once = story(33)  # four windows and one more token
    data = made(tmp_path, words, 2, 2, text=once + " xylophone" + story(7, 1)[3:] + once)
    assert len({e.clean for e in (*data.build, *data.evaluation)}) == 4
    with pytest.raises(TaskError, match="has 4 different windows"):
        made(tmp_path, words, 3, 2, text=once)


def test_a_text_may_be_a_member(words, tmp_path):
    (tmp_path / "a+b.txt").write_text(story(100))
    data = build_task("a+b.txt", words, 2, 2, 0, base=tmp_path, context=8)
    assert data.members == ("a+b",)
    (tmp_path / "my.txt").write_text(story(100))
    data = build_task("ioi+my.txt", words, 2, 2, 0, base=tmp_path, context=8)
    assert data.members == ("ioi", "my")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my.txt is empty; give a text"),
        (b" \n", "my.txt is empty; give a text"),
        (b"caf\xe9 au lait", "my.txt cannot be read as UTF-8 text: 'utf-8' codec"),
        (None, "my.txt is not there; give the path of a JSONL file, or of a text"),
    ],
)
def test_what_is_no_text_is_refused_without_a_tokenizer(content, message, tmp_path):
    if content is not None:
        (tmp_path / "my.txt").write_bytes(content)
    with pytest.raises(TaskError) as caught:
        check_task_name("./my.txt", tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_large_a_text_is_refused(tmp_path):
    with (tmp_path / "my.txt").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(TaskError, match="has 65 MB of text; allowed: at most 64"):
        check_task_name("my.txt", tmp_path)


def test_other_refusals_are_one_line(words, tmp_path):
    few = r"has 12 different windows of 8 tokens that the tokenizer knows \(of 100\), too few"
    with pytest.raises(TaskError, match=few):
        made(tmp_path, words, 8, 5)
    with pytest.raises(TaskError, match=r"my needs a tokenizer and this model has none"):
        made(tmp_path, None)
    lines = [" is" + story(8, seed)[3:] for seed in range(6)]
    with pytest.raises(TaskError, match=r"every one of 2 is followed by the token ' is'"):
        made(tmp_path, words, 2, 3, text="".join(lines))
    (tmp_path / "ioi.txt").write_text(story(100))
    with pytest.raises(TaskError, match="has the name of the built-in task 'ioi'"):
        check_task_name("ioi.txt", tmp_path)
    with pytest.raises(TaskError, match="my is text and this model reads arrays of 8×8"):
        build_task("./my.txt", None, 1, 1, 0, base=tmp_path, shape=(8, 8))
