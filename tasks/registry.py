"""Names to prompts: the built-in tasks, mixtures ``a+b+c`` of tasks, users' JSONL files, and the
prompts that a model brings in its own folder (``own``)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgesweep.tasks import userfile
from edgesweep.tasks.agreement import AGREEMENT
from edgesweep.tasks.docstring import DOCSTRING
from edgesweep.tasks.drafts import Generator
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.greater_than import GREATER_THAN
from edgesweep.tasks.ioi import IOI
from edgesweep.tasks.prompt import Prompt, TaskData, TaskError, TaskInfo
from edgesweep.tasks.sampling import BUILD, EVALUATION, sample

GENERATORS: dict[str, Generator] = {
    g.info.name: g for g in (IOI, GREATER_THAN, AGREEMENT, DOCSTRING)
}

# How a text falls into the words of `vocabulary`: a word or a mark with the space before it, digits
# one by one after a space of their own, spaces and line ends one by one.
WORD_PATTERN = r" ?[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]| |\n"

# The task of a model that brings its prompts, and the file they are in, in the model's folder.
OWN_TASK = "own"
OWN_PROMPTS = "prompts.jsonl"

Splits = tuple[list[Prompt], list[Prompt]]


@dataclass(frozen=True)
class _File:
    """A member task in a JSONL file; ``path`` is None where no model has said which."""

    name: str
    path: Path | None


def list_tasks() -> list[TaskInfo]:
    """The built-in tasks in their fixed order, with an example each."""
    return [generator.info for generator in GENERATORS.values()]


def vocabulary() -> tuple[str, ...]:
    """Every token that a built-in task can need, answers included, sorted.

    A text splits into these by ``WORD_PATTERN``: enough for a word-level tokenizer that knows all
    built-in prompts. A word has its leading space, except where it begins a prompt.
    """
    words = {
        word
        for generator in GENERATORS.values()
        for text in generator.lexicon()
        for word in re.findall(WORD_PATTERN, text)
    }
    return tuple(sorted(words))


def check_task_name(name: str, base: Path | None = None) -> None:
    """Checks all of a task's name, and of its files, that needs no tokenizer.

    Raises:
        TaskError: an unknown name (with the nearest known one), a member named twice, a JSONL file
            that is not there, is named as a built-in task or has a line that no tokenizer could
            make right.
    """
    for member in _members(name, base):
        if isinstance(member, _File) and member.path is not None:
            userfile.read(member.path)


def build_task(
    name: str,
    tokenizer: Any,
    n_build: int,
    n_eval: int,
    seed: int,
    *,
    base: Path | None = None,
    n_vocab: int | None = None,
    own: Path | None = None,
) -> TaskData:
    """Makes the prompts of a task.

    Args:
        name: a built-in task, several joined by ``+``, the path of a JSONL file (relative to
            ``base``), or ``own``. In a mixture each member's prompts are those it has alone.
        tokenizer: a fast tokenizer; None for a model without one, for JSONL tasks of token ids.
        n_build, n_eval: prompts per member in each split.
        seed: the same seed gives the same prompts, on every machine.
        n_vocab: the model's number of token ids; ids in a JSONL file are checked against it.
        own: the model's folder, whose prompts the task ``own`` is.

    Raises:
        TaskError: one line, on anything that keeps the prompts from being made.
    """
    if n_build < 0 or n_eval < 0:
        raise TaskError(f"n_build is {n_build} and n_eval {n_eval}; allowed: 0 or more")
    members = _members(name, base, own)
    encoder = None if tokenizer is None else Encoder(tokenizer)
    build: list[Prompt] = []
    evaluation: list[Prompt] = []
    for member in members:
        splits = _member_splits(member, encoder, n_build, n_eval, seed, n_vocab)
        build += splits[0]
        evaluation += splits[1]
    names = tuple(_name(member) for member in members)
    return TaskData("+".join(names), names, tuple(build), tuple(evaluation))


def _member_splits(
    member: Generator | _File,
    encoder: Encoder | None,
    n_build: int,
    n_eval: int,
    seed: int,
    n_vocab: int | None,
) -> Splits:
    if isinstance(member, _File):
        path = _own_prompts(member.path)
        prompts = [replace(p, task=member.name) for p in userfile.load(path, encoder, n_vocab)]
        return userfile.split(path, prompts, n_build, n_eval, seed)
    if encoder is None:
        raise TaskError(
            f"task {member.info.name} needs a tokenizer and this model has none; "
            "use a JSONL task of token ids"
        )
    return (
        sample(member, encoder, BUILD, n_build, seed),
        sample(member, encoder, EVALUATION, n_eval, seed),
    )


def _members(name: str, base: Path | None, own: Path | None = None) -> list[Generator | _File]:
    """The members of a task name. A file whose own name holds a + is one member."""
    whole = _path(name, base)
    if whole is not None and _is_file(whole):
        return [_file(whole)]
    members = [_member(part.strip(), base, own) for part in name.split("+")]
    if found := alike([_name(member) for member in members]):
        one, other = found
        how = "twice" if one == other else f"beside {one!r}, which differs in case only"
        raise TaskError(f"task {name!r} has the member {other!r} {how}; name each once")
    return members


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that are one on a disk that knows no case: names become folders."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            return seen[name.lower()], name
        seen[name.lower()] = name
    return None


def _member(name: str, base: Path | None, own: Path | None) -> Generator | _File:
    if name == OWN_TASK:
        return _File(OWN_TASK, None if own is None else own / OWN_PROMPTS)
    path = _path(name, base)
    if path is not None:
        if not _is_file(path):
            raise TaskError(f"task file {path} is not there; give the path of a JSONL file")
        return _file(path)
    if name not in GENERATORS:
        known = (*GENERATORS, OWN_TASK)
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TaskError(
            f"unknown task {name!r}; {hint}allowed: {', '.join(known)}, several joined by +, "
            "or a path ending in .jsonl"
        )
    return GENERATORS[name]


def _file(path: Path) -> _File:
    """A user's file. Its name is all that tables, folders and known circuits know it by."""
    taken = {name: f"the built-in task {name!r}" for name in GENERATORS}
    taken[OWN_TASK] = f"the task {OWN_TASK!r} of a model's own prompts"
    if path.stem.lower() in taken:
        raise TaskError(
            f"task file {path} has the name of {taken[path.stem.lower()]} and would be taken for "
            f"it in tables and known circuits; rename the file, as my-{path.name}"
        )
    return _File(path.stem, path)


def _own_prompts(path: Path | None) -> Path:
    if path is None or not path.is_file():
        raise TaskError(
            f"task {OWN_TASK} is the prompts in the model's folder and this model has no "
            f"{OWN_PROMPTS}; use one that has (wired-induction, a tracr folder) or another task"
        )
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long; a folder closed to us
        raise TaskError(f"task file {str(path)[:200]!r} cannot be read: {error}"[:400]) from None


def _path(name: str, base: Path | None) -> Path | None:
    return (base or Path()) / name if name.endswith(".jsonl") else None


def _name(member: Generator | _File) -> str:
    return member.name if isinstance(member, _File) else member.info.name
