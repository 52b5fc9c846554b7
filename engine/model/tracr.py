"""Programs compiled into transformers by tracr (Lindner et al. 2023), as plain models.

A tracr folder holds config.json, with tracr's own settings, its vocabulary and the true edges of
the program, and model.safetensors in haiku's names. It becomes a folder of the family "plain":

    token_embed, pos_embed        E, P; positions count the BOS, so there are max_seq_len + 1
    layer_i/attn  query key value W_Q, W_K, W_V (haiku: d_in × d_out), scaled by 1/√d_key
                  linear          W_O
    layer_i/mlp   linear_1 _2     the MLP; ReLU
    unembedding_mtx               U, from the stream to the program's outputs

1. The weights are transposed and renamed; nothing is computed.
2. Prompts (task `own`): BOS and max_seq_len tokens, all of them or `MAX_PROMPTS` drawn by seed.
   The answer is the model's own at the last position; the patch is another such prompt with
   another answer.
3. The circuit is config.json's `true_edges`, for the patch "resample" where there are several.
   What is published as `a3.h0.v` is our `a3.kv0.v`: every head has keys and values of its own.

Cost: one forward over the prompts, once. Pinned by tests/model/test_tracr.py.
"""

import hashlib
import json
import random
import re
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import load_file
from torch import Tensor

from edgesweep.engine.graph.known import KnownCircuit
from edgesweep.engine.model.own import OwnPrompt, write_folder
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM

#: prompts of a program with more inputs than that are a sample
MAX_PROMPTS = 512

#: our module -> haiku's, inside a layer
_MODULES = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.o_proj": "attn.linear",
    "mlp.up_proj": "mlp.linear_1",
    "mlp.down_proj": "mlp.linear_2",
}
#: changes when the converted folder would
_FORMAT = 1


class TracrError(ValueError):
    """A tracr folder that cannot be converted; the message is one line."""


def is_mine(folder: Path) -> bool:
    """Whether a folder's config is tracr's and not Hugging Face's."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"config", "vocab"} <= config.keys()


def content_key(folder: Path) -> str:
    """A name for the converted folder that depends on all that it is made of."""
    total = hashlib.sha256(str(_FORMAT).encode())
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise TracrError(f"{folder} has no {name}")
        total.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return f"tracr-{folder.resolve().name}-{total.hexdigest()[:16]}"


def convert(folder: Path, into: Path) -> None:
    """Write the plain model, the prompts and the circuit of a tracr folder.

    Raises:
        TracrError: what it holds is not a program for us.
    """
    entry = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if entry["config"].get("layer_norm"):
        raise TracrError(
            f"{folder}: layer_norm is true; only programs compiled without layer norm are read"
        )
    hf = _plain(folder, entry["config"])
    prompts = _prompts(hf, entry)
    edges = entry.get("true_edges", {})
    edges = edges.get("resample", []) if isinstance(edges, dict) else edges
    edges = [re.sub(r"\.h(\d+)\.([kv])$", r".kv\1.\2", edge) for edge in edges]
    source = entry.get("source", "true_edges of the tracr folder")
    name = f"tracr-{folder.resolve().name}"
    write_folder(into, hf, prompts, KnownCircuit.of_edges(name, source, edges))


def _plain(folder: Path, settings: dict[str, Any]) -> PlainForCausalLM:
    """The model with tracr's weights."""
    weights = load_file(folder / "model.safetensors")
    try:
        state = _state(weights, settings["num_layers"])
        d_key = weights["transformer.layer_0.attn.query_w"].shape[1] // settings["num_heads"]
        config = PlainConfig(
            vocab_size=len(weights["token_embed_embeddings"]),
            n_output=weights["unembedding_mtx"].shape[1],
            hidden_size=weights["unembedding_mtx"].shape[0],
            num_hidden_layers=settings["num_layers"],
            num_attention_heads=settings["num_heads"],
            head_dim=d_key,
            intermediate_size=settings["mlp_hidden_size"],
            max_position_embeddings=len(weights["pos_embed_embeddings"]),
            causal=settings["causal"],
        )
    except KeyError as error:
        raise TracrError(f"{folder}: not a tracr folder: it lacks {error.args[0]!r}") from None
    hf = PlainForCausalLM(config)
    try:
        hf.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise TracrError(f"{folder}: the weights are not of these sizes: {reason}") from None
    return hf.eval()


def _state(weights: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The weights in our names, maps as d_out × d_in."""
    state = {
        "model.embed_tokens.weight": weights["token_embed_embeddings"],
        "model.embed_positions.weight": weights["pos_embed_embeddings"],
        "lm_head.weight": weights["unembedding_mtx"].T.contiguous(),
    }
    for layer in range(n_layers):
        for ours, theirs in _MODULES.items():
            haiku = f"transformer.layer_{layer}.{theirs}"
            state[f"model.layers.{layer}.{ours}.weight"] = weights[f"{haiku}_w"].T.contiguous()
            state[f"model.layers.{layer}.{ours}.bias"] = weights[f"{haiku}_b"]
    return state


def _prompts(hf: PlainForCausalLM, entry: dict[str, Any]) -> list[OwnPrompt]:
    """Step 2; none where all answers are alike."""
    draw = random.Random(0)
    inputs = _inputs(hf.config, entry, draw)
    answers = _answers(hf, inputs)
    every = range(hf.config.n_output)
    prompts = []
    for clean, answer in zip(inputs, answers, strict=True):
        others = [i for i, other in enumerate(answers) if other != answer]
        if others:
            bad = tuple(a for a in every if a != answer)
            patch, end = inputs[draw.choice(others)], {"end": len(clean) - 1}
            prompts.append(OwnPrompt(clean, patch, (answer,), bad, f"length{len(clean)}", end))
    return prompts


def _inputs(config: Any, entry: dict[str, Any], draw: random.Random) -> list[tuple[int, ...]]:
    """BOS, if the program has one, and as many tokens as there are positions."""
    vocab, settings = entry["vocab"], entry["config"]
    special = {settings.get("bos"), settings.get("pad")}
    start = (vocab[settings["bos"]],) if settings.get("bos") in vocab else ()
    tokens = sorted(index for word, index in vocab.items() if word not in special)
    length = config.max_position_embeddings - len(start)
    if len(tokens) ** length <= MAX_PROMPTS:
        return [(*start, *rest) for rest in product(tokens, repeat=length)]
    rows: dict[tuple[int, ...], None] = {}  # a set that keeps its order
    while len(rows) < MAX_PROMPTS:
        rows[*start, *draw.choices(tokens, k=length)] = None
    return list(rows)


@torch.no_grad()
def _answers(hf: PlainForCausalLM, inputs: list[tuple[int, ...]]) -> list[int]:
    """What the model puts out at the last position."""
    tokens: Int[Tensor, "inputs positions"] = torch.tensor(inputs)
    best: list[int] = hf(tokens).logits[:, -1].argmax(-1).tolist()
    return best
