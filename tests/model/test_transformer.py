"""Every architecture's nodes and ports against Hugging Face's forward and nnsight's values."""

import pytest
import torch

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.model.tracing import traced, traced_nodes
from edgesweep.engine.network import RunValues
from edgesweep.engine.network.layers import NoNorm
from edgesweep.engine.network.values import stack_sources
from tests.oracles.slow_model import SlowModel
from tests.tiny import FAMILIES, assert_agree, model_and_batch


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_run_equals_nnsight(family, side):
    model, batch = model_and_batch(family, side=side)
    heads, mlps, logits = traced_nodes(traced(model), batch.clean, batch.real)
    run = model.run(model.prepare(batch.clean, batch.real))
    real = batch.real
    for layer in range(model.spec.n_layers):
        assert_agree(run.z[layer].flatten(-2)[real], heads[layer][real], 1e-5)
        assert_agree(run.mlps[layer][real], mlps[layer][real], 1e-5)
    last = model.prepare(batch.clean, batch.real).read
    assert_agree(run.logits, logits[torch.arange(len(last)), last], 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_nodes_add_up_to_the_stream_at_every_layer(family):
    model, batch = model_and_batch(family)
    with torch.no_grad():
        run = model.run(model.prepare(batch.clean, batch.real), keep_ports=True)
    written = stack_sources(model, RunValues(model, run))
    constant = torch.zeros(model.d_model)
    for layer in range(model.spec.n_layers):
        attention, mlp = model.graph.blocks[2 * layer : 2 * layer + 2]
        seen = written[: attention.n_sources].sum(0) + constant
        assert _error(seen, run.streams[layer][0]) < 1e-5
        own = model.layers[layer].constant
        constant = constant if own is None else constant + own
        if not model.spec.parallel:
            seen = written[: mlp.n_sources].sum(0) + constant
            assert _error(seen, run.streams[layer][1]) < 1e-5


def _error(ours, stream):
    return float((ours - stream).abs().max() / stream.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_source_equals_the_slow_model_alone(family):
    model, batch = model_and_batch(family)
    with torch.no_grad():
        run = model.run(model.prepare(batch.clean, batch.real))
        slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
        logits, values = slow.forward(slow.plain)
    written = stack_sources(model, RunValues(model, run))
    for index, name in enumerate(model.graph.sources):
        assert_agree(written[index][batch.real], values[name][batch.real], 2e-4)
    assert_agree(run.logits, logits, 1e-5)


def test_parallel_blocks_have_no_edge_from_attention_to_their_own_mlp():
    graph = tiny_model("gpt_neox").graph
    with pytest.raises(KeyError, match=r"m1 does not read a1\.h0"):
        graph.edge_index("a1.h0->m1")
    sequential = tiny_model("gpt2").graph
    assert sequential.edge_name(sequential.edge_index("a1.h0->m1")) == "a1.h0->m1"


@pytest.mark.parametrize("family", FAMILIES)
def test_edge_counts_follow_the_formula(family):
    spec = tiny_model(family).spec
    heads, kv, layers = spec.n_heads, spec.n_kv_heads, spec.n_layers
    within = 0 if spec.parallel else heads
    expected = (
        sum((1 + i * (heads + 1)) * (heads + 2 * kv + 1) + within for i in range(layers))
        + 1
        + layers * (heads + 1)
    )
    assert EdgeGraph(spec).n_edges == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_norm_pull_back_is_the_norms_derivative(family):
    model, _ = model_and_batch(family, dtype=torch.float64)
    norm = model.layers[0].norm_attention
    torch.manual_seed(0)
    x = torch.randn(5, model.d_model, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x)
    unit, r = norm.unit(x)
    ours = norm.weight * g
    if norm.centred:
        ours = ours - ours.mean(-1, keepdim=True)
    ours = r * ours - r * unit * (unit * norm.weight * g).mean(-1, keepdim=True)
    bias = 0 if norm.bias is None else norm.bias
    explicit = norm(x) if isinstance(norm, NoNorm) else unit * norm.weight + bias
    assert_agree(explicit.detach(), norm(x).detach(), 1e-6)  # Gemma's own norm is float32
    assert_agree(ours.detach(), torch.autograd.grad((explicit * g).sum(), x)[0], 1e-9)
