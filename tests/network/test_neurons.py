"""Features over a feed-forward network: its neurons, attributed and ablated, each against plain
autograd, one edge at a time."""

import numpy as np
import pytest
import torch

from edgesweep.engine.features import (
    EdgeSettings,
    FeatureBatch,
    attribute_edges,
    attribute_nodes,
    make_feature_patch,
    node_mean_partials,
    node_scores,
)
from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.ablation.evaluation import evaluate_feature_reference
from edgesweep.engine.features.ablation.node_ablation import node_set, run_node_sets
from edgesweep.engine.graph import ERROR, FeatureGraph
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import resample_partners
from tests.features.made import random_masks
from tests.network.made import KINDS, batch, examples, network, neurons
from tests.oracles import slow_feedforward as slow

PATCHES = ("counterfactual", "resample", "zero", "mean")
#: how methods over features set the quadrature: eap and node_ap; ig_activations and node_ig
QUADRATURES = {"eap": ("right", 1), "ig": ("midpoint", 4)}
#: what is left of a weight that lists of edges keep
FLOAT32 = 1e-6
every_kind = pytest.mark.parametrize("kind", KINDS)
every_patch = pytest.mark.parametrize("patch", PATCHES)
every_quadrature = pytest.mark.parametrize("quadrature", QUADRATURES)


def made(kind, patch="counterfactual", skip=()):
    """A network in its neurons with a batch; and the oracle with both ends of each input."""
    net, given = network(kind), batch()
    names = [name for name in net.sites.names if name not in skip]
    features = neurons(net, names)
    ends = FeatureBatch.of(features, given, feature_patch(features, patch))
    oracle = slow.SlowNet(net.hf.config, net.hf.state_dict(), names)
    with torch.no_grad():
        clean = [oracle.values(x.flatten()) for x in given.clean]
        patched = [_patched(oracle, patch, i) for i in range(len(given))]
    return ends, oracle, clean, patched


def feature_patch(features, kind):
    means = partners = None
    if kind == "mean":
        partials = node_mean_partials(features, examples(6), pooled=False)
        means = {group: partial.mean() for group, partial in partials.items()}
    if kind == "resample":
        partners = resample_partners(examples(3), seed=0)
    return make_feature_patch(kind, means, partners=partners)


def _patched(oracle, kind, number):
    given = examples(6)
    if kind == "counterfactual":
        return oracle.values(torch.tensor(given[number].patch, dtype=torch.float64))
    if kind == "resample":
        partner = resample_partners(given[:3], seed=0)[given[number].clean]
        return oracle.values(torch.tensor(partner, dtype=torch.float64))
    runs = [oracle.values(torch.tensor(example.patch, dtype=torch.float64)) for example in given]
    scale = 0.0 if kind == "zero" else 1.0
    return {name: scale * torch.stack([run[name] for run in runs]).mean(0) for name in runs[0]}


def agree(found, expected, rtol):
    """By name, where what is left out is 0, and to the largest of all."""
    scale = max(map(abs, expected.values()))
    assert found.keys() <= expected.keys()
    worst = max(abs(found.get(name, 0.0) - value) for name, value in expected.items())
    assert worst <= rtol * scale


def without_errors(found, numbers):
    """{name: score}; an error node, which is 0 under `identity`, must have none."""
    named = {numbers(key): value for key, value in found}
    for name, value in named.items():
        assert "err" not in name or value == pytest.approx(0.0, abs=1e-12)
    return {name: value for name, value in named.items() if "err" not in name}


@every_quadrature
@every_patch
@every_kind
def test_nodes_are_the_oracles(kind, patch, quadrature):
    ends, oracle, clean, patched = made(kind, patch)
    rule, steps = QUADRATURES[quadrature]
    found = node_scores(ends, attribute_nodes(ends, "logit_diff", steps=steps, rule=rule))
    for i, example in enumerate(ends.batch.prompts):
        expected = {}
        for site in oracle.chosen:
            gradient = slow.node_gradient(
                oracle, site, clean[i], patched[i], points(rule, steps), example
            )
            scores = (clean[i][site] - patched[i][site]) * gradient
            expected |= {f"{site}/f{j}": value for j, value in enumerate(scores.tolist())}
        pairs = zip(found[i].node.tolist(), found[i].score.tolist(), strict=True)
        agree(without_errors(pairs, ends.numbers.name), expected, 1e-9)


