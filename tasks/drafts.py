"""Sentences before tokenization: frames with named slots, and the generator's interface.

A frame is a format string, ``"The {subject} near the {other}"``. Filling it keeps where each slot
came to lie, so that the tokenizer's own offsets, and no counting of words, turn the key words into
token positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import Formatter

from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.prompt import TaskInfo


@dataclass(frozen=True)
class Filled:
    """A filled frame: its text, and for each slot the index of the slot's last character."""

    text: str
    slots: Mapping[str, int]


@dataclass(frozen=True)
class Draft:
    """A prompt as text.

    ``good`` and ``bad`` are written as they continue the text, with their leading space where they
    have one. ``labels`` gives for each label the slot whose last token carries it.
    """

    template: str
    clean: Filled
    patch: Filled
    good: tuple[str, ...]
    bad: tuple[str, ...]
    labels: Mapping[str, str]


Drawer = Callable[[random.Random], Draft]


@dataclass(frozen=True)
class Generator:
    """A built-in task.

    ``drawers`` fits the word lists to a tokenizer and gives a drawer of drafts for each variant
    (a frame, an order of names, a number): sampling goes round the variants, so that each has its
    even share. It raises TaskError where the tokenizer leaves no words to draw from. ``lexicon``
    yields every stretch of text that a draft can be made of, answers included. ``mirrored``: the
    patch of one prompt is the clean text of another, so that the two are dealt into one split.
    """

    info: TaskInfo
    drawers: Callable[[Encoder], Mapping[str, Drawer]]
    lexicon: Callable[[], Iterable[str]]
    mirrored: bool = False


def fill(frame: str, **words: str) -> Filled:
    """Puts the words into the slots of the frame; words without a slot are left out."""
    text, slots = "", {}
    for fixed, slot, _, _ in Formatter().parse(frame):
        text += fixed
        if slot is not None:
            text += words[slot]
            slots[slot] = len(text) - 1
    return Filled(text, slots)


def fixed_text(frame: str) -> list[str]:
    """The stretches of a frame between its slots."""
    return [fixed for fixed, _, _, _ in Formatter().parse(frame) if fixed]
