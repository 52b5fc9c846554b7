"""Circuits as values: other tools' names, files that come back, and views that join ports."""

import json
from collections import OrderedDict
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from edgesweep.engine.graph import (
    Circuit,
    CircuitError,
    EdgeGraph,
    FeatureGraph,
    GraphSpec,
    load_circuit,
    node_edges,
    touched_nodes,
)

PLAIN = EdgeGraph(GraphSpec(n_layers=2, n_heads=4, n_kv_heads=4))
GROUPED = EdgeGraph(GraphSpec(n_layers=2, n_heads=4, n_kv_heads=2))
FEATURES = FeatureGraph.complete(
    {"embed": (), "resid0": ("embed",), "logits": ("resid0",)}, {"embed": [-1], "resid0": [7, -1]}
)


def random_circuit(graph, seed=0):
    draw = np.random.default_rng(seed)
    mask = draw.random(graph.n_edges) < 0.3
    weights = draw.normal(size=graph.n_edges)
    return mask, Circuit.of_mask(
        graph, mask, weights, name="drawn", model="m", task="t", selected={"threshold": 0.3}
    )


# --- names -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("input->a1.h3<v>", "embed->a1.kv3.v"),
        ("a0.h3->a1.h3<q>", "a0.h3->a1.h3.q"),
        ("m0->logits", "m0->logits"),
        ("a0.h1 -> a1.h2.k", "a0.h1->a1.kv2.k"),
        ("hook_embed->blocks.0.hook_mlp_in", "embed->m0"),
        ("blocks.0.hook_resid_pre[:]->blocks.1.hook_q_input[:, :, 2]", "embed->a1.h2.q"),
        (
            "blocks.0.attn.hook_result[COL, COL, 3]->blocks.1.attn.hook_k[:, :, 0]",
            "a0.h3->a1.kv0.k",
        ),
        ("blocks.1.hook_mlp_out->blocks.1.hook_resid_post", "m1->logits"),
        ("blocks.0.attn.hook_z[:, :, 1]->blocks.0.hook_resid_mid", "a0.h1->m0"),
    ],
)
def test_names_of_other_tools_are_understood(theirs, ours):
    circuit = Circuit.of_edges([theirs])
    assert list(circuit.on(PLAIN).edges) == [ours]
    assert np.flatnonzero(circuit.mask(PLAIN)).tolist() == [PLAIN.edge_index(ours)]


def test_every_edge_is_found_by_its_own_name_and_by_that_of_its_query_heads():
    for graph in (PLAIN, GROUPED, FEATURES):
        names = [graph.edge_name(e) for e in range(graph.n_edges)]
        assert list(Circuit.of_edges(names[::-1]).on(graph).edges) == names
    circuit = Circuit({"m0->a1.h2<k>": 0.5, "m0->a1.h3<k>": 0.25, "m0->a1.h3<v>": None})
    assert circuit.on(GROUPED).edges == {"m0->a1.kv1.k": 0.75, "m0->a1.kv1.v": None}


@pytest.mark.parametrize(
    ("edge", "what"),
    [
        ("a0.h9->m1", "there is no 'a0.h9' in this graph; the nearest is a0.h"),
        ("m0->a1.h4.q", r"there is no 'a1.h4.q' in this graph; the nearest is a1.h\d.q"),
        ("m1->m0", "m0 does not read m1; the nearest is [a-z0-9.]+->m0"),
        ("m0->resid0", "there is no 'resid0'"),  # the logits read resid1
    ],
)
def test_an_edge_that_the_model_lacks_is_one_line(edge, what):
    with pytest.raises(CircuitError, match=f"edge '{edge}': {what}") as told:
        Circuit.of_edges([edge]).mask(PLAIN)
    assert "\n" not in str(told.value)


# --- views -------------------------------------------------------------------------------------
@pytest.mark.parametrize("graph", [PLAIN, GROUPED, FEATURES])
def test_networkx_has_the_circuit_over_nodes(graph):
    mask, circuit = random_circuit(graph)
    found = circuit.to_networkx()
    pairs = {(graph.nodes[s], graph.nodes[n]) for s, n in node_edges(graph, mask).tolist()}
    assert set(found.edges) == pairs
    touched = {graph.nodes[i] for i in np.flatnonzero(touched_nodes(graph, mask))}
    assert set(found.nodes) == set(circuit.nodes) == touched


def test_ports_of_one_head_make_one_edge_with_the_sum_of_their_weights():
    circuit = Circuit({"m0->a1.h2.q": 0.5, "m0->a1.h2.k": 0.25, "m0->m1": 2.0}).on(GROUPED)
    assert dict(circuit.to_networkx().edges) == {
        ("m0", "a1.h2"): {"ports": "qk", "weight": 0.75},
        ("m0", "a1.h3"): {"ports": "k", "weight": 0.25},
        ("m0", "m1"): {"ports": "", "weight": 2.0},
    }


