"""The docstring task: what is described, what follows, and what the patch leaves of it."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from edgesweep.tasks import TaskError, build_task

TOKENIZERS = ("words", "smollm2")
ROLES = ("before", "before", "A", "B", "C", "after")


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return request.getfixturevalue(request.param)


def names_of(text):
    """The arguments of the signature and those described."""
    signature = re.search(r"\(self, (.*)\):", text).group(1).split(", ")
    described = re.findall(r"[:@](?:param|arg) (\w+):", text)
    return signature, described


def test_the_answer_is_the_argument_after_the_last_one_described(tokenizer):
    for prompt in build_task("docstring", tokenizer, 24, 0, seed=0).build:
        signature, described = names_of(prompt.clean_text)
        assert len(set(signature)) == len(ROLES)
        assert described == signature[2:4]
        assert [tokenizer.decode([i]) for i in prompt.good] == [f" {signature[4]}"]
        wrong = {tokenizer.decode([i]) for i in prompt.bad}
        assert wrong == {f" {name}" for name in signature if name != signature[4]}


def test_the_patch_changes_the_arguments_and_nothing_else(tokenizer):
    for prompt in build_task("docstring", tokenizer, 24, 0, seed=0).build:
        clean, patch = names_of(prompt.clean_text), names_of(prompt.patch_text)
        assert not set(clean[0]) & {*patch[0], *patch[1]}
        assert not set(patch[0]) & set(patch[1])
        changed = sum(a != b for a, b in zip(prompt.clean, prompt.patch, strict=True))
        assert changed == len(ROLES) + 2


def test_labels_are_where_the_arguments_are(tokenizer):
    for prompt in build_task("docstring", tokenizer, 12, 0, seed=0).build:
        signature, described = names_of(prompt.clean_text)
        at = {label: tokenizer.decode([prompt.clean[i]]) for label, i in prompt.labels.items()}
        assert [at[f"{x}_def"].strip() for x in "ABC"] == signature[2:5]
        assert [at[f"{x}_doc"].strip() for x in "AB"] == described
        assert at["end"] in ("param", "arg")
        assert prompt.labels["A_def"] < prompt.labels["C_def"] < prompt.labels["A_doc"]


def test_line_ends_and_indents_are_words_of_the_vocabulary(words):
    text = build_task("docstring", words, 1, 0, seed=0).build[0].clean_text
    assert text.count("\n") == 5
    assert words.decode(words(text)["input_ids"]).replace(" ", "") == text.replace(" ", "")


def test_too_few_single_tokens_is_one_clear_error(make_word_level):
    from edgesweep.tasks.docstring import NAMES

    scarce = make_word_level(without=tuple(f" {name}" for name in NAMES[8:]))
    with pytest.raises(TaskError, match=r"task docstring: 8 of \d+ argument names.*it needs 14"):
        build_task("docstring", scarce, 4, 4, seed=0)


# Measured on 64 evaluation prompts, seed 0: the answer is above the mean of the others in 0.98, the
# best of all tokens in 0.75; logit difference 3.9 on clean and -0.3 on patch.
@pytest.mark.proof
@torch.no_grad()
def test_smollm2_does_the_task_and_the_patch_undoes_it(smollm2_file, smollm2):
    model = AutoModelForCausalLM.from_pretrained(
        smollm2_file.parent, gguf_file=smollm2_file.name, dtype=torch.float32
    )
    prompts = build_task("docstring", smollm2, 0, 32, seed=0).evaluation

    def differences(ids):
        logits = [model(torch.tensor([getattr(p, ids)])).logits[0, -1] for p in prompts]
        pairs = zip(logits, prompts, strict=True)
        return torch.stack([x[list(p.good)].mean() - x[list(p.bad)].mean() for x, p in pairs])

    clean, patch = differences("clean"), differences("patch")
    assert float((clean > 0).float().mean()) >= 0.9
    assert float(clean.mean()) > 2
    assert float(patch.mean()) < 0.5
