"""What every attribution method is: one signature, its cost, and what it refuses."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch


class MethodError(ValueError):
    """A method asked for something it cannot do; one line that says what to use instead."""


@dataclass(frozen=True)
class Settings:
    """What a cell says to its method beside the patch and the metric. A method reads those fields
    that its `takes` names; the others mean nothing to it.

    Attributes:
        steps: points of the quadrature.
        rule: the quadrature rule.
        tau: the threshold of a search, in units of the metric.
        seed: of whatever is drawn.
        n_candidates: how many edges are measured; None: all. Known when a run is planned.
        candidates: which these are; None: all. Known when the run has come so far.
        rows: inputs in one forward of methods that run many variants of a batch.
    """

    steps: int = 5
    rule: str = "midpoint"
    tau: float = 0.0
    seed: int = 0
    n_candidates: int | None = None
    candidates: Bool[np.ndarray, " edges"] | None = None
    rows: int = 256


#: the fields of `Settings` that may change a method's scores
TAKEN = ("steps", "rule", "tau", "seed", "candidates")


@dataclass(frozen=True)
class Passes:
    """Cost of one batch, in forwards and in backwards to activations of that batch, patch run
    included. A pass that starts part-way up the network counts by the layers it runs."""

    forwards: float
    backwards: float


@dataclass(frozen=True)
class Attribution:
    """Scores of one batch.

    Attributes:
        scores: `[inputs, edges]` (`[inputs, sources]` of methods that score nodes) float32, in
            units of the metric, summed over positions with sign: positive where the clean value
            raises the oriented metric over the patch value. NaN where nothing was measured.
        residual: `[inputs]`, Σ scores of the edges out of `embed` − (λ(clean) − λ(baseline)): how
            far completeness is missed; NaN where the method promises none.
        metric_clean: `[inputs]`, the oriented metric λ on the clean prompt.
        metric_baseline: `[inputs]`, λ at the baseline embedding; NaN where it was not run.
    """

    scores: Float[Tensor, "inputs scored"]
    residual: Float[Tensor, " inputs"]
    metric_clean: Float[Tensor, " inputs"]
    metric_baseline: Float[Tensor, " inputs"]


class Method(Protocol):
    """One attribution method. Its module's docstring is its definition.

    Attributes:
        name: in configs and results.
        summary: one line for `edgesweep list methods`.
        source: paper and equation.
        takes: the fields of `Settings` that change it, of `TAKEN`.
        scores_nodes: one score a source (a node that writes) instead of one an edge.
        whole: it decides on the mean over all inputs, so that its batch must be all of them.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def takes(self) -> frozenset[str]: ...
    @property
    def scores_nodes(self) -> bool: ...
    @property
    def whole(self) -> bool: ...

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        """What one batch costs."""

    def check(self, metric: str, patch: str) -> None:
        """Refuse what the method cannot use.

        Raises:
            MethodError: names the metric, why, and what to use instead.
        """

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        """Scores of all edges (or nodes), input by input."""