def test_graphml_is_read_by_others(tmp_path):
    _, circuit = random_circuit(GROUPED)
    circuit.to_graphml(tmp_path / "c.graphml")
    tree = ElementTree.parse(tmp_path / "c.graphml")
    edges = tree.getroot().findall(".//{*}edge")
    assert {(e.get("source"), e.get("target")) for e in edges} == set(circuit.to_networkx().edges)


# --- files -------------------------------------------------------------------------------------
@pytest.mark.parametrize("graph", [PLAIN, GROUPED, FEATURES])
def test_ours_come_back_as_they_were(tmp_path, graph):
    mask, circuit = random_circuit(graph)
    assert Circuit.from_json(circuit.to_json(tmp_path / "edges.json")) == circuit
    again = load_circuit(tmp_path / "edges.json")
    assert again == circuit
    assert again.on(graph) == circuit
    assert np.array_equal(again.mask(graph), mask)


def test_eap_igs_json_is_read(tmp_path):
    """The layout of its `Graph.to_json`, under grouped-query attention as well."""
    edges = {
        "input->a0.h0<q>": {"score": 0.5, "in_graph": True},
        "a0.h2->a1.h1<v>": {"score": -1.5, "in_graph": True},
        "a0.h2->a1.h0<v>": {"score": 1.0, "in_graph": True},
        "m1->logits": {"score": 9.0, "in_graph": False},
    }
    nodes = {"input": {"in_graph": True}}
    (tmp_path / "g.json").write_text(json.dumps({"cfg": {}, "nodes": nodes, "edges": edges}))
    circuit = load_circuit(tmp_path / "g.json")
    assert circuit.name == "g"
    assert circuit.on(GROUPED).edges == {"embed->a0.h0.q": 0.5, "a0.h2->a1.kv0.v": -0.5}


def test_acdcs_edges_are_read(tmp_path):
    """As JSON, with and without effects, and as torch wrote them; links within a head are none."""
    edges = {
        (
            "blocks.1.hook_v_input",
            (None, None, 3),
            "blocks.0.attn.hook_result",
            (None, None, 2),
        ): 0.5,
        ("blocks.1.attn.hook_v", (None, None, 3), "blocks.1.hook_v_input", (None, None, 3)): 0.1,
        (
            "blocks.1.attn.hook_result",
            (None, None, 3),
            "blocks.1.attn.hook_v",
            (None, None, 3),
        ): 0.1,
        ("blocks.0.hook_mlp_out", (None,), "blocks.0.hook_mlp_in", (None,)): 0.1,
        ("blocks.1.hook_resid_post", (None,), "blocks.1.attn.hook_result", (None, None, 3)): 0.25,
    }
    ours = {"a0.h2->a1.kv3.v": 0.5, "a1.h3->logits": 0.25}
    (tmp_path / "a.json").write_text(json.dumps(list(edges)))
    (tmp_path / "b.json").write_text(json.dumps(list(edges.items())))
    absent = {("blocks.0.hook_mlp_in", (None,), "blocks.0.hook_resid_pre", (None,)): False}
    torch.save(OrderedDict({**dict.fromkeys(edges, True), **absent}), tmp_path / "c.pth")
    assert load_circuit(tmp_path / "b.json").on(PLAIN).edges == ours
    for name in ("a.json", "c.pth"):
        assert load_circuit(tmp_path / name).on(PLAIN).edges == dict.fromkeys(ours)


def test_names_alone_are_read(tmp_path):
    names = ["embed->a0.h1.q", "a0.h1->logits"]
    (tmp_path / "list.json").write_text(json.dumps(names))
    own = {"name": "mine", "source": "…", "edges": names}
    (tmp_path / "circuit.json").write_text(json.dumps(own))
    assert list(load_circuit(tmp_path / "list.json").edges) == names
    assert load_circuit(tmp_path / "circuit.json").name == "mine"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "cannot be read: No such file"),
        ("{", r"is none that we read \(JSONDecodeError"),
        ("3", r"is none that we read \(AttributeError"),
        ('{"nodes": []}', r"is none that we read \(KeyError: 'edges'\); give our JSON"),
        ('["a0.h1"]', "'a0.h1' is no edge, which is written source->target"),
        ('[["x", 1, 2]]', "is none that we read"),
        ('{"format": "edgesweep circuit 1"}', "no circuit of ours"),
        ('{"edges": {"input->m0": {"score": 1}}}', "is none that we read"),
    ],
)
def test_what_is_no_circuit_is_refused_in_one_line(tmp_path, text, what):
    file = tmp_path / "edges.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CircuitError, match=what) as told:
        load_circuit(file)
    assert str(told.value).startswith(f"circuit {file}")
    assert "\n" not in str(told.value)


def test_a_file_that_would_run_code_is_not_read(tmp_path):
    torch.save({"a": np.ones}, tmp_path / "evil.pth")
    with pytest.raises(CircuitError, match="holds more than names and numbers"):
        load_circuit(tmp_path / "evil.pth")
