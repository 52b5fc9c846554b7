'''Docstrings: which argument is described next?

    clean   def port(self, oil, land, load, size, files, last):
                """Return the crime population

                :param load: unit dark
                :param size: river music
                :param                                            -> files, not load, size, oil, …

    patch   the same, with other names for all arguments, and two more in the place of the two that
            are described, which the signature does not have

The docstring describes arguments in the order of the signature, so the next one is that which
follows the last one described. The arguments around them (two before, one after) and those already
described are the wrong answers. The patch keeps every word that is no argument and leaves nothing
to follow: none of its names is in the clean prompt, and those it describes are not in its own
signature (the "random random" corruption of the source).

Three ways to write the description: ":param", ":arg" and "@param", a template each. Names and words
are those that are one token each for the tokenizer at hand.

Labels: ``A_def``, ``B_def``, ``C_def``, the arguments in the signature, C the answer; ``A_doc`` and
``B_doc``, where they are described; ``end``.

Source: Heimersheim and Janiak, 2023.
'''

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial

from edgesweep.tasks.drafts import Draft, Drawer, Generator, fill, fixed_text
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import TaskInfo

_FRAME = '''def {method}(self, {before1}, {before2}, {A_def}, {B_def}, {C_def}, {after}):
    """Return the {word1} {word2}

    MARK {A_doc}: {word3} {word4}
    MARK {B_doc}: {word5} {word6}
    MARK'''
FRAMES = {
    "param": _FRAME.replace("MARK", ":param"),
    "arg": _FRAME.replace("MARK", ":arg"),
    "at": _FRAME.replace("MARK", "@param"),
}
METHODS = ("port", "read", "send", "open", "move", "find", "save", "make", "test", "run")
NAMES = (
    *("load", "size", "files", "last", "oil", "land", "file", "node", "value", "key", "index"),
    *("data", "name", "path", "mode", "color", "width", "height", "start", "image", "table"),
    *("user", "group", "score", "level", "count", "label", "model", "state", "limit", "title"),
    *("order", "shape", "point", "page", "source", "target", "items", "line", "time", "text"),
)
WORDS = (
    *("crime", "population", "unit", "dark", "river", "music", "water", "horse", "garden"),
    *("bridge", "winter", "summer", "paper", "stone", "forest", "island", "market", "window"),
    *("street", "doctor", "dinner", "letter", "animal", "silver", "church", "student"),
)

_SIGNATURE = ("before1", "before2", "A_def", "B_def", "C_def", "after")
_N_NAMES = 2 * len(_SIGNATURE) + 2  # the patch has its own, and describes two more
_N_WORDS = 6


def _drawers(encoder: Encoder) -> Mapping[str, Drawer]:
    names = [name for name in NAMES if encoder.is_single(name)]
    words = [word for word in WORDS if encoder.is_single(word)]
    methods = [method for method in METHODS if encoder.is_single(method)]
    if len(names) < _N_NAMES or len(words) < _N_WORDS or not methods:
        raise TaskError(
            f"task docstring: {len(names)} of {len(NAMES)} argument names, {len(words)} of "
            f"{len(WORDS)} words and {len(methods)} of {len(METHODS)} method names are single "
            f"tokens for this tokenizer; it needs {_N_NAMES}, {_N_WORDS} and 1: use another task "
            "or model"
        )
    return {template: partial(_draft, template, methods, names, words) for template in FRAMES}


def _draft(
    template: str, methods: list[str], names: list[str], words: list[str], rng: random.Random
) -> Draft:
    drawn = rng.sample(names, _N_NAMES)
    n = len(_SIGNATURE)
    clean = dict(zip(_SIGNATURE, drawn, strict=False))
    patch = dict(zip((*_SIGNATURE, "A_doc", "B_doc"), drawn[n:], strict=True))
    described = {"A_doc": clean["A_def"], "B_doc": clean["B_def"]}
    texts = {f"word{i + 1}": word for i, word in enumerate(rng.sample(words, _N_WORDS))}
    texts["method"] = rng.choice(methods)
    return Draft(
        template=template,
        clean=fill(FRAMES[template], **clean, **described, **texts),
        patch=fill(FRAMES[template], **patch, **texts),
        good=(f" {clean['C_def']}",),
        bad=tuple(f" {clean[slot]}" for slot in _SIGNATURE if slot != "C_def"),
        labels={slot: slot for slot in ("A_def", "B_def", "C_def", "A_doc", "B_doc")},
    )


def _lexicon() -> Iterator[str]:
    for frame in FRAMES.values():
        yield from fixed_text(frame)
    for word in (*METHODS, *NAMES, *WORDS):
        yield f" {word}"


def _example(names: str, described: str) -> str:
    slots = dict(zip((*_SIGNATURE, "A_doc", "B_doc"), f"{names} {described}".split(), strict=True))
    words = ["crime", "population", "unit", "dark", "river", "music"]
    texts = {f"word{i + 1}": word for i, word in enumerate(words)}
    return fill(FRAMES["param"], method="port", **slots, **texts).text


DOCSTRING = Generator(
    info=TaskInfo(
        name="docstring",
        description="docstrings: the argument of the signature that is described next",
        clean=_example("oil land load size files last", "load size"),
        patch=_example("color width image table user group", "score level"),
        good=" files",
        bad=" oil",
    ),
    drawers=_drawers,
    lexicon=_lexicon,
)
