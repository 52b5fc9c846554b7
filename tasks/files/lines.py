"""The lines of a user's task file: JSON, keys and types, checked without a tokenizer.

``userfile`` says what the keys mean.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesweep.tasks.example import TaskError, flat

REQUIRED = ("clean", "patch", "good", "bad")
OPTIONAL = ("labels", "template", "split")
DEFAULT_TEMPLATE = "line"
#: values of ``split``
BUILD, EVAL = "build", "eval"

#: a text, token ids, or nested lists of numbers
GivenSide = str | list[Any]
Answer = str | int


@dataclass(frozen=True)
class Line:
    """A line of the file with the right keys and types; ``where`` is "file, line number"."""

    where: str
    clean: GivenSide
    patch: GivenSide
    good: list[Answer]
    bad: list[Answer]
    labels: dict[str, int]
    template: str
    split: str


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
    if 0 < sum(bool(line.split) for line in lines) < len(lines):
        where = next(line.where for line in lines if not line.split)
        raise TaskError(f"{where}: key 'split' is missing; give it on every line or on none")
    return lines


def _line(where: str, raw: str) -> Line:
    try:
        entry = json.loads(raw)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 200,000 brackets
        raise TaskError(f"{where}: no prompt: {error}") from error
    if not isinstance(entry, dict):
        raise TaskError(f"{where}: {short(entry)} is no JSON object; write {{...}} with {_keys()}")
    _check_keys(where, entry)
    return Line(
        where=where,
        clean=_side(where, "clean", entry["clean"]),
        patch=_side(where, "patch", entry["patch"]),
        good=_answers(where, "good", entry["good"]),
        bad=_answers(where, "bad", entry["bad"]),
        labels=_labels(where, entry.get("labels", {})),
        template=_template(where, entry.get("template", DEFAULT_TEMPLATE)),
        split=_split(where, entry["split"]) if "split" in entry else "",
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


def _side(where: str, key: str, value: Any) -> GivenSide:
    if is_text(value):
        return value
    try:
        if isinstance(value, list):
            flat(value)
            return value
        why = ""
    except TaskError as error:
        why = f": {error}" if any(isinstance(item, list) for item in value) else ""
    raise TaskError(
        f"{where}: {key} is {short(value)}{why}; allowed: a text or a list of token ids (nested "
        "lists of numbers, of a model that reads arrays)"
    )


def _answers(where: str, key: str, value: Any) -> list[Answer]:
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise TaskError(f"{where}: {key} is empty; give at least one answer")
    for answer in answers:
        if not (is_id(answer) or is_text(answer)):
            raise TaskError(
                f"{where}: {key} has {short(answer)}; "
                "allowed: a text, a token id, or a list of them"
            )
    return answers


def _labels(where: str, value: Any) -> dict[str, int]:
    if isinstance(value, dict) and all(is_id(position) for position in value.values()):
        return value
    raise TaskError(
        f"{where}: labels is {short(value)}; allowed: an object of names and token positions"
    )


def _template(where: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise TaskError(f"{where}: template is {short(value)}; allowed: a name")


def _split(where: str, value: Any) -> str:
    if value in (BUILD, EVAL):
        return str(value)
    raise TaskError(f"{where}: split is {short(value)}; allowed: {BUILD}, {EVAL}")


def is_text(value: Any) -> bool:
    """Also no half of a surrogate pair, which JSON can spell and no tokenizer reads."""
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _keys() -> str:
    return f"{', '.join(REQUIRED)} and, if wanted, {', '.join(OPTIONAL)}"


def short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
