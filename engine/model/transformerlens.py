"""One-layer and deeper transformers without norms, in TransformerLens's names, as plain models.

A folder that holds safetensors and no config.json, with `blocks.0.attn.W_Q` in it, is read as one,
such as the modular-addition networks that the local interaction basis was published with:

    embed.W_E, pos_embed.W_pos         E, P
    blocks.i.attn.W_Q, W_K, W_V        [heads, d_model, d_head]      W_O [heads, d_head, d_model]
    blocks.i.mlp.W_in, W_out           [d_model, d_mlp], [d_mlp, d_model]
    unembed.W_U, b_U                   [d_model, outputs], [outputs]

The file's header may say, as JSON under `trained_on`, which inputs the network was trained on; the
config then says so too, for a task to read. `mask` and `IGNORE` are buffers and are left out.
Attention is causal, activations are ReLU and scores scaled by 1/√d_head; a network with norms
(`ln1.w`, `ln_final.w`) is refused. Pinned by tests/bases/test_golden.py to the published
accuracies.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from edgesweep.engine.model.errors import ModelError
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM

#: changes when the converted folder would
_FORMAT = 1
WEIGHTS, TRAINED_ON = "model.safetensors", "trained_on"
_BUFFERS = re.compile(r"\.(mask|IGNORE|causal_mask)$")


def is_mine(folder: Path) -> bool:
    """Whether a folder has weights in these names and no config."""
    if (folder / "config.json").exists() or not (folder / WEIGHTS).is_file():
        return False
    try:
        return "blocks.0.attn.W_Q" in load_file(folder / WEIGHTS)
    except (OSError, SafetensorError):
        return False


def content_key(folder: Path) -> str:
    """A name for the converted folder that depends on all that it is made of."""
    total = hashlib.sha256(f"{_FORMAT}".encode())
    total.update((folder / WEIGHTS).read_bytes())
    return f"transformerlens-{folder.resolve().name}-{total.hexdigest()[:16]}"


def convert(folder: Path, into: Path) -> None:
    """Write the plain model of a folder.

    Raises:
        ModelError: tensors that are missing, too many, or of another shape.
    """
    weights = load_file(folder / WEIGHTS)
    given = {name: w.float() for name, w in weights.items() if not _BUFFERS.search(name)}
    try:
        config = _config(given)
        config.trained_on = _trained_on(folder / WEIGHTS)
        state = _state(given, config.num_hidden_layers)
    except KeyError as error:
        raise ModelError(f"{folder / WEIGHTS} lacks {error.args[0]}") from None
    if given:
        raise ModelError(
            f"{folder / WEIGHTS} holds {sorted(given)[0]}, which is no part of a transformer "
            "without norms"
        )
    hf = PlainForCausalLM(config)
    try:
        hf.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder / WEIGHTS}: shapes do not fit each other: {reason}") from None
    hf.save_pretrained(into)


def _trained_on(file: Path) -> dict[str, Any] | None:
    with safe_open(file, "pt") as weights:
        told = (weights.metadata() or {}).get(TRAINED_ON)
    try:
        found: dict[str, Any] | None = None if told is None else json.loads(told)
    except ValueError:
        raise ModelError(f"{file} says {TRAINED_ON} {told!r}, which is no JSON") from None
    return found


def _config(weights: dict[str, Tensor]) -> PlainConfig:
    heads, d_model, d_head = weights["blocks.0.attn.W_Q"].shape
    layers = {int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name))}
    return PlainConfig(
        vocab_size=len(weights["embed.W_E"]),
        n_output=weights["unembed.W_U"].shape[1],
        hidden_size=d_model,
        num_hidden_layers=max(layers) + 1,
        num_attention_heads=heads,
        head_dim=d_head,
        intermediate_size=weights["blocks.0.mlp.W_in"].shape[1],
        max_position_embeddings=len(weights["pos_embed.W_pos"]),
        output_bias=True,
    )


def _state(weights: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The weights in our names, maps as d_out × d_in; what is used is taken out."""
    take = weights.pop
    state = {
        "model.embed_tokens.weight": take("embed.W_E"),
        "model.embed_positions.weight": take("pos_embed.W_pos"),
        "lm_head.weight": take("unembed.W_U").T.contiguous(),
        "lm_head.bias": take("unembed.b_U"),
    }
    for layer in range(n_layers):
        theirs, ours = f"blocks.{layer}", f"model.layers.{layer}"
        for port in "QKV":
            name = f"{ours}.self_attn.{port.lower()}_proj"
            weight = take(f"{theirs}.attn.W_{port}").transpose(1, 2)
            state[f"{name}.weight"] = weight.flatten(0, 1).contiguous()
            state[f"{name}.bias"] = take(f"{theirs}.attn.b_{port}").flatten()
        written = take(f"{theirs}.attn.W_O").flatten(0, 1).T
        state[f"{ours}.self_attn.o_proj.weight"] = written.contiguous()
        state[f"{ours}.self_attn.o_proj.bias"] = take(f"{theirs}.attn.b_O")
        for name, side in (("up_proj", "in"), ("down_proj", "out")):
            state[f"{ours}.mlp.{name}.weight"] = take(f"{theirs}.mlp.W_{side}").T.contiguous()
            state[f"{ours}.mlp.{name}.bias"] = take(f"{theirs}.mlp.b_{side}")
    return state
