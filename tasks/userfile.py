"""A user's own task: a JSONL file, one prompt a line, checked line by line.

    {"clean": "The farmer", "patch": "The farmers", "good": " is", "bad": [" are", " were"]}
    {"clean": [17, 4, 9], "patch": [17, 5, 9], "good": 3, "bad": 8, "labels": {"subject": 1}}

Keys: ``clean`` and ``patch``, text or a list of token ids; ``good`` and ``bad``, one answer or a
list, each a text that continues ``clean`` (with its leading space) or a token id; optional
``labels``, token positions (a BOS counts); optional ``template``, a name that groups aligned lines.
Texts get the tokenizer's BOS, where it has one; ids are taken as they are. Blank lines are skipped.
Where clean and patch are the same tokens there is nothing to explain, under any ablation: refused.

A file is read in two steps, since the first needs no tokenizer: ``read`` checks JSON, keys and
types, ``load`` tokenizes and checks lengths and answers.
"""

from __future__ import annotations

import difflib
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.prompt import Prompt, TaskError

REQUIRED = ("clean", "patch", "good", "bad")
OPTIONAL = ("labels", "template")
DEFAULT_TEMPLATE = "line"

Tokens = str | list[int]
Answer = str | int


@dataclass(frozen=True)
class Line:
    """A line of the file with the right keys and types; ``where`` is "file, line number"."""

    where: str
    clean: Tokens
    patch: Tokens
    good: list[Answer]
    bad: list[Answer]
    labels: dict[str, int]
    template: str


