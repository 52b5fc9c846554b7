"""Head importance score for pruning (Michel et al. 2019), with patch values as Conmy et al. 2023
generalise it: what ACDC is compared with under the name HISP.

1. I(u) = |Σ_positions ⟨u_clean − u_patch, ∂λ/∂u⟩|, the gradient at the clean run, input by input:
   the absolute value of node_ap. Under a zero patch it is Michel et al.'s.
2. A layer's scores are divided by their ℓ2 norm, so that layers can be ranked together. A layer is
   its heads and its MLP, as in the code of Conmy et al.; `embed`, which neither paper prunes, is a
   layer of one and gets 1. A layer that does nothing (norm 0) gets 0.

Step 1 is taken before inputs are averaged, by definition, so scores are never negative and say
nothing of the direction. Step 2 is taken input by input too, for each input is scored by itself;
the papers divide by the norm of the means over inputs, which weighs inputs by their gradients.
Here a head is scored by what it writes; Conmy et al. score queries, keys and values apart.

Cost: patch values, one forward, one backward. Pinned by tests/methods/test_node_methods.py.
"""

from dataclasses import dataclass

import torch

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.methods.gradients import patch_forwards, refuse_flat_at_clean
from edgesweep.engine.methods.nodes import NodeScores, first_order
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class HeadImportance:
    """Absolute first-order scores, normalised by layer; see the module's docstring."""

    name: str = "hisp"
    summary: str = "head importance for pruning: |node attribution|, normalised by layer"
    source: str = "Michel et al. 2019, equation 2; Conmy et al. 2023"
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
        normed = _by_layer(model.graph, scores.abs().double())
        return Attribution(normed.float(), unknown, clean, unknown)


def _by_layer(graph: EdgeGraph, scores: NodeScores) -> NodeScores:
    """Step 2; in double precision, where squares of small scores do not vanish."""
    layers = [slice(0, 1)]
    layers += [
        slice(graph.head_source(layer, 0), graph.mlp_source(layer) + 1)
        for layer in range(graph.spec.n_layers)
    ]
    parts = [torch.nn.functional.normalize(scores[:, nodes], dim=1, eps=1e-100) for nodes in layers]
    return torch.cat(parts, dim=1)
