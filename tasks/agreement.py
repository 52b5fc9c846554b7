"""Subject-verb agreement: the verb takes the number of its subject, not of the noun beside it.

    simple    I think that the tall farmer                     -> is, not are
    pp        I think that the farmer near the parents         -> is, not are
    rc_that   I think that the farmer that the parents love    -> is, not are
    rc        I think that the farmer the parents love         -> is, not are

The patch flips the number of the subject and nothing else, so that the other verb form is right. It
is the clean text of another prompt, its mirror: both are dealt into one split.
Subjects are singular and plural in turn; the noun in between is singular or plural by chance, so
that it helps as often as it misleads.

Good are the verb forms that agree, bad the other number's; a form is used if both numbers are one
token each.

Labels: ``subject``; ``attractor``, the noun in between, where there is one; ``end``.

Source: Finlayson et al., 2021; Dhimoïla, Emerging structures, appendix D.1, for rc_that and rc.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from edgesweep.tasks.drafts import Draft, Drawer, Generator, fill, fixed_text
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import TaskInfo

Pair = tuple[str, str]  # singular, plural

FRAMES = {
    "simple": "{opening} the {adjective} {subject}",
    "pp": "{opening} the {subject} {preposition} the {attractor}",
    "rc_that": "{opening} the {subject} that the {attractor} {verb}",
    "rc": "{opening} the {subject} the {attractor} {verb}",
}
OPENINGS = (
    "I think that",
    "We know that",
    "They said that",
    "He noticed that",
    "She believes that",
)
ADJECTIVES = ("tall", "young", "old", "clever", "quiet", "happy", "strong", "famous", "kind", "new")
PREPOSITIONS = ("near", "behind", "beside", "with", "opposite")
NOUNS: tuple[Pair, ...] = (
    *(("farmer", "farmers"), ("parent", "parents"), ("athlete", "athletes"), ("doctor", "doctors")),
    *(("teacher", "teachers"), ("student", "students"), ("lawyer", "lawyers"), ("boy", "boys")),
    *(("girl", "girls"), ("artist", "artists"), ("author", "authors"), ("driver", "drivers")),
    *(("friend", "friends"), ("guest", "guests"), ("manager", "managers"), ("actor", "actors")),
    *(("writer", "writers"), ("officer", "officers"), ("singer", "singers"), ("pilot", "pilots")),
)
RELATIVE_VERBS: tuple[Pair, ...] = (
    *(("loves", "love"), ("likes", "like"), ("sees", "see"), ("knows", "know")),
    *(("hates", "hate"), ("follows", "follow"), ("helps", "help"), ("remembers", "remember")),
)
ANSWERS: tuple[Pair, ...] = (("is", "are"), ("was", "were"), ("has", "have"))


@dataclass(frozen=True)
class _Words:
    """The words that are single tokens, for pairs in both numbers."""

    openings: list[str]
    adjectives: list[str]
    prepositions: list[str]
    nouns: list[Pair]
    verbs: list[Pair]
    answers: list[Pair]


def _drawers(encoder: Encoder) -> Mapping[str, Drawer]:
    words = _single_tokens(encoder)
    return {
        f"{template}/{name}": partial(_draft, template, number, words)
        for template in FRAMES
        for number, name in enumerate(("singular", "plural"))
    }


def _single_tokens(encoder: Encoder) -> _Words:
    words = _Words(
        openings=list(OPENINGS),
        adjectives=[word for word in ADJECTIVES if encoder.is_single(word)],
        prepositions=[word for word in PREPOSITIONS if encoder.is_single(word)],
        nouns=[pair for pair in NOUNS if encoder.is_single(*pair)],
        verbs=[pair for pair in RELATIVE_VERBS if encoder.is_single(*pair)],
        answers=[pair for pair in ANSWERS if encoder.is_single(*pair)],
    )
    counts = {kind: len(found) for kind, found in vars(words).items()}
    if min(counts.values()) < 1 or counts["nouns"] < 2:
        had = ", ".join(f"{n} {kind}" for kind, n in counts.items())
        raise TaskError(
            f"task agreement: single tokens for this tokenizer are {had}; it needs 2 nouns and 1 "
            "of each other kind, in both numbers: use another task or model"
        )
    return words


def _draft(template: str, number: int, words: _Words, rng: random.Random) -> Draft:
    subject, attractor = rng.sample(words.nouns, 2)
    other_number = rng.randrange(2)
    slots = {
        "opening": rng.choice(words.openings),
        "adjective": rng.choice(words.adjectives),
        "preposition": rng.choice(words.prepositions),
        "attractor": attractor[other_number],
        "verb": rng.choice(words.verbs)[other_number],
    }
    frame = FRAMES[template]
    labels = [label for label in ("subject", "attractor") if f"{{{label}}}" in frame]
    return Draft(
        template=template,
        clean=fill(frame, subject=subject[number], **slots),
        patch=fill(frame, subject=subject[1 - number], **slots),
        good=tuple(f" {pair[number]}" for pair in words.answers),
        bad=tuple(f" {pair[1 - number]}" for pair in words.answers),
        labels={label: label for label in labels},
    )


def _lexicon() -> Iterator[str]:
    yield from OPENINGS
    for frame in FRAMES.values():
        yield from fixed_text(frame)
    for word in (*ADJECTIVES, *PREPOSITIONS):
        yield f" {word}"
    for pair in (*NOUNS, *RELATIVE_VERBS, *ANSWERS):
        yield from (f" {word}" for word in pair)


AGREEMENT = Generator(
    info=TaskInfo(
        name="agreement",
        description="subject-verb agreement: simple, across a relative clause, across a phrase",
        clean="I think that the farmer that the parents love",
        patch="I think that the farmers that the parents love",
        good=" is, was, has",
        bad=" are, were, have",
    ),
    drawers=_drawers,
    lexicon=_lexicon,
    mirrored=True,
)
