"""What every attribution method is: one signature, its cost, and what it refuses."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from engine.model import Model, PromptBatch
from engine.patches import Patch


class MethodError(ValueError):
    """A method asked for something it cannot do; one line that says what to use instead."""


@dataclass(frozen=True)
class Passes:
    """Cost of one batch, in forwards and in backwards to activations, patch run included."""

    forwards: int
    backwards: int


@dataclass(frozen=True)
class Attribution:
    """Scores of one batch.

    Attributes:
        scores: `[inputs, edges]` float32, in units of the metric, summed over positions with sign:
            positive where the clean value raises the oriented metric over the patch value.
        residual: `[inputs]`, Σ scores of the edges out of `embed` − (λ(clean) − λ(baseline)): how
            far completeness is missed; NaN where the method promises none.
        metric_clean: `[inputs]`, the oriented metric λ on the clean prompt.
        metric_baseline: `[inputs]`, λ at the baseline embedding; NaN where it was not run.
    """

    scores: Float[Tensor, "inputs edges"]
    residual: Float[Tensor, " inputs"]
    metric_clean: Float[Tensor, " inputs"]
    metric_baseline: Float[Tensor, " inputs"]


class Method(Protocol):
    """One attribution method. Its module's docstring is its definition.

    Attributes:
        name: in configs and results.
        summary: one line for `edgesweep list methods`.
        source: paper and equation.
        takes_steps: whether `steps` changes it.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def takes_steps(self) -> bool: ...

    def passes(self, steps: int, patch: str) -> Passes:
        """What one batch costs."""

    def check(self, metric: str, patch: str) -> None:
        """Refuse what the method cannot use.

        Raises:
            MethodError: names the metric, why, and what to use instead.
        """

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, steps: int
    ) -> Attribution:
        """Scores of all edges, input by input."""
