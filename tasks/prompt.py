"""The values that a task is made of: prompts, a task's two splits, and the one error of this
package.

A prompt is a pair of runs: ``clean``, the input of interest, and ``patch``, the baseline with the
same number of tokens, so that position p of one can be replaced by position p of the other.
``good`` and ``bad`` are next-token ids; the logit difference of a prompt is the mean logit over
``good`` less the mean logit over ``bad``, read at the last position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class TaskError(ValueError):
    """A task that cannot be had: one line that says what is wrong, the value, what to do."""


@dataclass(frozen=True)
class Prompt:
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
        clean_text, patch_text: what was tokenized; empty where the ids were given.

    Raises:
        TaskError: where the fields contradict the above.
    """

    clean: tuple[int, ...]
    patch: tuple[int, ...]
    good: tuple[int, ...]
    bad: tuple[int, ...]
    task: str
    template: str
    labels: Mapping[str, int] = field(hash=False)
    clean_text: str = ""
    patch_text: str = ""

    def __post_init__(self) -> None:
        fault = _tokens_fault(self) or _answers_fault(self) or _labels_fault(self)
        if fault:
            raise TaskError(fault)

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True)
class TaskData:
    """The prompts of a task or of a mixture of tasks.

    Attributes:
        name: ``ioi``, ``ioi+agreement`` for a mixture, the stem of the file for a user's task.
        members: the member tasks in the order they were named; one for a task that is no mixture.
        build, evaluation: prompts grouped by member in that order, equally many per member. No
            clean prompt of a member is in both.
    """

    name: str
    members: tuple[str, ...]
    build: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]


@dataclass(frozen=True)
class TaskInfo:
    """A built-in task as ``edgesweep list tasks`` shows it: a sentence and one example."""

    name: str
    description: str
    clean: str
    patch: str
    good: str
    bad: str


def _tokens_fault(prompt: Prompt) -> str:
    if not prompt.clean:
        return "clean has no tokens; a prompt needs at least one"
    if len(prompt.clean) != len(prompt.patch):
        return (
            f"clean has {len(prompt.clean)} tokens and patch has {len(prompt.patch)}; "
            "they must have equally many, aligned position by position"
        )
    return ""


def _answers_fault(prompt: Prompt) -> str:
    for key, ids in (("good", prompt.good), ("bad", prompt.bad)):
        if not ids:
            return f"{key} is empty; give at least one answer token"
        if len(set(ids)) != len(ids):
            return f"{key} has the same answer token twice: {list(ids)}"
    shared = sorted(set(prompt.good) & set(prompt.bad))
    if shared:
        return f"good and bad share answer tokens {shared}; an answer is either good or bad"
    return ""


def _labels_fault(prompt: Prompt) -> str:
    last = len(prompt.clean) - 1
    for label, position in prompt.labels.items():
        if not 0 <= position <= last:
            return f"label {label!r} is at position {position}; allowed: 0 to {last}"
    if prompt.labels.get("end") != last:
        return f"label 'end' is at {prompt.labels.get('end')}; it must be the last position, {last}"
    return ""
