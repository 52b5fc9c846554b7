"""The plain transformer by hand, and the oracles once more where attention sees ahead."""

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.model.tracing import traced, traced_nodes
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM
from edgesweep.engine.patches import make_patch
from tests.oracles.slow_gradients import KINDS, Ends, patch_of, patch_values, slow_edges
from tests.oracles.slow_model import SlowModel
from tests.tiny import assert_agree, model_and_batch


def batch_ahead(side="right", dtype=torch.float64, n_layers=2):
    return model_and_batch("plain", side=side, dtype=dtype, n_layers=n_layers, causal=False)


def by_hand(hf, tokens):
    """Logits `[positions, n_output]` of one prompt, one head and one query at a time."""
    weights, config = hf.state_dict(), hf.config
    stream = weights["model.embed_tokens.weight"][tokens]
    stream = stream + weights["model.embed_positions.weight"][: len(tokens)]
    for layer in range(config.num_hidden_layers):

        def linear(x, name, layer=layer):
            prefix = f"model.layers.{layer}.{name}_proj"
            out = x @ weights[f"{prefix}.weight"].T
            return out + weights[f"{prefix}.bias"] if f"{prefix}.bias" in weights else out

        z = [
            _attend(*(linear(stream, f"self_attn.{n}")[:, span] for n in "qkv"), config)
            for span in _spans(config)
        ]
        stream = stream + linear(torch.cat(z, dim=1), "self_attn.o")
        if config.use_mlp:
            stream = stream + linear(linear(stream, "mlp.up").relu(), "mlp.down")
    return stream @ weights["lm_head.weight"].T


def _spans(config):
    d = config.head_dim
    return [slice(h * d, (h + 1) * d) for h in range(config.num_attention_heads)]


def _attend(query, key, value, config):
    rows = []
    for i, q in enumerate(query):
        last = i + 1 if config.causal else len(key)
        rows.append((key[:last] @ q / config.head_dim**0.5).softmax(0) @ value[:last])
    return torch.stack(rows)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("use_mlp", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_the_forward_is_the_docstrings(causal, use_mlp, biases):
    torch.manual_seed(0)
    config = PlainConfig(
        causal=causal,
        use_mlp=use_mlp,
        attention_bias=biases,
        mlp_bias=biases,
        n_output=5,
        num_attention_heads=3,
    )
    hf = PlainForCausalLM(config).double().eval()
    for weight in hf.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    tokens = torch.tensor([3, 1, 4, 1, 5, 9])
    with torch.no_grad():
        logits = hf(tokens[None]).logits[0]
    assert logits.shape == (6, 5)
    assert_agree(logits, by_hand(hf, tokens), 1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_on_either_side(causal, side):
    model, batch = model_and_batch("plain", side=side, dtype=torch.float64, causal=causal)
    padded = model.run(model.prepare(batch.clean, batch.real)).logits
    alone = [by_hand(model.hf, torch.tensor(prompt.clean))[-1] for prompt in batch.prompts]
    assert len({len(prompt) for prompt in batch.prompts}) > 1
    assert_agree(padded, torch.stack(alone), 1e-12)


def test_seeing_ahead_is_another_model():
    ahead, batch = batch_ahead()
    causal = tiny_model("plain", dtype=torch.float64, n_layers=2)
    logits = [m.run(m.prepare(batch.clean, batch.real)).logits for m in (ahead, causal)]
    assert float((logits[0] - logits[1]).abs().max()) > 0.1


@pytest.mark.parametrize("side", ["left", "right"])
def test_ahead_run_equals_nnsight(side):
    model, batch = batch_ahead(side)
    heads, mlps, logits = traced_nodes(traced(model), batch.clean, batch.real)
    inputs = model.prepare(batch.clean, batch.real)
    run = model.run(inputs)
    for layer in range(model.spec.n_layers):
        assert_agree(run.z[layer].flatten(-2)[batch.real], heads[layer][batch.real], 1e-12)
        assert_agree(run.mlps[layer][batch.real], mlps[layer][batch.real], 1e-12)
    assert_agree(run.logits, logits[torch.arange(len(inputs.read)), inputs.read], 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_ahead_ablation_equals_one_port_at_a_time(kind):
    model, batch = batch_ahead()
    draw = np.random.default_rng(0)
    masks = np.stack([draw.random(model.graph.n_edges) < d for d in (0.1, 0.5, 0.9)])
    inputs = model.prepare(batch.clean, batch.real)
    patch = patch_of(kind, model).values(model, batch, inputs)
    ours = ablated_logits(model, inputs, patch, masks)
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        values = patch_values(kind, model, batch, slow)
        for circuit, mask in enumerate(masks):
            oracle = slow.forward(slow.ablated(mask, values))[0]
            assert_agree(ours[circuit], oracle, 1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_ahead_eap_equals_one_autograd_call_an_edge(side):
    model, batch = batch_ahead(side)
    patch = make_patch("counterfactual")
    ours = METHODS["eap"].attribute(model, batch, patch, "logit_diff", Settings())
    ends = Ends.of(model, batch, "counterfactual")
    oracle = slow_edges(model, batch, ends, "logit_diff", lambda source: [({}, 1.0)])
    assert_agree(ours.scores, oracle, 1e-6)  # scores are kept in float32


def test_attention_only_has_mlps_that_write_nothing(tmp_path):
    torch.manual_seed(0)
    hf = PlainForCausalLM(PlainConfig(use_mlp=False, n_output=3))
    hf.save_pretrained(tmp_path / "mine")
    source = resolve_model("mine", base=tmp_path)
    assert source.sizes.n_params == sum(p.numel() for p in hf.parameters())
    model = load_model(source)
    _, batch = model_and_batch("plain")
    run = model.run(model.prepare(batch.clean % 64, batch.real))
    assert all(not mlp.any() for mlp in run.mlps)
    assert run.logits.shape == (3, 3)
    tokens = torch.tensor([batch.prompts[0].clean])
    assert torch.allclose(run.logits[0], hf(tokens).logits[0, -1], atol=1e-6)
