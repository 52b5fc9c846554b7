"""Exact patching, and variants of any circuit, against one port at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.baserun import BaseRun
from edgesweep.engine.methods import METHODS, MethodError, Settings
from edgesweep.engine.metrics import METRICS, ORIENTATION
from edgesweep.engine.patches import make_patch
from edgesweep.engine.variants import drop_edges, drop_nodes
from tests.oracles.slow_gradients import KINDS, patch_of, patch_values
from tests.oracles.slow_model import SlowModel
from tests.tiny import FAMILIES, assert_agree, model_and_batch, prompts


def slow_exact(model, batch, kind, metric, masks):
    """λ(clean) − λ(the model without what a mask lacks), one mask at a time."""
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        patch = patch_values(kind, model, batch, slow)
        clean = slow.forward(slow.plain)[0]
        sign = ORIENTATION.get(metric, 1.0)

        def value(logits):
            return sign * METRICS[metric](logits.double(), batch, clean.double())

        runs = [slow.forward(slow.ablated(mask, patch))[0] for mask in masks]
        return torch.stack([value(clean) - value(logits) for logits in runs], dim=1)


def all_but(graph, edges):
    masks = np.ones((len(edges), graph.n_edges), dtype=bool)
    masks[np.arange(len(edges)), edges] = False
    return masks


def attribute(name, model, batch, kind="counterfactual", metric="logit_diff", **settings):
    method, patch = METHODS[name], patch_of(kind, model)
    return method.attribute(model, batch, patch, metric, Settings(**settings)).scores


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_equals_one_port_at_a_time(family):
    model, batch = model_and_batch(family, n_layers=2)
    ours = attribute("exact", model, batch, rows=12)
    masks = all_but(model.graph, np.arange(model.graph.n_edges))
    assert_agree(ours, slow_exact(model, batch, "counterfactual", "logit_diff", masks), 1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("family", "causal"), [*((f, True) for f in FAMILIES), ("plain", False)])
def test_prompts_that_differ_late_or_not_at_all(family, causal, side):
    """What lies before the first difference is the base only where no query sees ahead."""
    model, batch = model_and_batch(family, n_layers=2, causal=causal)
    late = [replace(p, patch=(*p.clean[:-2], p.patch[0], p.clean[-1])) for p in batch.prompts[:2]]
    same = [replace(p, patch=p.clean) for p in prompts(2, lengths=(3, 6), seed=1)]
    batch = type(batch).make([*late, *same], side=side)
    ours = attribute("exact", model, batch, rows=16)
    masks = all_but(model.graph, np.arange(model.graph.n_edges))
    slow = slow_exact(model, batch, "counterfactual", "logit_diff", masks)
    assert_agree(ours[:2], slow[:2], 1e-4)
    assert float(ours[2:].abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["kl", "accuracy", "prob_diff"])
def test_every_patch_and_metric(kind, metric):
    model, batch = model_and_batch("gpt2", n_layers=2, dtype=torch.float64)
    edges = np.arange(0, model.graph.n_edges, 7)
    mask = np.isin(np.arange(model.graph.n_edges), edges)
    ours = attribute("exact", model, batch, kind, metric, candidates=mask)
    oracle = slow_exact(model, batch, kind, metric, all_but(model.graph, edges))
    assert_agree(ours[:, edges], oracle, 1e-6)
    assert bool(torch.isnan(ours[:, ~mask]).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_node_equals_one_port_at_a_time(family):
    model, batch = model_and_batch(family)
    graph = model.graph
    ours = attribute("node_exact", model, batch, rows=9)
    masks = np.stack([graph.edge_source != s for s in range(len(graph.sources))])
    assert_agree(ours, slow_exact(model, batch, "counterfactual", "logit_diff", masks), 1e-4)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_variants_of_any_circuit_equal_its_ablated_runs(family, kind, density):
    model, batch = model_and_batch(family, dtype=torch.float64)
    draw = np.random.default_rng(1)
    mask = draw.random(model.graph.n_edges) < density
    inputs = model.prepare(batch.clean, batch.real)
    values = patch_of(kind, model).values(model, batch, inputs)
    base = BaseRun(model, inputs, values, mask)

    def assert_equal(ours, masks):
        """A network that carries nothing at all is skipped: norms make its rounding any size."""
        for logits, oracle in zip(ours, ablated_logits(model, inputs, values, masks), strict=True):
            if oracle.any():
                assert_agree(logits, oracle, 1e-5)

    assert_equal([base.logits], mask[None])
    edges = draw.choice(np.flatnonzero(mask), min(25, mask.sum()), replace=False)
    seen = []
    for places, logits in drop_edges(base, edges, rows=12):
        less = np.tile(mask, (len(places), 1))
        less[np.arange(len(places)), edges[places]] = False
        assert_equal(logits, less)
        seen += list(places)
    assert sorted(seen) == list(range(len(edges)))
    for places, logits in drop_nodes(base, np.arange(len(model.graph.sources)), rows=12):
        assert_equal(logits, mask & (model.graph.edge_source != np.array(places)[:, None]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_changes_pass_a_layer_whose_heads_are_read_by_nothing(family, kind):
    """All edges are kept but those out of the heads in the middle; in a parallel model the MLP
    beside them still reads what the layer before has changed."""
    model, batch = model_and_batch(family, dtype=torch.float64)
    graph = model.graph
    mask = ~np.isin(graph.edge_source, [graph.head_source(1, h) for h in range(4)])
    inputs = model.prepare(batch.clean, batch.real)
    values = patch_of(kind, model).values(model, batch, inputs)
    base = BaseRun(model, inputs, values, mask)
    edges = np.flatnonzero(mask)[:14]
    for places, logits in drop_edges(base, edges, rows=18):
        less = np.tile(mask, (len(places), 1))
        less[np.arange(len(places)), edges[places]] = False
        oracles = ablated_logits(model, inputs, values, less)
        for logit, oracle in zip(logits, oracles, strict=True):
            assert_agree(logit, oracle, 1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])
def test_an_edge_may_be_moved_part_of_the_way(family):
    model, batch = model_and_batch(family, n_layers=2)
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    inputs = model.prepare(batch.clean, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    base = BaseRun(model, inputs, values, np.ones(model.graph.n_edges, dtype=bool))
    edges = np.arange(0, model.graph.n_edges, 11)
    with torch.no_grad():
        patch = patch_values("counterfactual", model, batch, slow)
        clean = slow.forward(slow.plain)[1]
        for places, logits in drop_edges(base, edges, 16, amount=0.3):
            for place, logit in zip(places, logits, strict=True):
                name = model.graph.edge_name(edges[place])
                source = name.partition("->")[0]
                by = 0.3 * (patch[source] - clean[source])
                oracle = slow.forward(slow.disturbed(name, by))[0]
                assert_agree(logit, oracle, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["exact", "node_exact"])
def test_left_padding_and_batching_change_nothing(family, method):
    model, right = model_and_batch(family, n_layers=2)
    _, left = model_and_batch(family, n_layers=2, side="left")
    alone = torch.cat([attribute(method, model, type(right).make([p])) for p in right.prompts])
    assert_agree(attribute(method, model, right), alone, 1e-4)
    assert_agree(attribute(method, model, left), alone, 1e-4)


def test_chunks_of_any_size_give_the_same(monkeypatch):
    model, batch = model_and_batch("llama", n_layers=2)
    whole = attribute("exact", model, batch, rows=10**6)
    assert_agree(attribute("exact", model, batch, rows=1), whole, 1e-5)


def test_an_edge_that_carries_no_difference_scores_exactly_zero():
    model, batch = model_and_batch("gpt2", n_layers=2)
    same = type(batch).make([type(p)(**{**vars(p), "patch": p.clean}) for p in batch.prompts])
    assert not attribute("exact", model, same).any()


def test_an_unknown_metric_is_refused():
    with pytest.raises(MethodError, match="'exact' cannot use metric 'speed'; use logit_diff or"):
        METHODS["exact"].check("speed", "counterfactual")
