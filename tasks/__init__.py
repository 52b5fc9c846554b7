"""What a network is asked: clean and patch sides of one shape, good and bad answers, labels.

A leaf: it imports nothing else of this project, and no model. Read ``example`` and ``prompt`` for
the values, ``ioi``, ``greater_than``, ``agreement``, ``docstring`` and ``digits`` for the built-in
tasks, ``files`` and ``vision`` for a user's own.
"""

from edgesweep.tasks.example import ArrayExample, Example, ImageExample, TaskError
from edgesweep.tasks.prompt import Prompt, TaskData, TaskInfo, example_of
from edgesweep.tasks.registry import (
    OWN_PROMPTS,
    OWN_TASK,
    WORD_PATTERN,
    absolute_task,
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
    "ImageExample",
    "Prompt",
    "TaskData",
    "TaskError",
    "TaskInfo",
    "absolute_task",
    "alike",
    "build_task",
    "check_task_name",
    "example_of",
    "labelled",
    "list_tasks",
    "vocabulary",
]
