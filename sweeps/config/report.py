"""What `report` may be: the one condition that a run's headline is of, and how its circuit is
chosen."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from edgesweep.sweeps.config.fields import Section, Text, a_share, did_you_mean, one_of

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


class Report(Section):
    """What the page is to say first."""

    headline: Headline = Headline()

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
