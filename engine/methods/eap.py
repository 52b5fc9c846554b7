"""Edge attribution patching (Syed et al. 2023, equation 3; source: edge-attribution-patching.txt).

    score(u, v) = Σ_positions ⟨u_clean − u_patch, ∂λ/∂(stream read by v) at the clean run⟩

It is minus their Δ_e L: positive where the clean value raises λ. λ is the oriented metric. The
clean run is the point of expansion, so metrics whose gradient vanishes there are refused.

Cost: patch values, one forward, one backward. Pinned by tests/methods (one edge, one autograd call
at a time), and by the gradient of an edge mask.
"""

from dataclasses import dataclass

import torch

from engine.graph import EdgeGraph
from engine.methods.base import Attribution, MethodError, Passes, Settings
from engine.methods.gradients import add_port_gradients, contract, empty_gradients
from engine.metrics import FLAT_AT_CLEAN, ORIENTATION, oriented
from engine.model import Model, PromptBatch, RunValues
from engine.model.values import difference
from engine.patches import Patch


@dataclass(frozen=True)
class EdgeAttributionPatching:
    """Edge attribution patching; see the module's docstring."""

    name: str = "eap"
    summary: str = "edge attribution patching: the gradient at the clean run"
    source: str = "Syed et al. 2023, equation 3"
    takes: frozenset[str] = frozenset()
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(1 + (patch == "counterfactual"), 1)

    def check(self, metric: str, patch: str) -> None:
        if metric in FLAT_AT_CLEAN:
            raise MethodError(
                f"method 'eap' cannot use metric {metric!r}: its gradient is zero at the clean "
                "run; use ig_inputs, or metric logit_diff"
            )
        if metric not in ORIENTATION:
            raise MethodError(f"method 'eap' cannot use metric {metric!r}; use logit_diff")

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        gradients = empty_gradients(model, inputs)
        run, clean = add_port_gradients(
            model, inputs, inputs.embed, lambda x: oriented(metric, x, batch, x), gradients
        )
        delta = difference(model, RunValues(model, run), values)
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(contract(model.graph, delta, gradients), unknown, clean, unknown)
