"""A GGUF file of a few kilobytes: a random Llama under the names of llama.cpp, with a tokenizer."""

from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, MLP = 2, 32, 4, 64
WORDS = ["<s>", "</s>", *map(chr, range(ord("!"), ord("~") + 1)), "Ġ", "th"]


def write_tiny_gguf(file: Path, *, seed: int = 0, without: str = "") -> Path:
    """Write it.

    Args:
        seed: of the numbers; the size of the file does not depend on it.
        without: the name of a tensor to leave out.
    """
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, *[1] * (len(WORDS) - 2)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    draw = np.random.default_rng(seed)
    for name, shape in _shapes().items():
        if name != without:
            writer.add_tensor(name, draw.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(WORDS), WIDTH),
        "output.weight": (len(WORDS), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.attn_{m}.weight": (WIDTH, WIDTH) for m in "qkv"}
        shapes |= {
            f"blk.{layer}.attn_output.weight": (WIDTH, WIDTH),
            f"blk.{layer}.attn_norm.weight": (WIDTH,),
            f"blk.{layer}.ffn_norm.weight": (WIDTH,),
            f"blk.{layer}.ffn_gate.weight": (MLP, WIDTH),
            f"blk.{layer}.ffn_up.weight": (MLP, WIDTH),
            f"blk.{layer}.ffn_down.weight": (WIDTH, MLP),
        }
    return shapes
