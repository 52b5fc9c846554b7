"""A user's own task: a JSONL file, one prompt a line, checked line by line.

    {"clean": "The farmer", "patch": "The farmers", "good": " is", "bad": [" are", " were"]}
    {"clean": [17, 4, 9], "patch": [17, 5, 9], "good": 3, "bad": 8, "labels": {"subject": 1}}
    {"clean": [[0.0, 0.5], [1.0, 0.0]], "patch": [[0, 0], [0, 0]], "good": 1, "bad": 0}

Keys: ``clean`` and ``patch``, text or a list of token ids, or, of a network that reads arrays,
nested lists of numbers in its shape; ``good`` and ``bad``, one answer or a list, each a text that
continues ``clean`` (with its leading space), a token id or the number of an output; optional
``labels``, token positions (a BOS counts); optional ``template``, a name that groups aligned lines;
optional ``split``, ``build`` or ``eval``, on all lines or on none: who gives no splits has them
dealt out with the seed.
Texts get the tokenizer's BOS, where it has one; ids are taken as they are. Blank lines are skipped.
Where clean and patch are the same tokens there is nothing to explain, under any ablation: refused.

A file is read in two steps, since the first needs no tokenizer: ``lines`` checks JSON, keys and
types, ``load`` tokenizes and checks lengths and answers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import ArrayExample, Example, TaskError, by, flat
from edgesweep.tasks.files.lines import BUILD, EVAL, Answer, GivenSide, Line, is_id, read, short
from edgesweep.tasks.prompt import Prompt

_SAME = (
    "clean and patch are the same {}, so nothing would be patched and every effect be 0 of 0; "
    "give patch another prompt, or drop the line"
)


@dataclass(frozen=True)
class Reader:
    """What the lines of a file are for.

    Attributes:
        encoder: the tokenizer; None where there is none.
        n_vocab: number of token ids, or of outputs; None: any.
        shape: of the arrays that the network reads; None: it reads tokens.
    """

    encoder: Encoder | None
    n_vocab: int | None
    shape: tuple[int, ...] | None


def load(path: Path, reader: Reader) -> list[tuple[Example, str]]:
    """The examples of a file and their given splits, in its order.

    Raises:
        TaskError: as ``read``, and for what the tokenizer makes of a line.
    """
    return [(_example(line, path.stem, reader), line.split) for line in read(path)]


def load_arrays(path: Path, shape: tuple[int, ...] | None) -> list[tuple[Example, str]]:
    """The same of a file of arrays with given splits; of any shape, if it is that of all lines.

    Raises:
        TaskError: as ``load``; no arrays, no splits.
    """
    first = read(path)[0]
    if not first.split:
        raise TaskError(f"{first.where}: key 'split' is missing; training needs {BUILD} and {EVAL}")
    if isinstance(first.clean, str):
        raise TaskError(f"{first.where}: clean is a text; give nested lists of numbers")
    return load(path, Reader(None, None, shape or flat(first.clean)[0]))


def split(
    path: Path, lines: list[tuple[Example, str]], n_build: int, n_eval: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Shuffles the lines with the seed and deals out the splits, evaluation first.

    Evaluation lines do not change with ``n_build``. A clean side that is in the file several
    times, say with several patches, never enters both splits.

    Raises:
        TaskError: where the file has too few lines.
    """
    shuffled = list(lines)
    random.Random(seed).shuffle(shuffled)
    evaluation = [example for example, given in shuffled if given != BUILD][:n_eval]
    seen = {example.clean for example in evaluation}
    rest = [example for example, given in shuffled if given != EVAL]
    build = [example for example in rest if example.clean not in seen][:n_build]
    if len(build) < n_build or len(evaluation) < n_eval:
        said = [given for _, given in lines]
        of_each = f", {said.count(BUILD)} of split build" if any(said) else ""
        raise TaskError(
            f"task file {path} has {len(lines)} prompts ({len({e.clean for e, _ in lines})} "
            f"different in clean{of_each}), too few for n_build = {n_build} and n_eval = "
            f"{n_eval}; add lines or lower n_build or n_eval"
        )
    return build, evaluation


def _example(line: Line, task: str, reader: Reader) -> Example:
    if reader.shape is not None:
        return _array(line, task, reader.shape, reader.n_vocab)
    return _prompt(line, task, reader.encoder, reader.n_vocab)


