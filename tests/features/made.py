"""Small models read at sites, with random dictionaries of every kind and complete graphs."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from edgesweep.engine.dictionaries.base import (
    Dictionary,
    Gated,
    Identity,
    JumpRelu,
    Linear,
    NoDictionary,
    Relu,
    TopK,
)
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import (
    FeaturePatch,
    NodeValues,
    active_features,
    make_feature_patch,
    node_mean_partials,
    run_nodes,
)
from edgesweep.engine.graph import ERROR, FeatureGraph
from edgesweep.engine.network import Inputs, Model, PromptBatch
from edgesweep.engine.patches import resample_partners
from tests.oracles.slow_feature_ablation import Node, SlowFeatures
from tests.tiny import model_and_batch, prompts

#: cuts only; cuts two layers apart with blocks between
CHAIN = ("embed", "resid0", "resid1", "resid2")
MIXED = ("embed", "resid0", "attn1", "mlp1", "attn2", "mlp2")
#: heads and neurons within blocks, beside whole blocks
WITHIN = ("attn0.z", "mlp0.hidden", "attn1.z", "mlp1", "resid1", "attn2", "mlp2.hidden")
#: of MIXED, by hand: with attention before the MLP, and in parallel with it
MIXED_PARENTS = [
    {
        "embed": (),
        "resid0": ("embed",),
        "attn1": ("resid0",),
        "mlp1": ("resid0", "attn1"),
        "attn2": ("resid0", "attn1", "mlp1"),
        "mlp2": ("resid0", "attn1", "mlp1", "attn2"),
        "logits": ("resid0", "attn1", "mlp1", "attn2", "mlp2"),
    },
    {
        "embed": (),
        "resid0": ("embed",),
        "attn1": ("resid0",),
        "mlp1": ("resid0",),
        "attn2": ("resid0", "attn1", "mlp1"),
        "mlp2": ("resid0", "attn1", "mlp1"),
        "logits": ("resid0", "attn1", "mlp1", "attn2", "mlp2"),
    },
]
DENSITIES = (0.1, 0.3, 0.7, 0.95)


@dataclass(frozen=True)
class Case:
    """A batch of a model with dictionaries, its node values, and a graph over its active nodes."""

    model: Model
    batch: PromptBatch
    features: FeatureModel
    feature_patch: FeaturePatch
    inputs: Inputs
    clean: NodeValues
    patch: NodeValues
    graph: FeatureGraph

    def over(self, graph: FeatureGraph) -> "Case":
        return replace(self, graph=graph)

    def only(self, row: int) -> "Case":
        """One of its inputs, without padding."""
        batch = PromptBatch.make([self.batch.prompts[row]])
        values = _values(self.features, batch, self.feature_patch)
        return Case(self.model, batch, self.features, self.feature_patch, *values, self.graph)


def case(
    family: str,
    sites: tuple[str, ...],
    kind: str,
    *,
    patch: str = "counterfactual",
    dtype: torch.dtype = torch.float32,
    side: str = "right",
) -> Case:
    model, batch = model_and_batch(family, dtype=dtype, side=side)
    dictionaries = {
        site: random_dictionary(kind, model.sites.width(site), dtype, seed)
        for seed, site in enumerate(sites)
    }
    features = FeatureModel(model, dictionaries)
    given = feature_patch(features, patch)
    inputs, clean, patched = _values(features, batch, given)
    nodes = {
        site: [ERROR, *active_features(values, patched.sites[site]).feature.unique().tolist()]
        for site, values in clean.sites.items()
    }
    graph = FeatureGraph.complete(features.all_parents(), nodes)
    return Case(model, batch, features, given, inputs, clean, patched, graph)


def _values(features: FeatureModel, batch: PromptBatch, patch: FeaturePatch):
    inputs = features.model.prepare(batch.clean, batch.real)
    with torch.no_grad():
        clean = run_nodes(features, inputs, features.model.run(inputs))
        return inputs, clean, patch.values(features, batch, inputs)


def feature_patch(features: FeatureModel, kind: str) -> FeaturePatch:
    """A patch for the prompts of `tests.tiny.prompts`."""
    if kind == "mean":
        return make_feature_patch("mean", _means(features))
    if kind == "resample":
        return make_feature_patch("resample", partners=resample_partners(prompts(12), seed=0))
    return make_feature_patch(kind)


def _means(features: FeatureModel):
    partials = node_mean_partials(features, prompts(12), pooled=False)
    return {group: part.mean() for group, part in partials.items()}


def random_masks(graph: FeatureGraph, seed: int = 0) -> np.ndarray:
    """Circuits of several densities, the last one twice."""
    draw = np.random.default_rng(seed)
    masks = [draw.random(graph.n_edges) < density for density in DENSITIES]
    return np.stack([*masks, masks[-1]])


# --- the oracle's side -------------------------------------------------------------------------
def slow_features(made: Case, tokens: torch.Tensor) -> SlowFeatures:
    dictionaries = {s.name: made.features.dictionary(s.name) for s in made.features.sites}
    parents, hf = made.graph.parents, made.model.hf
    return SlowFeatures(hf, made.model.graph, dictionaries, parents, tokens, made.batch.real)


def slow_nodes(made: Case) -> tuple[SlowFeatures, dict[str, Node], dict[str, Node]]:
    """The oracle with the clean nodes, by its own forward, and the patch's."""
    slow = slow_features(made, made.batch.clean)
    values = slow.plain()
    clean = {site: slow.nodes(site, values[site]) for site in slow.dictionaries}
    if made.feature_patch.kind == "counterfactual":
        other = slow_features(made, made.batch.patch).plain()
        return slow, clean, {site: slow.nodes(site, other[site]) for site in clean}
    patch = {}
    for site in clean:
        every = torch.arange(made.features.dictionary(site).n_features)
        patch[site] = Node(made.patch.features(site, every), made.patch.error(site))
    return slow, clean, patch


