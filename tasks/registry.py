"""Names to prompts: the built-in tasks, mixtures ``a+b+c`` of tasks, users' JSONL files, texts
(``corpus``), the prompts that a model brings in its own folder (``own``), and sets of images
(``vision``)."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from edgesweep.tasks.agreement import AGREEMENT
from edgesweep.tasks.digits import DIGITS
from edgesweep.tasks.docstring import DOCSTRING
from edgesweep.tasks.drafts import Generator
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import Example, TaskError, by
from edgesweep.tasks.files import corpus, userfile
from edgesweep.tasks.files.corpus import CONTEXT, Corpus
from edgesweep.tasks.files.userfile import Reader
from edgesweep.tasks.greater_than import GREATER_THAN
from edgesweep.tasks.ioi import IOI
from edgesweep.tasks.modadd import MODADD
from edgesweep.tasks.prompt import ArrayTask, TaskData, TaskInfo, TokenTask
from edgesweep.tasks.sampling import BUILD, EVALUATION, sample
from edgesweep.tasks.vision import image_task, is_images

GENERATORS: dict[str, Generator] = {
    g.info.name: g for g in (IOI, GREATER_THAN, AGREEMENT, DOCSTRING)
}

ARRAYS: dict[str, ArrayTask] = {DIGITS.info.name: DIGITS}
TOKENS: dict[str, TokenTask] = {MODADD.info.name: MODADD}
BUILT_IN: dict[str, Generator | ArrayTask | TokenTask] = {**GENERATORS, **ARRAYS, **TOKENS}

# How a text falls into the words of `vocabulary`: a word or a mark with the space before it, digits
# one by one after a space of their own, spaces and line ends one by one.
WORD_PATTERN = r" ?[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]| |\n"

# The task of a model that brings its prompts, and the file they are in, in the model's folder.
OWN_TASK = "own"
OWN_PROMPTS = "prompts.jsonl"

Splits = tuple[list[Example], list[Example]]


@dataclass(frozen=True)
class _File:
    """A member task in a JSONL file; ``path`` is None where no model has said which."""

    name: str
    path: Path | None


_Member = Generator | ArrayTask | TokenTask | _File | Corpus


def list_tasks() -> list[TaskInfo]:
    """The built-in tasks in their fixed order, with an example each."""
    return [task.info for task in BUILT_IN.values()]


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
            make right, a text that is none.
    """
    for member in _members(name, base):
        if isinstance(member, _File) and member.path is not None:
            userfile.read(member.path)
        elif isinstance(member, Corpus):
            corpus.read(member.path)


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
    shape: tuple[int, ...] | None = None,
    context: int = CONTEXT,
    hold: Callable[[Iterable[Example]], Sequence[Example]] = tuple,
) -> TaskData:
    """Makes the prompts of a task.

    Args:
        name: a built-in task, several joined by ``+``, the path of a JSONL file, of a text or of a
            set of images (relative to ``base``), or ``own``. In a mixture each member's prompts are
            those it has alone.
        tokenizer: a fast tokenizer; None for a model without one, for JSONL tasks of token ids.
        n_build, n_eval: prompts per member in each split.
        seed: the same seed gives the same prompts, on every machine.
        n_vocab: the model's number of token ids, or of its outputs; what a JSONL file names is
            checked against it.
        own: the model's folder, whose prompts the task ``own`` is, and whose config may say what
            the model was trained on.
        shape: of the arrays that the model reads; None: it reads tokens.
        context: tokens of each window of a text.
        hold: what keeps the prompts of a split, which it is given one after another.

    Raises:
        TaskError: one line, on anything that keeps the prompts from being made.
    """
    if n_build < 0 or n_eval < 0:
        raise TaskError(f"n_build is {n_build} and n_eval {n_eval}; allowed: 0 or more")
    members = _members(name, base, own)
    encoder = None if tokenizer is None else Encoder(tokenizer)
    reader = Reader(encoder, n_vocab, shape)
    draw = partial(_member_splits, reader=reader, n_build=n_build, n_eval=n_eval, seed=seed)
    splits = [draw(member, context=context, own=own) for member in members]
    build, evaluation = (hold(chain.from_iterable(of)) for of in zip(*splits, strict=True))
    names = tuple(_name(member) for member in members)
    classes = getattr(members[0], "classes", ()) if len(members) == 1 else ()
    return TaskData("+".join(names), names, build, evaluation, classes)


def _member_splits(
    member: _Member,
    reader: Reader,
    n_build: int,
    n_eval: int,
    seed: int,
    context: int,
    own: Path | None,
) -> tuple[Iterable[Example], Iterable[Example]]:
    if isinstance(member, _File):
        path = _own_prompts(member.path)
        lines = [(replace(e, task=member.name), s) for e, s in userfile.load(path, reader)]
        return userfile.split(path, lines, n_build, n_eval, seed)
    _check_reads(member, reader)
    if isinstance(member, TokenTask):
        tokens = reader.n_vocab or 0
        return (
            member.draw(BUILD, n_build, seed, tokens, own),
            member.draw(EVALUATION, n_eval, seed, tokens, own),
        )
    if isinstance(member, ArrayTask):
        return list(member.draw(BUILD, n_build, seed)), list(member.draw(EVALUATION, n_eval, seed))
    assert reader.encoder is not None
    if isinstance(member, Corpus):
        return corpus.draw(member, reader.encoder, context, n_build, n_eval, seed)
    return (
        sample(member, reader.encoder, BUILD, n_build, seed),
        sample(member, reader.encoder, EVALUATION, n_eval, seed),
    )