def _array(line: Line, task: str, shape: tuple[int, ...], n_outputs: int | None) -> ArrayExample:
    clean = _numbers(line, "clean", line.clean, shape)
    patch = _numbers(line, "patch", line.patch, shape)
    for key, answers in (("good", line.good), ("bad", line.bad)):
        for answer in answers:
            if isinstance(answer, str):
                raise TaskError(
                    f"{line.where}: {key} is the text {short(answer)}; this model's answers are "
                    "numbers of its outputs"
                )
            _check_id(line, key, answer, n_outputs)
    if clean == patch:
        raise TaskError(f"{line.where}: {_SAME.format(f'{len(clean)} numbers')}")
    good, bad = (tuple(map(int, answers)) for answers in (line.good, line.bad))
    try:
        return ArrayExample(clean, patch, good, bad, task, line.template, shape)
    except TaskError as error:
        raise TaskError(f"{line.where}: {error}") from error


def _numbers(line: Line, key: str, value: GivenSide, shape: tuple[int, ...]) -> tuple[float, ...]:
    if isinstance(value, str):
        raise TaskError(
            f"{line.where}: {key} is the text {short(value)}; this model reads arrays: give "
            f"nested lists of {by(shape)} numbers"
        )
    found, numbers = flat(value)
    if found != shape:
        raise TaskError(
            f"{line.where}: {key} has the shape {by(found)}; this model reads {by(shape)}"
        )
    return numbers


def _prompt(line: Line, task: str, encoder: Encoder | None, n_vocab: int | None) -> Prompt:
    clean = _ids(line, "clean", line.clean, encoder, n_vocab)
    patch = _ids(line, "patch", line.patch, encoder, n_vocab)
    good = tuple(_answer_id(line, "good", answer, encoder, n_vocab) for answer in line.good)
    bad = tuple(_answer_id(line, "bad", answer, encoder, n_vocab) for answer in line.bad)
    if clean == patch:
        raise TaskError(f"{line.where}: {_SAME.format(f'{len(clean)} tokens')}")
    clean_text = line.clean if isinstance(line.clean, str) else ""
    patch_text = line.patch if isinstance(line.patch, str) else ""
    labels = {"end": len(clean) - 1} | line.labels
    try:
        return Prompt(clean, patch, good, bad, task, line.template, labels, clean_text, patch_text)
    except TaskError as error:
        raise TaskError(f"{line.where}: {error}") from error


def _ids(
    line: Line, key: str, value: GivenSide, encoder: Encoder | None, n_vocab: int | None
) -> tuple[int, ...]:
    if isinstance(value, str):
        encoder = _encoder(line, key, value, encoder)
        ids = encoder.encode(value).ids
        if not encoder.knows(ids):
            raise TaskError(
                f"{line.where}: {key} is {short(value)}, which has words unknown to this model's "
                "tokenizer; "
                "use words that it knows, or token ids"
            )
        return ids
    if not all(map(is_id, value)):
        raise TaskError(
            f"{line.where}: {key} is {short(value)}; allowed: a text or a list of token ids (this "
            "model reads no arrays)"
        )
    for token in value:
        _check_id(line, key, token, n_vocab)
    return tuple(value)


def _answer_id(
    line: Line, key: str, answer: Answer, encoder: Encoder | None, n_vocab: int | None
) -> int:
    if isinstance(answer, int):
        _check_id(line, key, answer, n_vocab)
        return answer
    encoder = _encoder(line, key, answer, encoder)
    before = line.clean if isinstance(line.clean, str) else ""
    found = encoder.answers(before, [answer])
    if found is None:
        raise TaskError(f"{line.where}: {_not_one_token(key, before, answer, encoder)}")
    return found[0]


def _not_one_token(key: str, before: str, answer: str, encoder: Encoder) -> str:
    """Says how the answer splits, or that it melts into the end of the prompt."""
    if not encoder.is_apart(before, answer):
        pieces = encoder.pieces(before + answer)[-2:]
        what = f"joins the end of clean: together they end in the tokens {pieces}"
    else:
        pieces = encoder.pieces(before + answer)[len(encoder.pieces(before)) :]
        known = "" if len(pieces) > 1 else " unknown to the tokenizer"
        what = f"is {len(pieces)} token{'s' * (len(pieces) > 1)}{known}: {pieces}"
    spaced = not answer.startswith(" ") and encoder.answers(before, [f" {answer}"]) is not None
    hint = f"write {' ' + answer!r}, with its space" if spaced else "give one token or its id"
    return f"{key} {answer!r} {what}; an answer is one token: {hint}"


def _encoder(line: Line, key: str, value: str, encoder: Encoder | None) -> Encoder:
    if encoder is None:
        raise TaskError(
            f"{line.where}: {key} is the text {short(value)} and this model has no tokenizer; "
            "give token ids"
        )
    return encoder


def _check_id(line: Line, key: str, token: int, n_vocab: int | None) -> None:
    if n_vocab is not None and token >= n_vocab:
        raise TaskError(f"{line.where}: {key} has token id {token}; allowed: 0 to {n_vocab - 1}")
