"""What `report` may be: the one condition that a run's headline is of, and how its circuit is
chosen."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from edgesweep.sweeps.config.fields import Section, Text, a_share, did_you_mean, one_of


def within_one() -> AfterValidator:
    """A number from 0 to 1."""

    def check(value: float) -> float:
        if not 0 <= value <= 1:
            raise ValueError("is out of range; allowed: 0 to 1")
        return value

    return AfterValidator(check)


#: keys of a headline that name a value of an axis, by the section whose axis it is
AXES = {
    "sweep": ("model", "task", "nodes", "method", "steps", "build_patch", "build_metric"),
    "evaluate": ("aggregation", "selection", "ablation", "eval_patch", "metric"),
}


class Headline(Section):
    """The condition that a headline is of. An axis that is not named has the first of the run's
    values; the metric `kl`, if that is measured. Its circuit is the smallest of φ ≥ `level` on
    every third evaluation prompt, and φ is told of the others; `choose: all` takes all for both."""

    level: Annotated[float, AfterValidator(a_share)] = 0.8
    choose: Annotated[str, one_of("third", "all")] = "third"
    model: Text | None = None
    task: Text | None = None
    nodes: Text | None = None
    method: Text | None = None
    steps: int | None = None
    build_patch: Text | None = None
    build_metric: Text | None = None
    aggregation: Text | None = None
    selection: Text | None = None
    ablation: Text | None = None
    eval_patch: Text | None = None
    metric: Text | None = None


Shares = tuple[Annotated[float, within_one()], ...]
#: (share of regions, accuracy)
Points = tuple[tuple[Annotated[float, within_one()], Annotated[float, within_one()]], ...]


class Published(Section):
    """What a `source` has of regions of interest, for the page to mark beside the run's own: points
    of curves of the regions that are gone (`ablate`) or kept (`keep`), and accuracy on each class
    without its own regions (`own_class`)."""

    source: Text
    ablate: Points = ()
    keep: Points = ()
    own_class: Shares = ()


class Report(Section):
    """What the page is to say first, and what is to stand beside it."""

    headline: Headline = Headline()
    published: Published | None = None

    def fault(self, sweep: Any, evaluate: Any) -> str:
        """What the run does not have of what is named; "" where it has all."""
        for name, section in (("sweep", sweep), ("evaluate", evaluate)):
            for key in AXES[name]:
                value, values = getattr(self.headline, key), getattr(section, key)
                if value is not None and value not in values:
                    allowed = ", ".join(map(str, values))
                    hint = did_you_mean(value, map(str, values))
                    return (
                        f"report.headline.{key}: {value!r} is not of this run; allowed: what "
                        f"{name}.{key} has, {allowed}{hint}"
                    )
        return ""
