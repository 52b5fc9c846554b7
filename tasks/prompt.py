"""Prompts, the examples that are text or token ids; and a task's two splits.

``good`` and ``bad`` of a prompt are next-token ids; its logit difference is the mean logit over
``good`` less the mean logit over ``bad``, read at the last position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesweep.tasks.example import ArrayExample, Example, image_of


@dataclass(frozen=True)
class Prompt(Example):
    """One clean and patch pair with its answers.

    Attributes:
        clean: token ids of the clean prompt, without padding; one BOS where the tokenizer adds it.
        patch: token ids of the patch prompt, as many as in ``clean``.
        good: ids of the right next tokens after ``clean``, at least one, none twice.
        bad: ids of the wrong ones, at least one, none of them in ``good``.
        task: name of the member task that made it, such as ``ioi``, also within a mixture.
        template: name of the sentence frame within the task. Prompts of one task, template and
            length are aligned token by token, so per-position means are taken over them.
        labels: token position of each named key word, the same in ``clean`` and ``patch``;
            ``end`` is always there: the position whose next token is asked for.
        clean_text, patch_text: what was tokenized, or, of a window of a text, what its ids spell;
            empty where the ids were given.

    Raises:
        TaskError: where the fields contradict the above.
    """

    clean: tuple[int, ...]
    patch: tuple[int, ...]
    labels: Mapping[str, int] = field(hash=False)
    clean_text: str = ""
    patch_text: str = ""

    def fault(self) -> str:
        return _tokens_fault(self) or super().fault() or _labels_fault(self)

    def value(self) -> dict[str, Any]:
        return {**super().value(), "labels": dict(self.labels)}


def example_of(value: Mapping[str, Any]) -> Example:
    """The example whose ``value`` this is, also after JSON made lists of its tuples."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    if "shape" not in fields:
        return Prompt(**fields)
    return image_of(fields) if isinstance(fields["clean"], str) else ArrayExample(**fields)


@dataclass(frozen=True)
class TaskData:
    """The examples of a task or of a mixture of tasks.

    Attributes:
        name: ``ioi``, ``ioi+agreement`` for a mixture, the stem of the file for a user's task.
        members: the member tasks in the order they were named; one for a task that is no mixture.
        build, evaluation: examples grouped by member in that order, equally many per member. No
            clean side of a member is in both.
    """

    name: str
    members: tuple[str, ...]
    build: Sequence[Example]
    evaluation: Sequence[Example]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskInfo:
    """A built-in task as ``edgesweep list tasks`` shows it: a sentence and one example."""

    name: str
    description: str
    clean: str
    patch: str
    good: str
    bad: str


@dataclass(frozen=True)
class ArrayTask:
    """A built-in task of arrays.

    Attributes:
        shape: of an example.
        n_outputs: how many a network needs at least.
        draw: n examples of a split ("build", "evaluation") with a seed; None: all of it.
        classes: names of outputs, where these are not their numbers.
    """

    info: TaskInfo
    shape: tuple[int, ...]
    n_outputs: int
    draw: Callable[[str, int | None, int], Sequence[ArrayExample]]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenTask:
    """A built-in task of token ids, for networks without a tokenizer.

    Attributes:
        draw: n prompts of a split ("build", "evaluation") with a seed, for a network of so many
            tokens in that folder, which may say what it was trained on; None: all of it.
    """

    info: TaskInfo
    draw: Callable[[str, int | None, int, int, Path | None], Sequence[Prompt]]


def _tokens_fault(prompt: Prompt) -> str:
    if not prompt.clean:
        return "clean has no tokens; a prompt needs at least one"
    if len(prompt.clean) != len(prompt.patch):
        return (
            f"clean has {len(prompt.clean)} tokens and patch has {len(prompt.patch)}; "
            "they must have equally many, aligned position by position"
        )
    return ""


def _labels_fault(prompt: Prompt) -> str:
    last = len(prompt.clean) - 1
    for label, position in prompt.labels.items():
        if not 0 <= position <= last:
            return f"label {label!r} is at position {position}; allowed: 0 to {last}"
    if prompt.labels.get("end") != last:
        return f"label 'end' is at {prompt.labels.get('end')}; it must be the last position, {last}"
    return ""
