"""Edge-ablated runs against one port at a time, and the identities that a circuit obeys."""

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits, circuits
from edgesweep.engine.graph import node_circuit, prune, touched_nodes
from edgesweep.engine.patches import make_patch
from tests.oracles.slow_gradients import KINDS, patch_of, patch_values
from tests.oracles.slow_model import SlowModel
from tests.tiny import FAMILIES, FLOAT32_NORMS, assert_agree, model_and_batch

DENSITIES = (0.02, 0.1, 0.5, 0.9, 0.99)


def random_masks(graph, seed=0):
    draw = np.random.default_rng(seed)
    rows = [draw.random(graph.n_edges) < density for density in DENSITIES]
    return np.stack([*rows, rows[2]])  # one circuit twice: equal circuits share their work


def run(model, batch, masks, patch):
    inputs = model.prepare(batch.clean, batch.real)
    return ablated_logits(model, inputs, patch.values(model, batch, inputs), masks)


def slow_run(model, batch, mask, kind):
    return slow_runs(model, batch, [mask], kind)[0]


def slow_runs(model, batch, masks, kind):
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        patch = patch_values(kind, model, batch, slow)
        return [slow.forward(slow.ablated(mask, patch))[0] for mask in masks]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_one_port_at_a_time(family, kind):
    model, batch = model_and_batch(family)
    masks = random_masks(model.graph)
    ours = run(model, batch, masks, patch_of(kind, model))
    for circuit, slow in enumerate(slow_runs(model, batch, masks, kind)):
        assert_agree(ours[circuit], slow, 1e-4)


@pytest.mark.parametrize("kind", ["counterfactual", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_groups_of_layers_equal_one_port_at_a_time(family, kind, monkeypatch):
    """More layers than a group has; a group that the last layer ends, and one that it does not."""
    model, batch = model_and_batch(family, n_layers=5, dtype=torch.float64)
    masks = random_masks(model.graph, seed=7)
    slow = slow_runs(model, batch, masks, kind)
    tolerance = 1e-6 if family in FLOAT32_NORMS else 1e-9
    for group in (1, 2, 4):
        monkeypatch.setattr(circuits, "GROUP", group)
        together = run(model, batch, masks, patch_of(kind, model))
        alone = [run(model, batch, mask[None], patch_of(kind, model))[0] for mask in masks]
        for circuit in range(len(masks)):
            assert_agree(together[circuit], slow[circuit], tolerance)
            assert_agree(alone[circuit], slow[circuit], tolerance)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3"])
def test_equals_one_port_at_a_time_in_float64(family):
    model, batch = model_and_batch(family, dtype=torch.float64)
    masks = random_masks(model.graph, seed=3)
    tolerance = 1e-6 if family in FLOAT32_NORMS or family == "qwen3" else 1e-9
    ours = run(model, batch, masks, make_patch("counterfactual"))
    for circuit, mask in enumerate(masks):
        assert_agree(ours[circuit], slow_run(model, batch, mask, "counterfactual"), tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_are_the_model_and_none_the_patch_run(family, kind):
    model, batch = model_and_batch(family)
    masks = np.stack([np.ones(model.graph.n_edges, bool), np.zeros(model.graph.n_edges, bool)])
    full, empty = run(model, batch, masks, patch_of(kind, model))
    with torch.no_grad():
        positions = (batch.real.long().cumsum(-1) - 1).clamp(min=0)

        def plain(tokens):
            logits = model.hf(
                tokens, attention_mask=batch.real.long(), position_ids=positions
            ).logits
            last = batch.real.long().sum(-1) - 1
            return logits[torch.arange(len(last)), last]

        assert_agree(full, plain(batch.clean), 1e-5)
        if kind == "counterfactual":
            assert_agree(empty, plain(batch.patch), 1e-5)
        else:
            assert_agree(empty, slow_run(model, batch, masks[1], kind), 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_pruning_does_not_change_the_function(family, kind):
    model, batch = model_and_batch(family)
    masks = random_masks(model.graph, seed=5)
    pruned = np.stack([prune(model.graph, m, both_sides=kind == "counterfactual") for m in masks])
    assert (pruned.sum(1) < masks.sum(1)).any()
    runs = (slow_runs(model, batch, of, kind) for of in (pruned, masks))
    for smaller, whole in zip(*runs, strict=True):
        assert_agree(smaller, whole, 1e-5)


def test_node_ablation_patches_nodes_after_they_are_computed():
    model, batch = model_and_batch("llama")
    mask = random_masks(model.graph)[0]
    kept = touched_nodes(model.graph, mask)
    ours = run(model, batch, node_circuit(model.graph, mask)[None], make_patch("counterfactual"))[0]
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        patch = patch_values("counterfactual", model, batch, slow)
        outside = {n for n, inside in zip(model.graph.nodes, kept, strict=True) if not inside}

        def stream_of(target, values, constant):
            now = {s: patch[s] if s in outside else values[s] for s in slow.sources_of(target)}
            return sum(now.values()) + constant

        oracle, _ = slow.forward(stream_of)
    assert 0 < len(outside) < len(model.graph.nodes)
    assert_agree(ours, oracle, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_many_circuits_equal_one_by_one_and_padding_changes_nothing(kind):
    model, right = model_and_batch("llama")
    _, left = model_and_batch("llama", side="left")
    masks, patch = random_masks(model.graph), patch_of(kind, model)
    together = run(model, right, masks, patch)
    one_by_one = torch.cat([run(model, right, m[None], patch) for m in masks])
    assert_agree(together.flatten(0, 1), one_by_one.flatten(0, 1), 1e-5)
    assert_agree(run(model, left, masks, patch).flatten(0, 1), together.flatten(0, 1), 1e-5)
