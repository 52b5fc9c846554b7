"""Tracr folders: the published program computes itself, and a round trip of random weights."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.graph.known import known_circuit
from edgesweep.engine.model import ModelError, load_model, resolve_model
from edgesweep.engine.model.tracr import _MODULES
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM
from edgesweep.engine.patches import make_patch
from edgesweep.tasks import build_task

REVERSE = Path(__file__).parents[3] / "shared/data/tracr/reverse"
needs_reverse = pytest.mark.skipif(
    not REVERSE.is_dir(), reason=f"no golden data here ({REVERSE}): the reverse program is not run"
)
SETTINGS = {
    "num_heads": 2,
    "num_layers": 2,
    "mlp_hidden_size": 6,
    "layer_norm": False,
    "causal": False,
    "max_seq_len": 3,
    "bos": "BOS",
    "pad": "compiler_pad",
}
VOCAB = {"a": 0, "b": 1, "c": 2, "BOS": 3, "compiler_pad": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path / "cache"))


# --- the published program -------------------------------------------------------------------


@needs_reverse
def test_reverse_reverses_every_input_of_every_length():
    source = resolve_model(str(REVERSE))
    model = load_model(source)
    assert (source.spec.n_layers, source.spec.n_heads, source.sizes.n_vocab) == (4, 1, 5)
    for length in range(1, 6):
        rows = list(product(range(3), repeat=length))
        with torch.no_grad():
            logits = model.hf(torch.tensor([[3, *row] for row in rows])).logits
        assert logits.shape[-1] == 3
        assert logits[:, 1:].argmax(-1).tolist() == [list(row[::-1]) for row in rows]


@needs_reverse
def test_reverse_brings_its_task_and_circuit():
    source = resolve_model(str(REVERSE))
    data = build_task("own", None, 100, 100, seed=0, own=source.path, n_vocab=5)
    for prompt in (*data.build, *data.evaluation):
        assert len(prompt) == 6
        assert prompt.good == (prompt.clean[1],)
        assert prompt.patch[1] != prompt.clean[1]
        assert set(prompt.bad) == {0, 1, 2} - {prompt.clean[1]}
    assert len((source.path / "prompts.jsonl").read_text().splitlines()) == 3**5
    circuit = known_circuit(source, "own")
    assert circuit.edges == {"embed->a3.kv0.v", "a3.h0->logits"}
    assert circuit.mask(EdgeGraph(source.spec)).sum() == 2


@needs_reverse
def test_reverse_needs_its_published_edges_and_no_others():
    """Under an edge ablation by another input, one edge at a time."""
    source = resolve_model(str(REVERSE))
    model = load_model(source, dtype="float64")
    data = build_task("own", None, 32, 0, seed=0, own=source.path)
    batch = PromptBatch.make(data.build)
    inputs = model.prepare(batch.clean, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    masks = np.stack(
        [np.ones(model.graph.n_edges, bool), *~np.eye(model.graph.n_edges, dtype=bool)]
    )
    logits = ablated_logits(model, inputs, values, masks)
    change = (logits[1:] - logits[0]).abs().amax((1, 2))
    needed = {model.graph.edge_name(e) for e in np.flatnonzero(change.numpy() > 1e-3)}
    assert needed == known_circuit(source, "own").edges


# --- any folder ------------------------------------------------------------------------------


def write_tracr(folder, settings=SETTINGS, entry=None, drop=""):
    """Random weights in haiku's names, and the plain model that they are of."""
    torch.manual_seed(0)
    config = PlainConfig(
        vocab_size=5,
        n_output=3,
        hidden_size=7,
        num_attention_heads=2,
        head_dim=4,
        intermediate_size=6,
        max_position_embeddings=4,
        causal=False,
    )
    hf = PlainForCausalLM(config).eval()
    for weight in hf.parameters():
        torch.nn.init.normal_(weight)
    ours = hf.state_dict()
    weights = {
        "token_embed_embeddings": ours["model.embed_tokens.weight"],
        "pos_embed_embeddings": ours["model.embed_positions.weight"],
        "unembedding_mtx": ours["lm_head.weight"].T.contiguous(),
    }
    for layer, (name, haiku) in product(range(2), _MODULES.items()):
        prefix = f"transformer.layer_{layer}.{haiku}"
        weight = ours[f"model.layers.{layer}.{name}.weight"].T.contiguous()
        weights |= {f"{prefix}_w": weight, f"{prefix}_b": ours[f"model.layers.{layer}.{name}.bias"]}
    weights.pop(drop, None)
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    entry = {"config": settings, "vocab": VOCAB, "true_edges": {"resample": []}} | (entry or {})
    (folder / "config.json").write_text(json.dumps(entry))
    return hf


def test_conversion_keeps_every_weight(tmp_path):
    hf = write_tracr(tmp_path / "program")
    source = resolve_model("program", base=tmp_path)
    model = load_model(source)
    tokens = torch.tensor([[3, 0, 1, 2], [3, 2, 2, 0]])
    assert torch.equal(model.hf(tokens).logits, hf(tokens).logits)
    assert source.path.is_relative_to(tmp_path / "cache")
    data = build_task("own", None, 4, 4, seed=0, own=source.path)
    for prompt in data.build:
        assert prompt.good == (int(hf(torch.tensor([prompt.clean])).logits[0, -1].argmax()),)
        assert prompt.good != (int(hf(torch.tensor([prompt.patch])).logits[0, -1].argmax()),)


def test_the_cache_follows_the_content(tmp_path):
    write_tracr(tmp_path / "program")
    first = resolve_model("program", base=tmp_path)
    assert resolve_model("program", base=tmp_path) == first
    write_tracr(tmp_path / "program", entry={"true_edges": {"resample": ["a0.h0->logits"]}})
    second = resolve_model("program", base=tmp_path)
    assert second.path != first.path
    assert known_circuit(second, "own").edges == {"a0.h0->logits"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": SETTINGS | {"layer_norm": True}}, "layer_norm is true; only programs"),
        ({"drop": "unembedding_mtx"}, "it lacks 'unembedding_mtx'"),
        ({"drop": "transformer.layer_1.mlp.linear_2_b"}, "lacks 'transformer.layer_1.mlp.linear_"),
        ({"settings": SETTINGS | {"mlp_hidden_size": 9}}, "the weights are not of these sizes"),
        ({"settings": {"num_layers": 2, "num_heads": 2}}, "it lacks 'mlp_hidden_size'"),
    ],
)
def test_a_folder_that_is_no_program_is_one_clear_line(tmp_path, options, message):
    write_tracr(tmp_path / "program", **options)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model("program", base=tmp_path)
    assert "\n" not in str(caught.value)
