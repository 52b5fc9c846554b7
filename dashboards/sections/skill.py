"""The section of how well the full model does its tasks."""

from collections.abc import Iterator
from html import escape

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.pages import Part, Section, Table
from edgesweep.dashboards.skills import can, in_words, skills


def section(data: RunData) -> Iterator[Section]:
    yield Section(
        "skill",
        "Can the model do the tasks?",
        f"The full model on {data.config['data']['n_eval']:,} evaluation prompts of each task; "
        "accuracy is how often it prefers a good answer to a bad one, the logit difference by how "
        "much, in the mean. No circuit explains what the model cannot do.",
        (skill_table(data),),
    )


def skill_table(data: RunData) -> Part:
    """The full model's accuracy and logit difference per task; model and seed if there are two."""
    found = skills(data)
    if not found:
        return "<p>Not measured yet: the evaluation of the full model is a later stage.</p>"
    several = [name for name in ("model", "seed") if len({r[name] for r in found}) > 1]
    rows = [
        [
            *(escape(str(r[name])) for name in several),
            escape(r["task"]),
            in_words(r["accuracy"]),
            in_words(r["logit_diff"]),
            can(r) if can(r) == "yes" else f"<span class='bad'>{can(r)}</span>",
        ]
        for r in found
    ]
    names = [*several, "task"]
    head = [*names, "accuracy", "logit difference", "can do it"]
    return Table(head, rows, range(len(names), len(head)))
