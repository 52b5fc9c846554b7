"""Integrated gradients along the inputs (Sundararajan et al. 2017; Dhimoïla section 3.5.1).

The embeddings move on a straight line γ(t) from their patch value to their clean value, and the
gradient at every port is averaged over the line:

    score(u, v) = Σ_positions ⟨u_clean − u_patch, ∫₀¹ ∂λ/∂(stream read by v) at γ(t) dt⟩

with u_clean, u_patch the values of the two ends and the integral by `quadrature` (any rule). With
the rule `left` it is the sum that the published code of EAP-IG takes (Hanna et al. 2024).
Completeness: the edges out of `embed` sum to λ(clean) − λ(at the baseline embedding); no other cut
of the graph has this property. The residual per input is returned. Under a zero patch the path
starts where the first norm is singular and needs many more steps; the residual shows it.

Cost: patch values, one clean forward, `steps` forwards and backwards; one more forward at the
baseline embedding where the patch is not a run. Pinned by tests/methods (one edge, one autograd
call at a time; the published loop).
"""

from dataclasses import dataclass

import torch

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.methods.gradients import (
    add_port_gradients,
    against_clean,
    baseline_forwards,
    baseline_logits,
    contract,
    empty_gradients,
    patch_forwards,
    refuse_without_gradient,
)
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network import Model, PromptBatch, RunValues
from edgesweep.engine.network.values import difference
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class IntegratedGradientsInputs:
    """Integrated gradients along the inputs; see the module's docstring."""

    name: str = "ig_inputs"
    summary: str = "integrated gradients, embeddings interpolated"
    source: str = "Dhimoïla 2024, section 3.5.1; Sundararajan et al. 2017"
    takes: frozenset[str] = frozenset({"steps", "rule"})
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        once = 1 + patch_forwards(patch) + baseline_forwards(patch)
        return Passes(once + settings.steps, settings.steps)

    def check(self, metric: str, patch: str) -> None:
        refuse_without_gradient(self.name, metric)

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        with torch.no_grad():
            clean_run = model.run(inputs)
        objective, clean = against_clean(metric, batch, clean_run)
        gradients = empty_gradients(model, inputs)
        for t, weight in points(settings.rule, settings.steps):
            point = torch.lerp(values.embed, inputs.embed, t)
            add_port_gradients(model, inputs, point, objective, gradients, weight)
        delta = difference(model, RunValues(model, clean_run), values)
        scores = contract(model, delta, gradients)
        baseline = objective(baseline_logits(model, inputs, values))
        reached = scores[:, model.graph.edge_source == 0].double().sum(-1)
        return Attribution(scores, reached - (clean - baseline), clean, baseline)
