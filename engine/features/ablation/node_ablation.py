"""Node ablation of features: sites in forward order, each computed from the run so far.

With V_C the kept nodes, at each site (Marks et al., "Sparse feature circuits", 2024;
Dhimoïla section 3.5.3):

1. x = what the network computes from the ablated values of the sites before.
2. f = E(x), ε = x − D(E(x)).
3. What is not in V_C takes its patch value after it was encoded:

       x' = x_patch + Σ_{i ∈ V_C} (f_i − f_i,patch) d_i + [err ∈ V_C] (ε − ε_patch),

   and the run goes on from x'.

All of a site is encoded from one stream, so this is the edge ablation of every allowed edge out of
a kept node: of E|V_C, and of what enters error nodes outside V_C, whose masks features fall back
on. `node_circuit` of a sparse graph is another thing: there a target sees those of the kept parents
alone that the graph has an edge from.

Rows are (circuit, input) pairs, in micro-batches of `micro_bytes`. Error modes are those of
`engine.features.ablation.edge_ablation`. Pinned by tests/features/test_feature_node_ablation.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.features.ablation.setting import MICRO_BYTES, base_of, check_mode
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import NodeValues
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.network.base import LOGITS, Inputs, Value


@dataclass(frozen=True)
class KeptNodes:
    """The nodes of one site in V_C.

    Attributes:
        features: their numbers.
        error: whether the error node is one of them.
    """

    features: Int[np.ndarray, " kept"]
    error: bool


NodeSet = Mapping[str, KeptNodes]


def node_set(graph: FeatureGraph, kept: Bool[np.ndarray, " nodes"]) -> NodeSet:
    """V_C from a mask over a graph's nodes."""
    found = {}
    for site in list(graph.parents)[:-1]:
        numbers = graph.features(site, errors=True)[kept[graph.site_nodes(site)]]
        found[site] = KeptNodes(numbers[numbers >= 0], bool((numbers < 0).any()))
    return found


def all_nodes(features: FeatureModel) -> NodeSet:
    """Every feature of every dictionary and every error node."""
    return {
        site.name: KeptNodes(np.arange(features.dictionary(site.name).n_features), True)
        for site in features.sites
    }


@torch.no_grad()
def run_node_sets(
    features: FeatureModel,
    inputs: Inputs,
    clean: NodeValues,
    patch: NodeValues,
    node_sets: Sequence[NodeSet],
    *,
    errors: str = "node",
    micro_bytes: int = MICRO_BYTES,
) -> Float[Tensor, "circuits inputs outputs"]:
    """Logits at the read positions of every node-ablated run.

    Args:
        inputs: the clean batch.
        clean, patch: node values of the clean run, and those of dropped nodes.
        node_sets: V_C of each circuit.
        errors: one of `setting.ERROR_MODES`; unless "node", no set's errors matter.

    Raises:
        ValueError: an unknown error mode.
    """
    check_mode(errors)
    run, n_inputs = _NodeRun(features, inputs, clean, patch, errors), len(inputs.read)
    step = max(1, micro_bytes // features.model.row_bytes(inputs.real.shape[1]))
    parts = [
        run.logits(kept, rows)
        for kept in node_sets
        for rows in torch.arange(n_inputs, device=inputs.read.device).split(step)
    ]
    return torch.cat(parts).unflatten(0, (len(node_sets), n_inputs))


class _NodeRun:
    """Node ablation of some inputs by one set of nodes at a time."""

    def __init__(
        self,
        features: FeatureModel,
        inputs: Inputs,
        clean: NodeValues,
        patch: NodeValues,
        errors: str,
    ) -> None:
        self.features, self.inputs, self.patch, self.errors = features, inputs, patch, errors
        names = [site.name for site in features.sites]
        self.first = clean.values(names[0])
        self.base = {name: base_of(clean, patch, name, errors) for name in names}

    def logits(self, kept: NodeSet, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows outputs"]:
        values: dict[str, Value] = {}
        for site in self.features.sites:
            reached = self._segment(site.name, values, rows) if values else self.first[rows]
            values[site.name] = self._ablated(site.name, reached, kept[site.name], rows)
        return self._segment(LOGITS, values, rows)

    def _segment(self, target: str, values: dict[str, Value], rows: Int[Tensor, " rows"]) -> Tensor:
        return self.features.segment(target, values, self.inputs, rows)

    def _ablated(
        self, site: str, reached: Value, kept: KeptNodes, rows: Int[Tensor, " rows"]
    ) -> Value:
        """x': the patch value, and what the kept nodes differ from it by."""
        dictionary, out = self.features.dictionary(site), self.base[site][rows]
        if len(kept.features):
            numbers = torch.as_tensor(kept.features, device=reached.device)
            delta = dictionary.encode_some(reached, numbers)
            delta = delta - self.patch.features(site, numbers)[rows]
            out = out + delta @ dictionary.decoder[numbers]
        if kept.error and self.errors == "node":
            out = out + dictionary.error(reached) - self.patch.error(site)[rows]
        return out