def read(path: Path) -> list[Line]:
    """Reads the lines of a file and checks what needs no tokenizer.

    Raises:
        TaskError: names the file, the line, the key, the value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"task file {path} cannot be read as UTF-8 text: {error}") from error
    lines = [
        _line(f"{path}, line {number}", raw)
        for number, raw in enumerate(text.split("\n"), start=1)
        if raw.strip()
    ]
    if not lines:
        raise TaskError(f"task file {path} has no prompts; give one JSON object a line")
    return lines


def load(path: Path, encoder: Encoder | None, n_vocab: int | None) -> list[Prompt]:
    """The prompts of a file, in its order.

    Raises:
        TaskError: as ``read``, and for what the tokenizer makes of a line.
    """
    return [_prompt(line, path.stem, encoder, n_vocab) for line in read(path)]


def split(
    path: Path, prompts: list[Prompt], n_build: int, n_eval: int, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """Shuffles the prompts with the seed and deals out the splits, evaluation first.

    Evaluation prompts do not change with ``n_build``. A clean prompt that is in the file several
    times, say with several patches, never enters both splits.

    Raises:
        TaskError: where the file has too few prompts.
    """
    shuffled = list(prompts)
    random.Random(seed).shuffle(shuffled)
    evaluation = shuffled[:n_eval]
    seen = {prompt.clean for prompt in evaluation}
    build = [prompt for prompt in shuffled[n_eval:] if prompt.clean not in seen][:n_build]
    if len(build) < n_build or len(evaluation) < n_eval:
        raise TaskError(
            f"task file {path} has {len(prompts)} prompts ({len({p.clean for p in prompts})} "
            f"different in clean), too few for n_build = {n_build} and n_eval = {n_eval}; "
            "add lines or lower n_build or n_eval"
        )
    return build, evaluation


def _line(where: str, raw: str) -> Line:
    try:
        entry = json.loads(raw)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 200,000 brackets
        raise TaskError(f"{where}: no prompt: {error}") from error
    if not isinstance(entry, dict):
        raise TaskError(f"{where}: {_short(entry)} is no JSON object; write {{...}} with {_keys()}")
    _check_keys(where, entry)
    return Line(
        where=where,
        clean=_tokens(where, "clean", entry["clean"]),
        patch=_tokens(where, "patch", entry["patch"]),
        good=_answers(where, "good", entry["good"]),
        bad=_answers(where, "bad", entry["bad"]),
        labels=_labels(where, entry.get("labels", {})),
        template=_template(where, entry.get("template", DEFAULT_TEMPLATE)),
    )


def _check_keys(where: str, entry: dict[str, Any]) -> None:
    for key in entry:
        if key not in (*REQUIRED, *OPTIONAL):
            near = difflib.get_close_matches(key, (*REQUIRED, *OPTIONAL), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TaskError(f"{where}: unknown key {key!r}; {hint}allowed: {_keys()}")
    for key in REQUIRED:
        if key not in entry:
            raise TaskError(f"{where}: key {key!r} is missing; needed: {', '.join(REQUIRED)}")


def _tokens(where: str, key: str, value: Any) -> Tokens:
    if _is_text(value):
        return value
    if isinstance(value, list) and value and all(_is_id(item) for item in value):
        return value
    raise TaskError(f"{where}: {key} is {_short(value)}; allowed: a text or a list of token ids")


def _answers(where: str, key: str, value: Any) -> list[Answer]:
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise TaskError(f"{where}: {key} is empty; give at least one answer")
    for answer in answers:
        if not (_is_id(answer) or _is_text(answer)):
            raise TaskError(
                f"{where}: {key} has {_short(answer)}; "
                "allowed: a text, a token id, or a list of them"
            )
    return answers


def _labels(where: str, value: Any) -> dict[str, int]:
    if isinstance(value, dict) and all(_is_id(position) for position in value.values()):
        return value
    raise TaskError(
        f"{where}: labels is {_short(value)}; allowed: an object of names and token positions"
    )


def _template(where: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise TaskError(f"{where}: template is {_short(value)}; allowed: a name")


def _prompt(line: Line, task: str, encoder: Encoder | None, n_vocab: int | None) -> Prompt:
    clean = _ids(line, "clean", line.clean, encoder, n_vocab)
    patch = _ids(line, "patch", line.patch, encoder, n_vocab)
    good = tuple(_answer_id(line, "good", answer, encoder, n_vocab) for answer in line.good)
    bad = tuple(_answer_id(line, "bad", answer, encoder, n_vocab) for answer in line.bad)
    if clean == patch:
        raise TaskError(
            f"{line.where}: clean and patch are the same {len(clean)} tokens, so nothing would be "
            "patched and every effect be 0 of 0; give patch another prompt, or drop the line"
        )
    clean_text = line.clean if isinstance(line.clean, str) else ""
    patch_text = line.patch if isinstance(line.patch, str) else ""
    labels = {"end": len(clean) - 1} | line.labels
    try:
        return Prompt(clean, patch, good, bad, task, line.template, labels, clean_text, patch_text)
    except TaskError as error:
        raise TaskError(f"{line.where}: {error}") from error


def _ids(
    line: Line, key: str, value: Tokens, encoder: Encoder | None, n_vocab: int | None
) -> tuple[int, ...]:
    if isinstance(value, str):
        encoder = _encoder(line, key, value, encoder)
        ids = encoder.encode(value).ids
        if not encoder.knows(ids):
            raise TaskError(
                f"{line.where}: {key} is {_short(value)}, which has words unknown to this model's "
                "tokenizer; "
                "use words that it knows, or token ids"
            )
        return ids
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
            f"{line.where}: {key} is the text {_short(value)} and this model has no tokenizer; "
            "give token ids"
        )
    return encoder


def _check_id(line: Line, key: str, token: int, n_vocab: int | None) -> None:
    if n_vocab is not None and token >= n_vocab:
        raise TaskError(f"{line.where}: {key} has token id {token}; allowed: 0 to {n_vocab - 1}")


def _is_text(value: Any) -> bool:
    """Also no half of a surrogate pair, which JSON can spell and no tokenizer reads."""
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _keys() -> str:
    return f"{', '.join(REQUIRED)} and, if wanted, {', '.join(OPTIONAL)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
