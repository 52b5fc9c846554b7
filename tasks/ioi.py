"""Indirect object identification: who was given it?

    clean   When Mary and John went to the store, John gave a book to    -> Mary, not John
    patch   When Mary and John went to the store, Paul gave a book to

The patch puts a third name in the place of the subject's second mention and changes nothing else,
so the two names of the first clause stay possible and the reason to prefer one is gone.

Two orders: ABBA names the indirect object (IO) first, BABA the subject (S). They share a template:
both have a name at every place where the other has one. Names, places and objects are those that
are one token each for the tokenizer at hand.

Labels: ``IO``; ``S1`` and ``S2``, the subject's first and second mention; ``end``.

Source: Wang et al., 2023; patch as in Dhimoïla, Emerging structures, appendix D.2.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial

from edgesweep.tasks.drafts import Draft, Drawer, Generator, fill, fixed_text
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import TaskInfo

FRAMES = {
    "when": "When {A} and {B} went to the {place}, {S2} gave a {object} to",
    "then": "Then, {A} and {B} went to the {place}. {S2} gave a {object} to",
    "after": "After {A} and {B} went to the {place}, {S2} gave a {object} to",
    "while": "While {A} and {B} were at the {place}, {S2} gave a {object} to",
}
NAMES = (
    *("Mary", "John", "Tom", "James", "Dan", "Martin", "Amy", "Sarah", "Mark", "Paul", "Peter"),
    *("Anna", "Emma", "Jack", "Kate", "Laura", "Lisa", "Lucy", "Michael", "David", "Robert"),
    *("Alice", "Simon", "Thomas", "William", "George", "Henry", "Jane", "Julia", "Maria"),
    *("Susan", "Helen", "Rachel", "Kevin", "Steven", "Adam", "Ben", "Sam", "Alex", "Max"),
)
PLACES = ("store", "garden", "school", "hospital", "office", "station", "house", "park", "market")
OBJECTS = ("book", "ring", "kiss", "bone", "basket", "computer", "drink", "snack", "ball", "letter")

_N_ROLES = 3  # the indirect object, the subject and the third name of the patch


def _drawers(encoder: Encoder) -> Mapping[str, Drawer]:
    names = [name for name in NAMES if encoder.is_single(name)]
    places = [place for place in PLACES if encoder.is_single(place)]
    objects = [thing for thing in OBJECTS if encoder.is_single(thing)]
    if len(names) < _N_ROLES or not places or not objects:
        raise TaskError(
            f"task ioi: {len(names)} of {len(NAMES)} names, {len(places)} of {len(PLACES)} places "
            f"and {len(objects)} of {len(OBJECTS)} objects are single tokens for this tokenizer; "
            f"it needs {_N_ROLES}, 1 and 1: use another task or model"
        )
    return {
        f"{template}/{order}": partial(_draft, template, order, names, places, objects)
        for template in FRAMES
        for order in ("ABBA", "BABA")
    }


def _draft(
    template: str,
    order: str,
    names: list[str],
    places: list[str],
    objects: list[str],
    rng: random.Random,
) -> Draft:
    indirect, subject, third = rng.sample(names, _N_ROLES)
    first, second = (indirect, subject) if order == "ABBA" else (subject, indirect)
    io_slot, s1_slot = ("A", "B") if order == "ABBA" else ("B", "A")
    words = {"A": first, "B": second, "place": rng.choice(places), "object": rng.choice(objects)}
    return Draft(
        template=template,
        clean=fill(FRAMES[template], S2=subject, **words),
        patch=fill(FRAMES[template], S2=third, **words),
        good=(f" {indirect}",),
        bad=(f" {subject}",),
        labels={"IO": io_slot, "S1": s1_slot, "S2": "S2"},
    )


def _lexicon() -> Iterator[str]:
    for frame in FRAMES.values():
        yield from fixed_text(frame)
    for word in (*NAMES, *PLACES, *OBJECTS):
        yield f" {word}"


IOI = Generator(
    info=TaskInfo(
        name="ioi",
        description="indirect object identification: the name that was mentioned only once",
        clean="When Mary and John went to the store, John gave a book to",
        patch="When Mary and John went to the store, Paul gave a book to",
        good=" Mary",
        bad=" John",
    ),
    drawers=_drawers,
    lexicon=_lexicon,
)
