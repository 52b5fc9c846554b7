"""Integrated gradients along the inputs (Sundararajan et al. 2017; Dhimoïla section 3.5.1).

The embeddings move on a straight line γ(t) from their patch value to their clean value, and the
gradient at every port is averaged over the line:

    score(u, v) = Σ_positions ⟨u_clean − u_patch, ∫₀¹ ∂λ/∂(stream read by v) at γ(t) dt⟩

with the midpoint rule, t_k = (k + ½)/steps, and u_clean, u_patch the values of the two ends.
Completeness: the edges out of `embed` sum to λ(clean) − λ(at the baseline embedding); no other cut
of the graph has this property. The residual per input is returned. Under a zero patch the path
starts where the first norm is singular and needs many more steps; the residual shows it.

Cost: patch values, one clean forward, `steps` forwards and backwards; one more forward at the
baseline embedding where the patch is not a run. Pinned by tests/methods.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.graph import EdgeGraph
from engine.methods.base import Attribution, MethodError, Passes, Settings
from engine.methods.gradients import add_port_gradients, contract, empty_gradients
from engine.metrics import ORIENTATION, oriented
from engine.model import Inputs, Model, PromptBatch, RunValues, SourceValues
from engine.model.values import difference
from engine.patches import Patch

#: the quadrature rule, recorded in every cell
RULE = "midpoint"


@dataclass(frozen=True)
class IntegratedGradientsInputs:
    """Integrated gradients along the inputs; see the module's docstring."""

    name: str = "ig_inputs"
    summary: str = f"integrated gradients, embeddings interpolated ({RULE} rule)"
    source: str = "Dhimoïla 2024, section 3.5.1; Sundararajan et al. 2017"
    takes: frozenset[str] = frozenset({"steps"})
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(2 + settings.steps, settings.steps)

    def check(self, metric: str, patch: str) -> None:
        if metric not in ORIENTATION:
            allowed = " or ".join(ORIENTATION)
            raise MethodError(f"method 'ig_inputs' cannot use metric {metric!r}; use {allowed}")

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        with torch.no_grad():
            clean_run = model.run(inputs)
        clean_logits = clean_run.logits
        assert clean_logits is not None

        def objective(logits: Tensor) -> Tensor:
            return oriented(metric, logits, batch, clean_logits)

        steps, gradients = settings.steps, empty_gradients(model, inputs)
        for step in range(steps):
            point = torch.lerp(values.embed, inputs.embed, (step + 0.5) / steps)
            add_port_gradients(model, inputs, point, objective, gradients, weight=1 / steps)
        delta = difference(model, RunValues(model, clean_run), values)
        scores = contract(model.graph, delta, gradients)
        clean = objective(clean_logits)
        baseline = objective(_baseline_logits(model, inputs, values))
        reached = scores[:, model.graph.edge_source == 0].double().sum(-1)
        return Attribution(scores, reached - (clean - baseline), clean, baseline)


@torch.no_grad()
def _baseline_logits(model: Model, inputs: Inputs, values: SourceValues) -> Tensor:
    """Logits at the start of the path: known where the patch is a run, else one forward."""
    known = isinstance(values, RunValues)
    run = values.run if known else model.run(inputs, values.embed)  # type: ignore[attr-defined]
    assert run.logits is not None
    return run.logits
