"""What a network is asked: clean and patch sides of one shape, good and bad answers, labels.

A leaf: it imports nothing else of this project, and no model. Read ``example`` and ``prompt`` for
the values, ``ioi``, ``greater_than``, ``agreement``, ``docstring`` and ``digits`` for the built-in
tasks, ``userfile`` for a user's own.
"""

from edgesweep.tasks.example import ArrayExample, Example, TaskError
from edgesweep.tasks.prompt import Prompt, TaskData, TaskInfo, example_of
from edgesweep.tasks.registry import (
    OWN_PROMPTS,
    OWN_TASK,
    WORD_PATTERN,
    alike,
    build_task,
    check_task_name,
    labelled,
    list_tasks,
    vocabulary,
)

__all__ = [
    "OWN_PROMPTS",
    "OWN_TASK",
    "WORD_PATTERN",
    "ArrayExample",
    "Example",
    "Prompt",
    "TaskData",
    "TaskError",
    "TaskInfo",
    "alike",
    "build_task",
    "check_task_name",
    "example_of",
    "labelled",
    "list_tasks",
    "vocabulary",
]
