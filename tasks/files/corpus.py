"""Running text as a task: a UTF-8 file, ``./my.txt``, in windows of equally many tokens.

The text is tokenized once and cut, without overlap, into windows of ``context`` tokens, of which
the first is the BOS where the tokenizer puts one before a text. Good is the token that follows a
window. Patch is another window that another token follows, which is bad: the next of its split, or
one of no split where its own has none.
Windows with tokens that the tokenizer does not know are left out, and equal ones count once.

Whole windows are dealt to the splits by the seed, evaluation first, so that none is in both and
evaluation does not change with ``n_build``. Neighbours are of one text all the same: what is
measured on the evaluation windows, and its interval, is of this text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import Prompt

#: tokens of a window
CONTEXT = 64
#: of a file, which is tokenized as a whole
MOST_MB = 64

TEMPLATE = "window"

#: tokens, and the one that follows them
Window = tuple[tuple[int, ...], int]


@dataclass(frozen=True)
class Corpus:
    """A member task in a text file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem


def read(path: Path) -> str:
    """Raises TaskError: no UTF-8, nothing in it, too much."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= MOST_MB * 2**20 else ""
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"task file {path} cannot be read as UTF-8 text: {error}") from error
    if size > MOST_MB * 2**20:
        raise TaskError(
            f"task file {path} has {size / 2**20:,.0f} MB of text; allowed: at most {MOST_MB}, "
            "since it is tokenized as a whole; give a part of it"
        )
    if not text.strip():
        raise TaskError(f"task file {path} is empty; give a text")
    return text


def draw(
    corpus: Corpus, encoder: Encoder, context: int, n_build: int, n_eval: int, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """The windows of both splits, build and evaluation.

    Raises:
        TaskError: as ``read``; fewer windows than are asked for, or none to patch one with.
    """
    tokens = encoder.tokens(read(corpus.path))
    found = _windows(tokens, encoder, context)
    if len(found) < n_build + n_eval:
        raise TaskError(
            f"task file {corpus.path} has {len(found)} different windows of {context} tokens "
            f"that the tokenizer knows (of {len(tokens)}), too few for n_build = {n_build} and "
            f"n_eval = {n_eval}; lower these or data.context, or give more text"
        )
    random.Random(seed).shuffle(found)
    evaluation, rest = found[:n_eval], found[n_eval:]
    build, neither = rest[:n_build], rest[n_build:]
    build_split, evaluation_split = (
        [
            _prompt(corpus, encoder, some[at], some[at + 1 :] + some[:at] + neither)
            for at in range(len(some))
        ]
        for some in (build, evaluation)
    )
    return build_split, evaluation_split


def _windows(tokens: tuple[int, ...], encoder: Encoder, context: int) -> list[Window]:
    """In the text's order."""
    own = context - len(encoder.prefix)
    starts = range(0, len(tokens) - own, own)
    found: dict[tuple[int, ...], int] = {}
    for start in starts:
        window, following = tokens[start : start + own], tokens[start + own]
        if encoder.knows((*window, following)):
            found.setdefault(encoder.prefix + window, following)
    return list(found.items())


def _prompt(corpus: Corpus, encoder: Encoder, window: Window, others: list[Window]) -> Prompt:
    """A window beside the first of the others that another token follows."""
    clean, good = window
    patch, bad = next((other for other in others if other[1] != good), ((), good))
    if not patch:
        raise TaskError(
            f"task file {corpus.path} has no window to patch another with: every one of "
            f"{len(others) + 1} is followed by the token {encoder.text((good,))!r}; give more text"
        )
    labels = {"end": len(clean) - 1}
    texts = encoder.text(clean), encoder.text(patch)
    return Prompt(clean, patch, (good,), (bad,), corpus.name, TEMPLATE, labels, *texts)
