"""Prompts as plain values, and back."""

from __future__ import annotations

from collections.abc import Sequence

from edgesweep.tasks import Example, example_of


def prompts_to_json(prompts: Sequence[Example]) -> list[dict[str, object]]:
    """Prompts as plain values; `prompts_from_json` gives them back."""
    return [p.value() for p in prompts]


def prompts_from_json(values: Sequence[dict]) -> tuple[Example, ...]:
    """The prompts that `prompts_to_json` wrote."""
    return tuple(example_of(v) for v in values)
