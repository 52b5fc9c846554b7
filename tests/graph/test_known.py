"""Known circuits: the file in a model's folder, and the published tables on their graphs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgesweep.engine.graph import EdgeGraph, GraphSpec
from edgesweep.engine.graph.known import KnownCircuit, KnownCircuitError, known_circuit

GPT2 = EdgeGraph(GraphSpec(12, 12, 12))
ATTN_ONLY_4L = EdgeGraph(GraphSpec(4, 8, 8))
#: model, task -> (its graph, heads, edges)
TABLES = {
    ("gpt2", "ioi"): (GPT2, 26, 963),
    ("openai-community/gpt2", "greater_than"): (GPT2, 9, 235),
    ("attn-only-4l", "docstring"): (ATTN_ONLY_4L, 6, 24),
}


@dataclass(frozen=True)
class Source:
    name: str
    path: Path = Path("/nowhere")


@pytest.mark.parametrize(("model", "task"), TABLES)
def test_published_circuits_are_circuits_of_their_graphs(model, task):
    graph, n_heads, n_edges = TABLES[model, task]
    circuit = known_circuit(Source(model), task)
    mask, nodes = circuit.mask(graph), circuit.node_mask(graph)
    assert (len(circuit.heads), mask.sum()) == (n_heads, n_edges)
    assert {graph.edge_name(e) for e in np.flatnonzero(mask)} == circuit.edges
    in_circuit = {graph.sources[i] for i in np.flatnonzero(nodes)}
    assert {node for node in in_circuit if node.startswith("a")} == circuit.heads
    assert "2023" in circuit.source
    assert task.split("_")[0] in circuit.name


def test_docstring_has_the_edges_of_its_authors():
    """They count 37: these, and one inside the head for each of its ports that is read."""
    circuit = known_circuit(Source("attn-only-4l"), "docstring")
    ports = {edge.split("->")[1] for edge in circuit.edges} - {"logits"}
    assert len(circuit.edges) + len(ports) == 37


def test_ioi_joins_role_to_role_forwards():
    edges = known_circuit(Source("gpt2"), "ioi").edges
    assert {"a9.h9->logits", "a8.h6->a9.h9.q", "a4.h11->a5.kv5.k", "a0.h1->m0"} <= edges
    assert "a4.h11->a5.h5.q" not in edges  # induction heads read the previous token as key
    assert "a9.h9->a10.h7.q" not in edges  # name movers are not joined to each other
    assert "a3.h0->m2" not in edges


def test_no_circuit_is_known_for_others():
    assert known_circuit(Source("gpt2"), "agreement") is None
    assert known_circuit(Source("gpt2"), "ioi+greater_than") is None
    assert known_circuit(Source("smollm2-135m"), "ioi") is None


def test_a_folder_has_its_own_circuit(tmp_path):
    mine = KnownCircuit.of_edges("mine", "by hand", ["embed->a0.kv1.v", "a0.h1->logits"], "zero")
    assert known_circuit(Source("x", tmp_path), "own") is None
    mine.save(tmp_path)
    assert known_circuit(Source("x", tmp_path), "own") == mine
    assert known_circuit(Source("x", tmp_path), "ioi") is None
    graph = EdgeGraph(GraphSpec(1, 2, 2))
    assert mine.mask(graph).sum() == 2
    assert [graph.sources[i] for i in np.flatnonzero(mine.node_mask(graph))] == ["embed", "a0.h1"]


def test_a_circuit_of_another_graph_is_one_clear_line():
    circuit = known_circuit(Source("gpt2"), "ioi")
    with pytest.raises(KeyError, match=r"known circuit 'ioi-wang-2023'.*no such source or target"):
        circuit.mask(ATTN_ONLY_4L)
    with pytest.raises(KeyError, match="does not read"):
        KnownCircuit.of_edges("odd", "", ["m1->m0"]).mask(GPT2)


@pytest.mark.parametrize(
    "text", ["[]", "{", 200_000 * "[", '{"name": "x", "edges": []}', '{"name": 1}']
)
def test_a_file_that_is_no_circuit_is_one_clear_line(tmp_path, text):
    (tmp_path / "circuit.json").write_text(text)
    with pytest.raises(KnownCircuitError, match=r"circuit\.json: .*name") as caught:
        known_circuit(Source("x", tmp_path), "own")
    assert "\n" not in str(caught.value)
