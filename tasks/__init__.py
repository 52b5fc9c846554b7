"""What a model is asked: clean and patch prompts of equal length, good and bad answers, labels.

A leaf: it imports nothing else of this project, and no model. Read ``prompt`` for the values,
``ioi``, ``greater_than``, ``agreement`` and ``docstring`` for the built-in tasks, ``userfile`` for
a user's own.
"""

from edgesweep.tasks.prompt import Prompt, TaskData, TaskError, TaskInfo
from edgesweep.tasks.registry import (
    OWN_PROMPTS,
    OWN_TASK,
    WORD_PATTERN,
    alike,
    build_task,
    check_task_name,
    list_tasks,
    vocabulary,
)

__all__ = [
    "OWN_PROMPTS",
    "OWN_TASK",
    "WORD_PATTERN",
    "Prompt",
    "TaskData",
    "TaskError",
    "TaskInfo",
    "alike",
    "build_task",
    "check_task_name",
    "list_tasks",
    "vocabulary",
]
