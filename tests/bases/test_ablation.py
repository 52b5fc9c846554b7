"""Ablated sections, against one run for each later direction and against the feature machinery; and
the searches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from edgesweep.engine.bases import ablation
from edgesweep.engine.bases.ablation import (
    AblatedSection,
    ablated_chain,
    ablated_nodes,
    cross_entropy,
    mean_positions,
    spliced,
    strongest,
    top1,
)
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.dictionaries.base import Linear
from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import ZeroNodes
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.feedforward import FeedForward
from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet
from edgesweep.tasks import ArrayExample
from tests.bases import made
from tests.tiny import model_and_batch

NETWORKS = {
    "relu": (made.mlp, made.arrays),
    "plain": (made.transformer, made.tokens),
    "split": (lambda: chain_of(made.language("llama"), "split", "all"), made.tokens),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def network(name):
    make, given = NETWORKS[name]
    chain = make()
    inputs = made.prepared(chain, given())
    return chain, inputs, made.bases(chain, inputs)


def sections(chain):
    names = list(chain.widths)
    return [(a, b) for a, b in zip(names, names[1:], strict=False)]  # noqa: RUF007


def ablated(chain, inputs, bases, start, end):
    f = made.value_at(chain, start, inputs)
    return AblatedSection(chain.section(start, end), (bases[start], bases[end]), f, inputs)


@networks
def test_each_direction_is_computed_from_what_its_row_keeps(name):
    chain, inputs, bases = network(name)
    for start, end in sections(chain):
        a, b, section = bases[start], bases[end], chain.section(start, end)
        mask = np.random.default_rng(0).random((b.k, a.k)) < 0.5
        f_hat = a.encoded(made.value_at(chain, start, inputs))
        columns = []
        for i, row in enumerate(mask):
            kept = a.decoded(f_hat * torch.from_numpy(row))
            columns.append(((section(kept, inputs) - b.mean) @ b.encode)[..., i])
        wanted = spliced(chain, end, b.decoded(torch.stack(columns, -1)), inputs)
        mine = ablated(chain, inputs, bases, start, end)
        again = [mine.logits(mask) for _ in range(2)]  # the second from what was kept
        torch.testing.assert_close(again[0], wanted, rtol=1e-9, atol=1e-9)
        assert torch.equal(again[0], again[1])


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_units_are_moved_as_what_is_decoded_moves_them(activation):
    chain = made.mlp(activation=activation)
    inputs = made.prepared(chain, made.arrays())
    bases = made.bases(chain, inputs, cut=made.Cut(0, 1e-3))
    draw = np.random.default_rng(3)
    for start, end in sections(chain)[:2]:
        mask = draw.random((bases[end].k, bases[start].k)) < 0.6
        found = []
        for decoded in (False, True):
            mine = ablated(chain, inputs, bases, start, end)
            assert mine._units is not None
            if decoded:
                mine.__dict__["_units"] = None
            found.append(mine.logits(mask))
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_what_is_kept_of_runs_is_whole_blocks_and_forgotten_in_time(monkeypatch):
    """A number a direction that stays between what runs free would break up the heap."""
    chain, inputs, bases = network("plain")
    start, end = sections(chain)[0]
    draw = np.random.default_rng(2)
    masks = [draw.random((bases[end].k, bases[start].k)) < share for share in (0.2, 0.5, 0.9)]
    mine = ablated(chain, inputs, bases, start, end)
    wanted = [mine.logits(mask) for mask in masks]
    monkeypatch.setattr(ablation, "KEPT_NUMBERS", 1)
    monkeypatch.setattr(ablation, "RUN_NUMBERS", 1)
    short = ablated(chain, inputs, bases, start, end)
    for mask, logits in zip((*masks, masks[-1]), (*wanted, wanted[-1]), strict=True):
        assert torch.allclose(short.logits(mask), logits, rtol=1e-12, atol=1e-12)
        assert len({x.untyped_storage().data_ptr() for x in short._kept.values()}) <= 2
    assert len(short._kept) == bases[end].k < len(mine._kept)


@pytest.mark.parametrize(
    "layers", [("input", "hidden0"), ("input", "hidden1"), ("input", "hidden0", "hidden1")]
)
def test_it_is_edge_ablation_of_features_with_the_bases_as_dictionaries(layers):
    """Zero patch, no errors, and all other sections full; of one section, and of two at once."""
    torch.manual_seed(0)
    sizes = {"input_shape": (5,), "hidden": (6, 5), "n_output": 4}
    network = FeedForward(FeedForwardNet(FeedForwardConfig(**sizes)).double(), "mlp")
    chain, given = chain_of(network), made.arrays()
    inputs = made.prepared(chain, given)
    bases = bases_backwards(chain, inputs, layers)
    draw, pairs = np.random.default_rng(1), list(pairwise(layers))
    masks = [draw.random((bases[b].k, bases[a].k)) < 0.4 for a, b in pairs]
    f = made.value_at(chain, layers[0], inputs)
    parts = [chain.section(*pair) for pair in pairs]
    mine = ablated_chain(parts, [bases[layer] for layer in layers], f, inputs, masks)
    if len(layers) == 2:
        start, end = (bases[layer] for layer in layers)
        alone = AblatedSection(parts[0], (start, end), f, inputs).logits(masks[0])
        torch.testing.assert_close(alone, mine, rtol=1e-12, atol=1e-12)

    dictionaries = {
        name: Linear(b.encode.T.contiguous(), b.mean.new_zeros(b.k), b.decode, b.mean)
        for name, b in bases.items()
    }
    features = FeatureModel(network, dictionaries)
    columns = {name: range(bases[name].k) for name in layers}
    graph = FeatureGraph.complete(features.all_parents(), columns)
    kept = [
        is_kept(graph, edge, dict(zip(pairs, masks, strict=True))) for edge in range(graph.n_edges)
    ]
    example = [ArrayExample(tuple(x), tuple(x), (0,), (1,), "t", "x", (5,)) for x in given.tolist()]
    batch = FeatureBatch.of(features, PromptBatch.make(example), ZeroNodes())
    done = run_circuits(
        features, batch.inputs, batch.clean, batch.patch, graph, np.array([kept]), errors="zero"
    )
    torch.testing.assert_close(done.logits[0], mine, rtol=1e-9, atol=1e-9)


def bases_backwards(chain, inputs, layers):
    """PCA of the last of some layers, LIB of those before it."""
    bases = {layers[-1]: made.pca(made.moments_at(chain, layers[-1], inputs), made.CUT)}
    for start, end in reversed(list(pairwise(layers))):
        moments = made.moments_at(chain, start, inputs)
        section = chain.section(start, end)
        sums = made.second_moments(section, inputs, bases[end], moments, closed=False)
        bases[start] = made.interaction_basis(moments, sums.mean("jacobian"), 0.0, made.CUT)
    return bases


def is_kept(graph, edge, masks):
    """Whether an edge is in the mask of its section; others are all kept."""
    ends = graph.sources[graph.edge_source[edge]], graph.targets[graph.edge_target[edge]]
    if not all("/f" in node for node in ends):
        return True
    (source, j), (target, i) = (node.split("/f") for node in ends)
    return bool(masks[source, target][int(i), int(j)])


@networks
def test_with_all_edges_and_nothing_cut_it_is_the_network(name):
    chain, inputs, bases = network(name)
    for start, end in sections(chain):
        a, b = bases[start], bases[end]
        if a.k < a.width or b.k < b.width:  # a layer's values may lie in fewer dimensions
            continue
        whole = spliced(chain, start, made.value_at(chain, start, inputs), inputs)
        found = ablated(chain, inputs, bases, start, end).logits(np.ones((b.k, a.k), bool))
        torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-8)


@networks
def test_no_direction_leaves_the_mean_and_all_leave_the_layer(name):
    chain, inputs, bases = network(name)
    for layer in list(chain.widths)[:-1]:
        f, basis = made.value_at(chain, layer, inputs), bases[layer]
        none = ablated_nodes(chain, layer, basis, f, 0, inputs)
        mean = spliced(chain, layer, basis.mean.expand_as(f), inputs)
        torch.testing.assert_close(none, mean, rtol=1e-12, atol=1e-12)
        whole = ablated_nodes(chain, layer, basis, f, basis.k, inputs)
        assert torch.equal(whole, spliced(chain, layer, f, inputs))


def test_cross_entropy_is_of_every_token_that_follows_another():
    model, batch = model_and_batch("gpt2", n=3)
    chain = chain_of(model, positions="all")
    inputs = chain.prepare(batch.clean, batch.real)
    logits = spliced(chain, "embed", chain.start(inputs), inputs)
    told, n = [], 0
    for row, prompt in enumerate(batch.prompts):
        shares = logits[row].double().log_softmax(-1)
        told.append(-sum(shares[t, token] for t, token in enumerate(prompt.clean[1:])))
        n += len(prompt) - 1
    assert mean_positions([batch]) == n / 3
    torch.testing.assert_close(
        cross_entropy(logits, batch), torch.stack(told), rtol=1e-5, atol=1e-5
    )
    right = torch.tensor(
        [[int(logits[i, len(p) - 1].argmax())] for i, p in enumerate(batch.prompts)]
    )
    assert top1(logits, replace(batch, good=right)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("isolate", [False, True])
def test_negative_variances_are_counted(isolate):
    chain = chain_of(made.language("gpt2"), "split", "all")
    inputs = made.prepared(chain, made.tokens(12))
    bases = made.bases(chain, inputs, isolate=isolate)
    found = 0
    for start, end in (("mid0", "mid0.var"), ("mid0.var", "mid0.normed")):
        mask = np.random.default_rng(3).random((bases[end].k, bases[start].k)) < 0.5
        section = ablated(chain, inputs, bases, start, end)
        if end in chain.variances:
            v = bases[end].decoded(section.reached(mask))[..., 0]
            wanted = int((v < 0).sum())
        else:
            f_hat = bases[start].encoded(section.f)
            rows = torch.from_numpy(np.unique(mask, axis=0))
            values = [bases[start].decoded(f_hat * row)[..., 0] for row in rows]
            wanted = sum(int((v < 0).sum()) for v in values)
        assert section.negative(mask) == wanted
        found += wanted
    assert (found == 0) == isolate  # a node by itself, it is kept or at its mean


def test_ties_are_kept():
    square = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    assert strongest(square, 0).sum() == 0
    assert strongest(square, 2).tolist() == [[True, False], [False, True]]
    assert strongest(square, 3).sum() == strongest(square, 4).sum() == 4
