"""Edge attribution patching (Syed et al. 2023, equation 3; source: edge-attribution-patching.txt).

    score(u, v) = Σ_positions ⟨u_clean − u_patch, ∂λ/∂(stream read by v)⟩

It is minus their Δ_e L: positive where the clean value raises λ. λ is the oriented metric. Three
methods differ in where the gradient is taken:

    eap         in the clean run (Syed et al.). Metrics that are flat there are refused.
    eap_patch   in the run from the patch value of `embed` (for a counterfactual: the patch run).
    eap_both    the mean of the two ("clean-corrupted" of Hanna et al. 2024). A metric that is flat
                at the clean run has a zero there, and half of eap_patch is left.

Cost: patch values, and a forward and backward at each point; eap_patch runs the clean prompt
forward besides, for the values of its sources and for metrics that compare with it. Pinned by
tests/methods (one edge, one autograd call at a time), and by the gradient of an edge mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.methods.gradients import (
    add_port_gradients,
    against_clean,
    contract,
    empty_gradients,
    patch_forwards,
    refuse_flat_at_clean,
    refuse_without_gradient,
)
from edgesweep.engine.metrics import oriented
from edgesweep.engine.network import Model, PromptBatch, RunValues
from edgesweep.engine.network.relevance import Relevance
from edgesweep.engine.network.values import difference
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class EdgeAttributionPatching:
    """The gradient at the clean run; see the module's docstring.

    Attributes:
        rules: how derivatives are taken; None: they are gradients.
    """

    name: str = "eap"
    summary: str = "edge attribution patching: the gradient at the clean run"
    source: str = "Syed et al. 2023, equation 3"
    takes: frozenset[str] = frozenset()
    scores_nodes: bool = False
    whole: bool = False
    rules: Relevance | None = None

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(1 + patch_forwards(patch), 1)

    def check(self, metric: str, patch: str) -> None:
        refuse_flat_at_clean(self.name, metric, "ig_inputs")

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        model = model.under(self.rules)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        gradients = empty_gradients(model, inputs)
        run, clean = add_port_gradients(
            model, inputs, inputs.embed, lambda x: oriented(metric, x, batch, x), gradients
        )
        delta = difference(model, RunValues(model, run), values)
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(contract(model, delta, gradients), unknown, clean, unknown)


@dataclass(frozen=True)
class EdgeAttributionAtPatch:
    """The gradient at the patch point; see the module's docstring."""

    name: str = "eap_patch"
    summary: str = "edge attribution patching: the gradient at the patch value of embed"
    source: str = "Syed et al. 2023, equation 3, expanded at the other end"
    takes: frozenset[str] = frozenset()
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(2 + patch_forwards(patch), 1)

    def check(self, metric: str, patch: str) -> None:
        refuse_without_gradient(self.name, metric)

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        with torch.no_grad():
            run = model.run(inputs)
        objective, clean = against_clean(metric, batch, run)
        gradients = empty_gradients(model, inputs)
        _, baseline = add_port_gradients(model, inputs, values.embed, objective, gradients)
        delta = difference(model, RunValues(model, run), values)
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(contract(model, delta, gradients), unknown, clean, baseline)


@dataclass(frozen=True)
class EdgeAttributionAtBoth:
    """The mean of the gradients at the two ends; see the module's docstring."""

    name: str = "eap_both"
    summary: str = "edge attribution patching: the mean gradient of the clean and patch ends"
    source: str = 'Hanna et al. 2024, "clean-corrupted"'
    takes: frozenset[str] = frozenset()
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(2 + patch_forwards(patch), 2)

    def check(self, metric: str, patch: str) -> None:
        refuse_without_gradient(self.name, metric)

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        gradients = empty_gradients(model, inputs)

        def at_clean(logits: Tensor) -> Tensor:
            return oriented(metric, logits, batch, logits.detach())

        run, _ = add_port_gradients(model, inputs, inputs.embed, at_clean, gradients, weight=0.5)
        delta = difference(model, RunValues(model, run), values)
        objective, clean = against_clean(metric, batch, run)
        _, baseline = add_port_gradients(model, inputs, values.embed, objective, gradients, 0.5)
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(contract(model, delta, gradients), unknown, clean, baseline)
