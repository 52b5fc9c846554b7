from __future__ import annotations

import pytest

from edgesweep.tasks import build_task
from edgesweep.tasks.agreement import NOUNS, RELATIVE_VERBS

SINGULAR = {pair[0] for pair in NOUNS}
PLURAL = {pair[1] for pair in NOUNS}


@pytest.fixture(params=["words", "smollm2"])
def prompts(request):
    return build_task("agreement", request.getfixturevalue(request.param), 64, 0, seed=0).build


@pytest.fixture(params=["words", "smollm2"])
def decoded(request):
    """Prompts with a way to read a token of theirs."""
    tokenizer = request.getfixturevalue(request.param)
    prompts = build_task("agreement", tokenizer, 64, 0, seed=0).build
    return prompts, lambda i: tokenizer.decode([i]).strip()


def test_answers_have_the_number_of_the_subject(decoded):
    prompts, read = decoded
    forms = {"is": "are", "was": "were", "has": "have"}
    for prompt in prompts:
        subject = read(prompt.clean[prompt.labels["subject"]])
        assert subject in SINGULAR | PLURAL
        one, other = list(forms), list(forms.values())
        good, bad = (one, other) if subject in SINGULAR else (other, one)
        assert [read(i) for i in prompt.good] == good
        assert [read(i) for i in prompt.bad] == bad


def test_patch_flips_the_number_of_the_subject_and_nothing_else(decoded):
    prompts, read = decoded
    for prompt in prompts:
        pairs = enumerate(zip(prompt.clean, prompt.patch, strict=True))
        assert [i for i, (a, b) in pairs if a != b] == [prompt.labels["subject"]]
        position = prompt.labels["subject"]
        numbers = tuple(sorted((read(prompt.clean[position]), read(prompt.patch[position]))))
        assert numbers in NOUNS


def test_the_four_structures_are_there(prompts):
    texts = {prompt.template: prompt.clean_text for prompt in prompts}
    assert set(texts) == {"simple", "pp", "rc_that", "rc"}
    for prompt in prompts:
        assert ("attractor" in prompt.labels) == (prompt.template != "simple")
        n_that = prompt.clean_text.split().count("that")
        assert n_that == (2 if prompt.template == "rc_that" else 1)


def test_the_relative_verb_agrees_with_its_own_noun(decoded):
    prompts, read = decoded
    relative = [prompt for prompt in prompts if prompt.template in ("rc", "rc_that")]
    for prompt in relative:
        noun = read(prompt.clean[prompt.labels["attractor"]])
        verb = read(prompt.clean[-1])
        assert verb in {pair[noun in PLURAL] for pair in RELATIVE_VERBS}


def test_the_attractor_misleads_as_often_as_it_helps(words):
    prompts = build_task("agreement", words, 400, 0, seed=0).build
    helps = [
        (words.decode([prompt.clean[prompt.labels["attractor"]]]).strip() in PLURAL)
        == (words.decode([prompt.clean[prompt.labels["subject"]]]).strip() in PLURAL)
        for prompt in prompts
        if "attractor" in prompt.labels
    ]
    assert 0.4 < sum(helps) / len(helps) < 0.6


def test_a_prompt_and_its_mirror_share_a_side_of_the_split(words):
    data = build_task("agreement", words, 1500, 1500, seed=0)
    build, evaluation = ({prompt.clean for prompt in p} for p in (data.build, data.evaluation))
    assert not build & evaluation
    assert not {prompt.patch for prompt in data.build} & evaluation
    assert not {prompt.patch for prompt in data.evaluation} & build
    assert sum(prompt.patch in build for prompt in data.build) > 20  # mirrors do come