def edges_of(ends, number, settings):
    nodes = attribute_nodes(ends, "logit_diff", steps=settings.steps, rule=settings.rule)
    found = attribute_edges(ends, nodes, "logit_diff", settings).inputs[number]
    weights = found.weight.astype(float).tolist()
    pairs = zip(zip(found.source, found.target, strict=True), weights, strict=True)
    name = ends.numbers.name
    return without_errors(pairs, lambda pair: f"{name(int(pair[0]))}->{name(int(pair[1]))}")


@pytest.mark.parametrize("target", ["attribution", "value", "metric"])
@every_quadrature
@pytest.mark.parametrize("patch", ["counterfactual", "mean"])
@every_kind
def test_edges_are_the_oracles_one_at_a_time(kind, patch, quadrature, target):
    ends, oracle, clean, patched = made(kind, patch)
    rule, steps = QUADRATURES[quadrature]
    settings, example = EdgeSettings(steps=steps, rule=rule, target=target), ends.batch.prompts[1]
    expected = slow.edges(oracle, clean[1], patched[1], points(rule, steps), example, target)
    agree(edges_of(ends, 1, settings), expected, FLOAT32)


def test_sections_of_several_layers():
    ends, oracle, clean, patched = made("mlp", skip=("hidden0",))
    expected = slow.edges(oracle, clean[0], patched[0], points("right", 1), ends.batch.prompts[0])
    agree(edges_of(ends, 0, EdgeSettings(steps=1, rule="right")), expected, FLOAT32)


def test_on_a_linear_network_every_cut_is_complete():
    ends, oracle, clean, patched = made("linear")
    example = ends.batch.prompts[0]
    change = slow.logit_diff(clean[0]["logits"], example) - slow.logit_diff(
        patched[0]["logits"], example
    )
    found = edges_of(ends, 0, EdgeSettings(steps=1, rule="right"))
    for site in oracle.chosen:
        crossing = sum(w for name, w in found.items() if name.startswith(f"{site}/"))
        assert crossing == pytest.approx(float(change), rel=FLOAT32)


def graph_of(ends):
    nodes = {
        site: [ERROR, *active.feature.unique().tolist()] for site, active in ends.active.items()
    }
    return FeatureGraph.complete(ends.features.all_parents(), nodes)


@every_patch
@every_kind
def test_edge_ablation_is_the_oracles(kind, patch):
    ends, oracle, clean, patched = made(kind, patch)
    graph = graph_of(ends)
    masks = random_masks(graph)
    found = run_circuits(ends.features, ends.inputs, ends.clean, ends.patch, graph, masks).logits
    for circuit, mask in zip(found, masks, strict=True):
        kept = {graph.edge_name(e) for e in np.flatnonzero(mask)}
        for i, logits in enumerate(circuit):
            expected = slow.edge_ablated(oracle, kept, clean[i], patched[i])
            assert torch.allclose(logits, expected, rtol=1e-9, atol=1e-9)


@every_patch
@every_kind
def test_node_ablation_is_the_oracles(kind, patch):
    ends, oracle, clean, patched = made(kind, patch)
    graph, draw = graph_of(ends), np.random.default_rng(0)
    kept = draw.random((4, len(graph.nodes))) < 0.6
    kept[0], kept[1] = True, False
    found = run_node_sets(
        ends.features, ends.inputs, ends.clean, ends.patch, [node_set(graph, k) for k in kept]
    )
    for circuit, mask in zip(found, kept, strict=True):
        names = {graph.nodes[i] for i in np.flatnonzero(mask)}
        for i, logits in enumerate(circuit):
            expected = slow.node_ablated(oracle, names, clean[i], patched[i])
            assert torch.allclose(logits, expected, rtol=1e-9, atol=1e-9)


def test_the_reference_is_the_network_and_the_patch_run():
    ends, _, clean, patched = made("cnn")
    given = FeatureBatch.of(
        ends.features, ends.batch, feature_patch(ends.features, "counterfactual")
    )
    found = evaluate_feature_reference(given, ["logit_diff"])
    for side, runs in ((found.full, clean), (found.empty, patched)):
        for value, run, example in zip(side["logit_diff"], runs, ends.batch.prompts, strict=True):
            assert value == pytest.approx(float(slow.logit_diff(run["logits"], example)), rel=1e-9)


def test_batches_of_one_are_the_same():
    ends, *_ = made("cnn")
    settings = EdgeSettings(steps=2)
    for i, example in enumerate(ends.batch.prompts):
        alone = FeatureBatch.of(
            ends.features,
            PromptBatch.make([example]),
            feature_patch(ends.features, "counterfactual"),
        )
        agree(edges_of(alone, 0, settings), edges_of(ends, i, settings), FLOAT32)
