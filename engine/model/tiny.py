"""Small random models of every architecture: for tests, for CI, and for trying a config out."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.engine.network.plain import PlainConfig
from edgesweep.engine.network.transformer import Model
from edgesweep.tasks import WORD_PATTERN, vocabulary

_IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_GROUPED: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def tiny_config(
    model_type: str,
    *,
    n_layers: int = 3,
    n_vocab: int = 64,
    width: int = 32,
    causal: bool = True,
) -> Any:
    """A configuration of the family with every feature that it can have switched on.

    Args:
        causal: False for the one family that can also see ahead (plain).
    """
    plain: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": n_layers,
        "vocab_size": n_vocab,
        **_IDS,
    }
    grouped = plain | _GROUPED
    windows: dict[str, Any] = {"sliding_window": 4, "query_pre_attn_scalar": 16}
    kinds = (["sliding_attention", "full_attention"] * n_layers)[:n_layers]
    rows: dict[str, Any] = {
        "gpt2": lambda: GPT2Config(
            n_embd=width, n_layer=n_layers, n_head=4, vocab_size=n_vocab, n_positions=64, **_IDS
        ),
        "gpt_neo": lambda: GPTNeoConfig(
            hidden_size=width,
            num_layers=n_layers,
            num_heads=4,
            vocab_size=n_vocab,
            max_position_embeddings=64,
            attention_types=[[["global", "local"], n_layers // 2], [["global"], n_layers % 2]],
            window_size=4,
            **_IDS,
        ),
        "gpt_neox": lambda: GPTNeoXConfig(**plain, num_attention_heads=4),
        "llama": lambda: LlamaConfig(**grouped, attention_bias=True),
        "mistral": lambda: MistralConfig(**grouped, sliding_window=4),
        "qwen2": lambda: Qwen2Config(**plain, num_attention_heads=4, num_key_value_heads=2),
        "qwen3": lambda: Qwen3Config(**grouped),
        "gemma2": lambda: Gemma2Config(**grouped, **windows, layer_types=kinds),
        "gemma3_text": lambda: Gemma3TextConfig(**grouped, **windows, layer_types=kinds),
        "plain": lambda: PlainConfig(**plain, causal=causal),
    }
    return rows[model_type]()


def tiny_model(
    model_type: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    causal: bool = True,
    **sizes: int,
) -> Model:
    """A random model whose activations are of order one, so that no path is negligible.

    Args:
        model_type: a key of `ARCHITECTURES`.
        seed: of the weights; the caller's random state is left as it was.
        causal: as in `tiny_config`.
        sizes: `n_layers`, `n_vocab`, `width` of `tiny_config`.
    """
    hf = _random_hf(tiny_config(model_type, causal=causal, **sizes), seed)
    return Model(hf.to(dtype), f"tiny-{model_type}")


def _random_hf(config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = ARCHITECTURES[config.model_type].attention_kind
        hf = AutoModelForCausalLM.from_config(config, attn_implementation=kind)
        for name, weight in hf.named_parameters():
            scale = 0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5
            noise = torch.randn_like(weight) * scale
            weight.data = weight.data + noise if _is_norm_gain(name) else noise
    return hf


def _is_norm_gain(name: str) -> bool:
    return name.endswith("weight") and ("norm" in name or "ln_" in name)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the built-in tasks, its leading space included."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<unk>", *vocabulary()]
    table = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def write_tiny_random(folder: Path) -> None:
    """The alias `tiny-random`: a 4-layer grouped-query Llama that knows the tasks' words."""
    tokenizer = word_tokenizer()
    config = tiny_config("llama", n_layers=4, n_vocab=len(tokenizer))
    _random_hf(config, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