@torch.no_grad()
def oracle_logits(made: Case, mask: np.ndarray, errors: str = "node") -> torch.Tensor:
    slow, clean, patch = slow_nodes(made)
    return slow.edge_ablated(made.graph, mask, clean, patch, errors)


@torch.no_grad()
def oracle_node_logits(made: Case, kept: np.ndarray, errors: str = "node") -> torch.Tensor:
    slow, clean, patch = slow_nodes(made)
    names = {made.graph.nodes[i] for i in np.flatnonzero(kept)}
    return slow.node_ablated(names, clean, patch, errors)


# --- dictionaries ------------------------------------------------------------------------------
KINDS = ("none", "identity", "linear", "relu", "gated", "jumprelu", "topk")
N_FEATURES = 12


def random_dictionary(kind: str, d_model: int, dtype: torch.dtype, seed: int) -> Dictionary:
    """A dictionary of few features of which some are on at a position; x = D(f) + ε, ε not 0
    wherever the kind allows it."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    encoder, decoder = (normal(N_FEATURES, d_model) * scale / d_model**0.5 for scale in (1, 2))
    shift, bias = 0.5 * normal(N_FEATURES) - 0.3, 0.1 * normal(d_model)
    level = 0.3 * torch.ones(N_FEATURES, dtype=torch.float64)
    made = {
        "none": lambda: NoDictionary(d_model),
        "identity": lambda: Identity(d_model),
        "linear": lambda: Linear.of_basis(torch.linalg.qr(normal(d_model, d_model))[0], bias),
        "relu": lambda: Relu(encoder, shift, decoder, bias),
        "gated": lambda: Gated(encoder, decoder, bias, shift, shift + 0.3, 0.1 * shift),
        "jumprelu": lambda: JumpRelu(encoder, shift, decoder, bias, level),
        "topk": lambda: TopK(encoder, shift, decoder, bias, 4),
    }
    return made[kind]().to(dtype=dtype)
