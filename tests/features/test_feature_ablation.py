"""Edge ablation of features against one target at a time, and the identities that it obeys."""

import numpy as np
import pytest
import torch

from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.ablation.prints import distinct
from edgesweep.engine.graph import ERROR, FeatureGraph, node_circuit, prune
from tests.features.made import (
    CHAIN,
    KINDS,
    MIXED,
    MIXED_PARENTS,
    case,
    oracle_logits,
    random_masks,
)
from tests.tiny import FLOAT32_NORMS, assert_agree

FEW_FAMILIES = ["gpt2", "gpt_neox", "llama", "gemma2"]
#: what float64 promises, where a family's own code is not float32 inside
TIGHT = {family: 1e-9 for family in FEW_FAMILIES} | dict.fromkeys(FLOAT32_NORMS, 1e-6)


def run(made, masks, **options):
    return run_circuits(
        made.features, made.inputs, made.clean, made.patch, made.graph, masks, **options
    )


def logits(made, masks, **options):
    return run(made, masks, **options).logits


# --- one target at a time ------------------------------------------------------------------------
@pytest.mark.parametrize("patch", ["counterfactual", "resample", "zero", "mean"])
@pytest.mark.parametrize("family", FEW_FAMILIES)
def test_equals_one_target_at_a_time(family, patch):
    made = case(family, MIXED, "relu", patch=patch, dtype=torch.float64)
    assert made.graph.parents == MIXED_PARENTS[family == "gpt_neox"]
    masks = random_masks(made.graph)
    ours = logits(made, masks)
    for circuit, mask in enumerate(masks[:-1]):
        assert_agree(ours[circuit], oracle_logits(made, mask), TIGHT[family])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dictionary_equals_one_target_at_a_time(kind):
    made = case("llama", CHAIN, kind, dtype=torch.float64)
    masks = random_masks(made.graph, seed=2)
    ours = logits(made, masks)
    for circuit, mask in enumerate(masks[:-1]):
        assert_agree(ours[circuit], oracle_logits(made, mask), 1e-9)


@pytest.mark.parametrize("errors", ["clean", "patch", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_fixed_error_terms_equal_one_target_at_a_time(family, errors):
    made = case(family, MIXED, "relu", dtype=torch.float64)
    masks = random_masks(made.graph, seed=1)
    ours = logits(made, masks, errors=errors)
    for circuit, mask in enumerate(masks[:-1]):
        assert_agree(ours[circuit], oracle_logits(made, mask, errors), TIGHT[family])


def test_a_graph_without_error_nodes_falls_back_on_the_patch():
    made = case("llama", MIXED, "relu", dtype=torch.float64)
    nodes = {s: made.graph.features(s) for s in list(made.graph.parents)[:-1]}
    bare = made.over(FeatureGraph.complete(made.graph.parents, nodes))
    masks = random_masks(bare.graph)
    ours = logits(bare, masks)
    for circuit, mask in enumerate(masks[:-1]):
        assert_agree(ours[circuit], oracle_logits(bare, mask), 1e-9)


def test_in_single_precision():
    made = case("gpt2", MIXED, "relu")
    masks = random_masks(made.graph)
    ours = logits(made, masks)
    for circuit, mask in enumerate(masks[:-1]):
        assert_agree(ours[circuit], oracle_logits(made, mask), 1e-4)


# --- the full and the empty graph ----------------------------------------------------------------
def full_and_empty(graph):
    return np.stack([np.ones(graph.n_edges, bool), np.zeros(graph.n_edges, bool)])


@pytest.mark.parametrize("sites", [CHAIN, MIXED, ("resid1",), ()])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_all_edges_are_the_model_and_none_the_patch_run(kind, sites, dtype, rtol):
    made = case("gpt2", sites, kind, dtype=dtype)
    full, empty = logits(made, full_and_empty(made.graph))
    assert_agree(full, made.model.run(made.inputs).logits, rtol)
    patched = made.model.prepare(made.batch.patch, made.batch.real)
    assert_agree(empty, made.model.run(patched).logits, rtol)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "qwen3", "gemma2", "gemma3_text"])
def test_all_edges_are_the_model_in_every_family(family):
    made = case(family, MIXED, "relu")
    full, empty = logits(made, full_and_empty(made.graph))
    assert_agree(full, made.model.run(made.inputs).logits, 1e-5)
    patched = made.model.prepare(made.batch.patch, made.batch.real)
    assert_agree(empty, made.model.run(patched).logits, 1e-5)


def test_fixed_error_terms_keep_the_full_graph_from_the_model():
    made = case("llama", CHAIN, "relu", dtype=torch.float64)
    model = made.model.run(made.inputs).logits
    for errors in ("patch", "zero"):
        full = logits(made, full_and_empty(made.graph), errors=errors)[0]
        assert float((full - model).abs().max()) > 1e-2 * float(model.abs().max())
    # clean errors on clean features are the clean run; only recomputing could differ
    assert_agree(logits(made, full_and_empty(made.graph), errors="clean")[0], model, 1e-9)


