"""How well the full model does its tasks, as the driver measured it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import decimal

#: a model that is right less often than this on two-way questions cannot do the task
POOR_ACCURACY = 0.6


def skills(data: RunData) -> list[dict[str, Any]]:
    """The full model on each task and seed, as the newest driver measured it: model, task, seed,
    accuracy, logit_diff."""
    said = [e for e in data.log if e.get("event") == "skill"]
    rows = {(e["model"], e["task"], e.get("seed")): e for e in said}
    fields = ("model", "task", "seed", "accuracy", "logit_diff")
    return [{name: event.get(name) for name in fields} for event in rows.values()]


def can(skill: Mapping[str, Any]) -> str:
    """Whether the model can do a task: `no` near chance, or where the bad answers are preferred;
    `not known` where its values are not finite."""
    accuracy, logit_diff = skill["accuracy"], skill["logit_diff"]
    if pd.isna(accuracy) or pd.isna(logit_diff):
        return "not known"
    return "no" if accuracy < POOR_ACCURACY or logit_diff <= 0 else "yes"


def in_words(value: float | None) -> str:
    """An accuracy or a logit difference."""
    return "not finite" if pd.isna(value) else decimal(float(value))
