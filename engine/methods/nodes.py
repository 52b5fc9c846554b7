"""Attribution of nodes: what a node contributes over all its edges at once.

    score(u) = Σ_positions ⟨u_clean − u_patch, ∂λ/∂u⟩

∂λ/∂u is the total gradient at the stream where u is added, the same for all heads of a layer.

    node_ap   attribution patching: ∂λ/∂u at the clean run (Syed et al. 2023 for nodes). Metrics
              that are flat there are refused.
    node_ig   ∫₀¹ ∂λ/∂u dt along the path of u's module (Dhimoïla section 5.1, w_V; Marks et al.
              2024 for features): all its nodes move together, everything below is the clean run
              (see `paths`). The scores of a module sum to λ(clean) − λ(that module alone patched).
              The residual is that of `embed`.

A node's score is positive where its clean value raises λ. It is the sum of the scores of its edges
in eap (node_ap) and in ig_activations (node_ig): every path from u starts with one of them.

Cost: node_ap patch values, one forward, one backward. node_ig as ig_activations, less the work at
ports. Pinned by tests/methods/test_node_methods.py (one node, one autograd call at a time;
completeness of every module; sums of edges).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.methods.gradients import (
    baseline_forwards,
    patch_forwards,
    refuse_flat_at_clean,
    refuse_without_gradient,
)
from edgesweep.engine.methods.paths import (
    OwnPaths,
    modules,
    share_of_a_pass,
)
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.metrics import oriented
from edgesweep.engine.network import Model, PromptBatch, RunValues
from edgesweep.engine.network.layers import Stream
from edgesweep.engine.network.values import difference
from edgesweep.engine.patches import Patch

NodeScores = Float[Tensor, "inputs sources"]


@dataclass(frozen=True)
class NodeAttributionPatching:
    """The gradient at the clean run; see the module's docstring."""

    name: str = "node_ap"
    summary: str = "attribution patching of nodes: the gradient at the clean run"
    source: str = "Syed et al. 2023, equation 3, for nodes"
    takes: frozenset[str] = frozenset()
    scores_nodes: bool = True
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(1 + patch_forwards(patch), 1)

    def check(self, metric: str, patch: str) -> None:
        refuse_flat_at_clean(self.name, metric, "node_ig")

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        scores, clean = first_order(model, batch, patch, metric)
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(scores.float(), unknown, clean, unknown)


@dataclass(frozen=True)
class NodeIntegratedGradients:
    """The gradient averaged over the module's path; see the module's docstring."""

    name: str = "node_ig"
    summary: str = "integrated gradients of nodes, each module interpolated by itself"
    source: str = "Dhimoïla 2024, section 5.1, w_V"
    takes: frozenset[str] = frozenset({"steps", "rule"})
    scores_nodes: bool = True
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        paths = settings.steps * share_of_a_pass(graph)
        return Passes(1 + patch_forwards(patch) + baseline_forwards(patch) + paths, paths)

    def check(self, metric: str, patch: str) -> None:
        refuse_without_gradient(self.name, metric)

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        own = OwnPaths.of(model, batch, patch, metric)
        scores = own.inputs.embed.new_zeros(len(batch), len(model.graph.sources))
        quadrature = points(settings.rule, settings.steps)
        for found in own.gradients(quadrature, settings.rows, at_ports=False):
            for variant, gradient in zip(found.run.variants, found.roots, strict=True):
                mine = variant.module.sources
                scores[:, mine] += model.here(_along(own.delta.of(mine), gradient))
        residual = own.residual(scores[:, 0].double())
        return Attribution(scores.float(), residual, own.clean, own.baseline)


def first_order(
    model: Model, batch: PromptBatch, patch: Patch, metric: str
) -> tuple[NodeScores, Float[Tensor, " inputs"]]:
    """Scores of node_ap in the model's own precision, and λ of the clean run."""
    inputs = model.prepare(batch.clean, batch.real)
    values = patch.values(model, batch, inputs)
    with torch.enable_grad():
        run = model.run(inputs, inputs.embed.detach().requires_grad_())
        assert run.logits is not None
        clean = oriented(metric, run.logits, batch, run.logits)
        total = clean.sum()
    writes = [w for pair in zip(run.attention, run.mlps, strict=True) for w in pair]
    grads = torch.autograd.grad(total, [run.embed, *writes])
    delta = difference(model, RunValues(model, run), values)
    scores = inputs.embed.new_empty(len(batch), len(model.graph.sources))
    for module, gradient in zip(modules(model.graph), grads, strict=True):
        scores[:, module.sources] = _along(delta.of(module.sources), gradient)
    return scores, clean.detach()


def _along(
    differences: Float[Tensor, "inputs nodes positions d_model"], gradient: Stream
) -> Float[Tensor, "inputs nodes"]:
    """Σ over positions of ⟨u_clean − u_patch, gradient⟩ for some nodes at one gradient."""
    gradient = gradient.to(differences.device)
    return torch.bmm(differences.flatten(2), gradient.flatten(1)[..., None])[..., 0]