# --- what must not matter ------------------------------------------------------------------------
@pytest.mark.parametrize("patch", ["counterfactual", "resample", "zero", "mean"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_pruning_does_not_change_the_function(family, patch):
    made = case(family, MIXED, "relu", patch=patch, dtype=torch.float64)
    masks = random_masks(made.graph, seed=5)
    both = patch in ("counterfactual", "resample")
    pruned = np.stack([prune(made.graph, mask, both_sides=both) for mask in masks])
    assert pruned.sum() < masks.sum()
    for mask, less in zip(masks, pruned, strict=True):
        assert_agree(oracle_logits(made, less), oracle_logits(made, mask), TIGHT[family])
    assert_agree(logits(made, pruned), logits(made, masks), TIGHT[family])


def test_a_circuit_alone_is_what_it_is_among_others():
    made = case("llama", MIXED, "relu")
    masks = random_masks(made.graph)
    together = logits(made, masks)
    for circuit, mask in enumerate(masks):
        assert_agree(logits(made, mask[None])[0], together[circuit], 1e-5)
    assert torch.equal(together[-1], together[-2])  # the same circuit twice


@pytest.mark.parametrize("micro_bytes", [1, 200_000])
def test_micro_batches_do_not_matter(micro_bytes):
    made = case("gpt_neox", MIXED, "relu")
    masks = random_masks(made.graph)
    assert_agree(logits(made, masks, micro_bytes=micro_bytes), logits(made, masks), 1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_its_inputs_one_at_a_time(side):
    made = case("llama", MIXED, "relu", side=side)
    masks = random_masks(made.graph)
    ours = logits(made, masks)
    for row in range(len(made.batch)):
        alone = made.only(row)
        assert_agree(logits(alone, masks)[:, 0], ours[:, row], 1e-5)


# --- what is not computed ------------------------------------------------------------------------
def test_equal_masks_share_a_row_and_empty_ones_have_none():
    made = case("gpt2", ("resid0", "resid1"), "relu")
    n_inputs = len(made.batch)
    full, empty = full_and_empty(made.graph)
    done = run(made, full[None])
    assert done.n_rows == 3 * n_inputs  # one a site and input, and the logits
    assert done.n_skipped == 0
    assert done.n_shared == done.n_masks - done.n_rows > 0
    twice = run(made, np.stack([full, full]))
    assert (twice.n_rows, twice.n_masks) == (done.n_rows, 2 * done.n_masks)
    nothing = run(made, empty[None])
    assert (nothing.n_rows, nothing.n_masks) == (n_inputs, n_inputs)  # the logits alone
    unfed = full.copy()
    unfed[made.graph.blocks[0].edges] = False
    assert run(made, unfed[None]).n_rows == n_inputs  # pruned: nothing reaches anything


def test_targets_that_keep_nothing_live_on_an_input_are_skipped():
    made = case("gemma2", CHAIN, "relu")
    graph, first = made.graph, made.graph.blocks[0].edges
    numbers = torch.as_tensor(graph.features("embed"))
    clean, patch = (values.features("embed", numbers) for values in (made.clean, made.patch))
    differs = (clean != patch).any(1)
    node = int((differs.any(0) & ~differs.all(0)).int().argmax())
    assert differs[:, node].any()
    assert not differs[:, node].all()
    mask = np.ones(graph.n_edges, bool)
    mask[first] = graph.edge_source[first] == node
    done = run(made, mask[None])
    assert done.n_skipped > 0
    assert_agree(done.logits[0], oracle_logits(made, mask), 1e-4)


def test_under_fixed_patch_values_the_empty_mask_is_one_row():
    made = case("gpt2", ("resid0",), "relu", patch="zero")
    mask = np.zeros(made.graph.n_edges, bool)
    mask[made.graph.blocks[-1].edges] = True
    done = run(made, mask[None])
    assert done.n_rows == 2 * len(made.batch)
    assert done.n_skipped == 0


def test_mass_that_fell_back_is_counted():
    made = case("llama", CHAIN, "relu", dtype=torch.float64)
    masks = random_masks(made.graph)
    done = run(made, np.concatenate([full_and_empty(made.graph), masks]))
    assert done.fallback_share[0] < 1e-12  # the full graph recomputes zeros
    assert done.fallback_share[1] == 0
    assert 0 < done.fallback_share[2:].max() < 1
    assert (done.fallback_mass <= done.mass).all()


def test_fingerprints_part_and_join():
    prints = np.array([[1, 2], [1, 2], [3, 2], [1, 2]], dtype=np.uint64)
    owners, row = distinct(np.array([0, 1, 0, 0]), prints)
    assert owners.tolist() == [0, 1, 2]
    assert row.tolist() == [0, 1, 2, 0]


# --- refusals ------------------------------------------------------------------------------------
def test_other_sites_and_modes_are_refused():
    made = case("gpt2", ("resid0",), "relu")
    other = made.over(
        FeatureGraph.complete({"embed": (), "logits": ("embed",)}, {"embed": [ERROR]})
    )
    with pytest.raises(ValueError, match="over sites embed, logits; the model is read at embed, r"):
        logits(other, np.ones((1, 1), bool))
    with pytest.raises(ValueError, match="error mode 'none' is none of node, clean, patch, zero"):
        logits(made, np.ones((1, made.graph.n_edges), bool), errors="none")


def test_node_circuits_of_complete_graphs_run_like_any_other():
    made = case("llama", MIXED, "relu", dtype=torch.float64)
    mask = node_circuit(made.graph, random_masks(made.graph)[0])
    assert_agree(logits(made, mask[None])[0], oracle_logits(made, mask), 1e-9)
