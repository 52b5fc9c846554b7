"""When a draft is no prompt: what sampling skips, on sentences made to break one rule each."""

from __future__ import annotations

import pytest

from edgesweep.tasks.drafts import Draft, fill
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.sampling import to_prompt

FRAME = "When{A} and{B} went"


def _draft(patch: tuple[str, str], good: str = " Mary") -> Draft:
    return Draft(
        template="t",
        clean=fill(FRAME, A=" Mary", B=" Tom and John"),
        patch=fill(FRAME, A=patch[0], B=patch[1]),
        good=(good,),
        bad=(" Tom",),
        labels={"A": "A"},
    )


@pytest.mark.parametrize(
    ("draft", "is_prompt"),
    [
        (_draft((" Dan", " Tom and John")), True),
        (_draft((" Dan", " Tom")), False),  # fewer tokens
        (_draft((" Tom and John", " Mary")), False),  # as many, but A ends elsewhere
        (_draft((" zebra", " Tom and John")), False),  # unknown
        (_draft((" Dan", " Tom and John"), good=" Mary and"), False),  # an answer of two tokens
    ],
)
def test_only_aligned_drafts_become_prompts(draft, is_prompt, words):
    prompt = to_prompt(draft, Encoder(words), "t", lambda clean, patch: True)
    assert (prompt is not None) == is_prompt
    if prompt is not None:
        assert prompt.labels == {"A": 1, "end": 6}


def test_unwanted_drafts_become_none(words):
    draft = _draft((" Dan", " Tom and John"))
    assert to_prompt(draft, Encoder(words), "t", lambda clean, patch: False) is None


def test_an_answer_that_splits_the_prompt_anew_is_none(make_word_level):
    """ "The war" is "The", " war"; "The war is" is "The w", "ar", " is": one token more, but the
    model that was given the prompt never sees those."""
    tokenizer = make_word_level(first="The w(?=ar is)|ar(?= is)", extra=("The w", "ar"))
    encoder = Encoder(tokenizer)
    assert encoder.answers("The war", [" are"]) is not None
    assert encoder.answers("The war", [" is"]) is None
    assert not encoder.is_apart("The war", " is")
