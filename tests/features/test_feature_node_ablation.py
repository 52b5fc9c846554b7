"""Node ablation of features against whole tables, and against the edge ablation that it is."""

import numpy as np
import pytest
import torch

from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.ablation.node_ablation import all_nodes, node_set, run_node_sets
from edgesweep.engine.graph import node_circuit, touched_nodes
from tests.features.made import CHAIN, KINDS, MIXED, case, oracle_node_logits, random_masks
from tests.tiny import assert_agree


def run(made, kept, **options):
    sets = [node_set(made.graph, nodes) for nodes in kept]
    return run_node_sets(made.features, made.inputs, made.clean, made.patch, sets, **options)


def edge_run(made, masks, **options):
    return run_circuits(
        made.features, made.inputs, made.clean, made.patch, made.graph, masks, **options
    ).logits


def random_nodes(graph, seed=0):
    draw = np.random.default_rng(seed)
    rows = [draw.random(len(graph.nodes)) < density for density in (0.2, 0.5, 0.8)]
    return np.stack([*rows, np.zeros(len(graph.nodes), bool)])


@pytest.mark.parametrize("patch", ["counterfactual", "zero", "mean"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_equals_whole_tables(family, patch):
    made = case(family, MIXED, "relu", patch=patch, dtype=torch.float64)
    kept = random_nodes(made.graph)
    ours = run(made, kept)
    for circuit, nodes in enumerate(kept):
        assert_agree(ours[circuit], oracle_node_logits(made, nodes), 1e-9)


@pytest.mark.parametrize("errors", ["clean", "patch", "zero"])
def test_fixed_error_terms_equal_whole_tables(errors):
    made = case("gpt2", MIXED, "jumprelu", dtype=torch.float64)
    kept = random_nodes(made.graph)
    ours = run(made, kept, errors=errors)
    for circuit, nodes in enumerate(kept):
        assert_agree(ours[circuit], oracle_node_logits(made, nodes, errors), 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patch", ["counterfactual", "mean"])
def test_is_the_edge_ablation_of_all_edges_out_of_the_nodes(kind, patch):
    """The order of Marks et al., a module at once, and ours are one function on a complete graph:
    the targets of a site, its error node among them, all see the same kept parents."""
    made = case("llama", MIXED, kind, patch=patch, dtype=torch.float64)
    kept = random_nodes(made.graph, seed=1)
    outgoing = np.stack([nodes[made.graph.edge_source] for nodes in kept])
    assert_agree(run(made, kept), edge_run(made, outgoing), 1e-9)


def test_a_circuit_of_edges_by_its_nodes():
    made = case("llama", CHAIN, "relu", dtype=torch.float64)
    mask = random_masks(made.graph)[0]
    nodes = touched_nodes(made.graph, mask)
    ours = edge_run(made, node_circuit(made.graph, mask)[None])
    assert_agree(run(made, nodes[None])[0], ours[0], 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_all_nodes_are_the_model_and_none_the_patch_run(kind):
    made = case("gemma2", CHAIN, kind)
    nothing = node_set(made.graph, np.zeros(len(made.graph.nodes), bool))
    full, empty = run_node_sets(
        made.features, made.inputs, made.clean, made.patch, [all_nodes(made.features), nothing]
    )
    assert_agree(full, made.model.run(made.inputs).logits, 1e-5)
    patched = made.model.prepare(made.batch.patch, made.batch.real)
    assert_agree(empty, made.model.run(patched).logits, 1e-5)


def test_batches_and_micro_batches_do_not_matter():
    made = case("llama", MIXED, "relu", side="left")
    kept = random_nodes(made.graph)
    ours = run(made, kept)
    assert_agree(run(made, kept, micro_bytes=1), ours, 1e-5)
    for row in range(len(made.batch)):
        assert_agree(run(made.only(row), kept)[:, 0], ours[:, row], 1e-5)
