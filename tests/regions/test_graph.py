"""Regions as nodes: heads are a partition of attn.z; sums and circuits are those of features."""

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.dictionaries.base import Identity, NoDictionary
from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.ablation.node_ablation import node_set, run_node_sets
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, attribute_edges
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_nodes, node_scores
from edgesweep.engine.graph import ERROR, FeatureGraph
from edgesweep.engine.methods import METHODS, MethodError, Settings
from edgesweep.engine.regions.attribution import region_edges, region_scores
from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.graph import Partitions, head_partitions
from edgesweep.engine.regions.running import run_region_circuits, run_region_nodes
from tests.features.made import feature_patch, random_dictionary
from tests.oracles.slow_gradients import patch_of
from tests.tiny import model_and_batch

STEPS = {"steps": 3, "rule": "gauss_legendre"}


def at_heads(family, patch="counterfactual"):
    """A model read at the heads of every layer and at whole MLPs."""
    model, batch = model_and_batch(family, dtype=torch.float64)
    sites = {}
    for layer in range(model.spec.n_layers):
        z = Identity(model.sites.width(f"attn{layer}.z"))
        sites |= {f"attn{layer}.z": z, f"mlp{layer}": NoDictionary(model.d_model)}
    sites = {name: dictionary.to(dtype=torch.float64) for name, dictionary in sites.items()}
    features = FeatureModel(model, sites)
    ends = FeatureBatch.of(features, batch, feature_patch(features, patch))
    return model, batch, head_partitions(features), ends


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_heads_as_regions_have_the_heads_scores(family):
    model, batch, regions, ends = at_heads(family)
    graph = regions.complete()
    assert len(graph.nodes) == len(model.graph.nodes)
    assert graph.nodes[1] == "attn0.z/roi0"
    assert graph.nodes[-2:] == ("mlp2/err", "logits")
    found = region_scores(regions, ends, attribute_nodes(ends, "logit_diff", **STEPS))
    patch = patch_of("counterfactual", model)
    expected = METHODS["node_ig"].attribute(model, batch, patch, "logit_diff", Settings(**STEPS))
    assert np.abs(found - expected.scores.numpy()).max() <= 1e-5 * np.abs(found).max()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_node_ablated_heads_as_regions_are_node_ablated_heads(family):
    model, batch, regions, ends = at_heads(family)
    kept = np.random.default_rng(0).random((3, len(model.graph.nodes))) < 0.6
    kept[:, [0, -1]] = True
    values = (ends.clean, ends.patch)
    found = run_region_nodes(regions, ends.inputs, values, regions.complete(), kept)
    masks = kept[:, model.graph.edge_source]
    assert torch.allclose(found, by_heads(model, batch, masks), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_edge_ablated_heads_as_regions_are_edge_ablated_heads(family):
    """Queries, keys and values of a head are dropped together."""
    model, batch, regions, ends = at_heads(family)
    graph, heads = regions.complete(), model.graph
    masks = np.random.default_rng(0).random((3, graph.n_edges)) < [[0.3], [0.6], [0.9]]
    values = (ends.clean, ends.patch)
    found = run_region_circuits(regions, ends.inputs, values, graph, masks)
    node = np.array([heads.ends.node[first] for first in heads.ends.first[:-1]])
    place = {
        (source, target + graph.n_roots): edge
        for edge, (source, target) in enumerate(
            zip(graph.edge_source.tolist(), graph.edge_target.tolist(), strict=True)
        )
    }
    of = [
        place[source, node[target]]
        for source, target in zip(
            heads.edge_source.tolist(), heads.edge_target.tolist(), strict=True
        )
    ]
    assert torch.allclose(found, by_heads(model, batch, masks[:, of]), rtol=1e-6, atol=1e-9)


def by_heads(model, batch, masks):
    """Logits of edge-ablated circuits of heads."""
    inputs = model.prepare(batch.clean, batch.real)
    patch = patch_of("counterfactual", model).values(model, batch, inputs)
    return ablated_logits(model, inputs, patch, masks)


WITHIN = ("attn0.z", "resid0", "attn1.z", "mlp1.hidden")


def over_features(kind, patch="counterfactual", n_regions=3):
    """A model read at several sites, with some features of each in no region."""
    model, batch = model_and_batch("gpt2", dtype=torch.float64, n_layers=2)
    sites = {
        site: random_dictionary(kind, model.sites.width(site), torch.float64, seed)
        for seed, site in enumerate(WITHIN)
    }
    features = FeatureModel(model, sites)
    rng, of = np.random.default_rng(0), {}
    for site in WITHIN:
        of[site] = np.arange(features.dictionary(site).n_features) % (n_regions + 1) - 1
        rng.shuffle(of[site])
    ends = FeatureBatch.of(features, batch, feature_patch(features, patch))
    return Partitions(features, of), ends


@pytest.mark.parametrize("patch", ["counterfactual", "zero"])
@pytest.mark.parametrize("kind", ["identity", "relu"])
def test_scores_and_edges_are_sums_over_features(kind, patch):
    regions, ends = over_features(kind, patch)
    are_sums_over_features(regions, ends)


@pytest.mark.parametrize(
    "family",
    ["llama", *(pytest.param(f, marks=pytest.mark.slow) for f in ("gpt2", "gpt_neox", "gemma2"))],
)
def test_edges_of_what_adds_to_a_stream_are_sums_over_features(family):
    """Where the parents are met in the stream, and where a norm between them forbids it."""
    _, _, regions, ends = at_heads(family)
    joins = ends.features.model.joined(ends.features.sites, "mlp2") is not None
    assert joins == (family != "gemma2")
    are_sums_over_features(regions, ends)


def are_sums_over_features(regions, ends):
    graph, numbers = regions.complete(), ends.numbers
    nodes = attribute_nodes(ends, "logit_diff", **STEPS)
    place = np.full(numbers.logits + 1, len(graph.nodes) - 1)
    for site in ends.features.sites:
        first, nodes_of = numbers.first[site.name], graph.site_nodes(site.name)
        slots = np.append(regions.slots(site.name).numpy(), regions.n_regions(site.name))
        place[first : first + len(slots)] = nodes_of.start + slots
    scores = region_scores(regions, ends, nodes)
    settings = EdgeSettings(**STEPS)
    found = region_edges(regions, graph, ends, nodes, "logit_diff", settings)
    fine = attribute_edges(ends, nodes, "logit_diff", settings)
    for i, of in enumerate(node_scores(ends, nodes)):
        summed = np.bincount(place[of.node], of.score, len(graph.sources))
        assert np.abs(scores[i] - summed).max() <= 1e-6 * np.abs(summed).max()
        table = np.zeros((len(graph.nodes), len(graph.sources)))
        edges = fine.inputs[i]
        np.add.at(table, (place[edges.target], place[edges.source]), edges.weight)
        expected = table[graph.edge_target + graph.n_roots, graph.edge_source]
        assert np.abs(found.weights[i] - expected).max() <= 1e-6 * np.abs(expected).max()
    # what its edges miss of a target's change, more than 0 and less the finer the steps
    finer = EdgeSettings(steps=24, rule="gauss_legendre")
    less = region_edges(regions, graph, ends, nodes, "logit_diff", finer).residual
    assert found.residual.max() > 0
    assert less.sum() < 0.2 * found.residual.sum()


@pytest.mark.parametrize("patch", ["counterfactual", "zero"])
def test_circuits_of_regions_are_circuits_of_their_features(patch):
    """Of coordinates, all of which are attributed at every position."""
    regions, ends = over_features("identity", patch)
    graph = regions.complete()
    nodes = {
        s.name: [*range(ends.features.dictionary(s.name).n_features), ERROR]
        for s in ends.features.sites
    }
    fine = FeatureGraph.complete(ends.features.all_parents(), nodes)
    place = []
    for site in ends.features.sites:
        slots = np.append(regions.slots(site.name).numpy(), regions.n_regions(site.name))
        place += (graph.site_nodes(site.name).start + slots).tolist()
    place = np.array([*place, len(graph.nodes) - 1])
    rng = np.random.default_rng(1)
    masks = rng.random((3, graph.n_edges)) < [[0.3], [0.6], [0.9]]
    table = np.zeros((3, len(graph.nodes), len(graph.nodes)), dtype=bool)
    table[:, graph.edge_target + graph.n_roots, graph.edge_source] = masks
    of_features = table[:, place[fine.edge_target + fine.n_roots], place[fine.edge_source]]
    values = (ends.clean, ends.patch)
    found = run_region_circuits(regions, ends.inputs, values, graph, masks, micro_bytes=1)
    expected = run_circuits(ends.features, ends.inputs, *values, fine, of_features).logits
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)
    kept = rng.random((3, len(graph.nodes))) < 0.6
    kept[:, -1] = True
    found = run_region_nodes(regions, ends.inputs, values, graph, kept)
    sets = [node_set(fine, some[place]) for some in kept]
    expected = run_node_sets(ends.features, ends.inputs, *values, sets)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_the_whole_graph_is_the_model_and_the_empty_one_the_patch_run():
    regions, ends = over_features("relu")
    graph = regions.complete()
    masks = np.stack([np.ones(graph.n_edges, dtype=bool), np.zeros(graph.n_edges, dtype=bool)])
    values = (ends.clean, ends.patch)
    found = run_region_circuits(regions, ends.inputs, values, graph, masks)
    assert torch.allclose(found[0], ends.logits, atol=1e-9)
    patched = {name: ends.patch.values(name) for name in ends.patch.sites}
    empty = ends.features.segment("logits", patched, ends.inputs)
    assert torch.allclose(found[1], empty, atol=1e-9)


def test_what_is_no_partition_or_target_is_refused():
    regions, ends = over_features("relu")
    of = dict(regions.of)
    with pytest.raises(RegionError, match="a partition of 5 features at resid0, which has 12"):
        Partitions(ends.features, {**of, "resid0": np.zeros(5, dtype=int)})
    with pytest.raises(RegionError, match="regions of resid0 are not numbered 0, 1, … without"):
        Partitions(ends.features, {**of, "resid0": np.full(12, 3)})
    with pytest.raises(RegionError, match=r"heads of attn0\.z are of its coordinates"):
        head_partitions(ends.features)
    settings = EdgeSettings(target="value")
    nodes = attribute_nodes(ends, "logit_diff", steps=1)
    with pytest.raises(MethodError, match="'value' is of single features; allowed for regions: at"):
        region_edges(regions, regions.complete(), ends, nodes, "logit_diff", settings)