def _check_reads(task: Generator | ArrayTask | TokenTask | Corpus, reader: Reader) -> None:
    """Refuse a task, of no JSONL file, that is not what the model reads."""
    name = _name(task)
    if isinstance(task, ArrayTask):
        if reader.shape != task.shape:
            reads = "tokens" if reader.shape is None else f"arrays of {by(reader.shape)}"
            raise TaskError(
                f"task {name} is arrays of {by(task.shape)} and this model reads {reads}; use "
                "another task or model"
            )
        if reader.n_vocab is not None and reader.n_vocab < task.n_outputs:
            raise TaskError(
                f"task {name} has {task.n_outputs} classes and this model {reader.n_vocab} "
                "outputs; use another task or model"
            )
    elif reader.shape is not None:
        raise TaskError(
            f"task {name} is text and this model reads arrays of {by(reader.shape)}; use "
            f"{', '.join(ARRAYS)} or a JSONL task of arrays"
        )
    elif isinstance(task, TokenTask):
        if reader.encoder is not None:
            raise TaskError(
                f"task {name} is token ids and this model has a tokenizer, to which they are text; "
                "use it with a network that was trained on it"
            )
    elif reader.encoder is None:
        raise TaskError(
            f"task {name} needs a tokenizer and this model has none; use a JSONL task of token ids"
        )


def labelled(name: str, base: Path | None = None, shape: tuple[int, ...] | None = None) -> Splits:
    """All examples of a task of arrays, to train a network on: build, then evaluation.

    Args:
        name: as of ``build_task``; a file must say which split a line is of.
        shape: of the arrays in a file; None: what its first line has.

    Raises:
        TaskError: a task of text, a file without splits.
    """
    build: list[Example] = []
    evaluation: list[Example] = []
    for member in _members(name, base):
        if isinstance(member, ArrayTask):
            build += member.draw(BUILD, None, 0)
            evaluation += member.draw(EVALUATION, None, 0)
            continue
        if isinstance(member, Generator | TokenTask | Corpus) or member.path is None:
            raise TaskError(
                f"task {_name(member)} is no task of arrays; use {', '.join(ARRAYS)}, a path of "
                "images or a JSONL task of arrays"
            )
        for example, split in userfile.load_arrays(member.path, shape):
            (evaluation if split == userfile.EVAL else build).append(example)
    return build, evaluation


def absolute_task(name: str, base: Path) -> str:
    """A task's name with the paths in it, which are relative to ``base``, made absolute."""
    whole = _names_path(name) and os.path.exists(base / name)
    members = [name] if whole else name.split("+")
    return "+".join(str((base / m.strip()).resolve()) if _names_path(m) else m for m in members)


def _names_path(name: str) -> bool:
    return name.endswith((".jsonl", ".txt")) or is_images(name)


def _members(name: str, base: Path | None, own: Path | None = None) -> list[_Member]:
    """The members of a task name. A file whose own name holds a + is one member."""
    whole = _path(name, base)
    if whole is not None and _is_file(whole):
        return [_file(whole)]
    if is_images(name) and os.path.exists((base or Path()) / name):
        return [_images((base or Path()) / name)]
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


def _member(name: str, base: Path | None, own: Path | None) -> _Member:
    if name == OWN_TASK:
        return _File(OWN_TASK, None if own is None else own / OWN_PROMPTS)
    path = _path(name, base)
    if path is not None:
        if not _is_file(path):
            raise TaskError(
                f"task file {path} is not there; give the path of a JSONL file, or of a text"
            )
        return _file(path)
    if is_images(name):
        return _images((base or Path()) / name)
    if name not in BUILT_IN:
        known = (*BUILT_IN, OWN_TASK)
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TaskError(
            f"unknown task {name!r}; {hint}allowed: {', '.join(known)}, several joined by +, "
            "a path ending in .jsonl or .txt, or one of images (./folder or .parquet)"
        )
    return BUILT_IN[name]


def _file(path: Path) -> _File | Corpus:
    """A user's file, of prompts or of text."""
    _check_name(path, path.stem)
    return Corpus(path) if path.suffix == ".txt" else _File(path.stem, path)


def _images(path: Path) -> ArrayTask:
    """A user's set of images."""
    task = image_task(path)
    _check_name(path, task.info.name)
    return task


def _check_name(path: Path, name: str) -> None:
    """A file's own name is all that tables, folders and known circuits know it by."""
    taken = {task: f"the built-in task {task!r}" for task in BUILT_IN}
    taken[OWN_TASK] = f"the task {OWN_TASK!r} of a model's own prompts"
    if name.lower() in taken:
        raise TaskError(
            f"task file {path} has the name of {taken[name.lower()]} and would be taken for "
            f"it in tables and known circuits; rename the file, as my-{path.name}"
        )


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
    return (base or Path()) / name if name.endswith((".jsonl", ".txt")) else None


def _name(member: _Member) -> str:
    return member.name if isinstance(member, _File | Corpus) else member.info.name
