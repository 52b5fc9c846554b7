"""A transformer without layer norms, for networks whose weights are known: compiled or set by hand.

    x₀ = E[token] + P[position]        x ← x + Σ_h W_O z_h + b_O        x ← x + MLP(x)
    logits = U x

with z_h of softmax(q kᵀ / √d_head) v. It is a Hugging Face model (model_type "plain") under the
module names of Llama, whose norms are identities, so that it is one more row of `ARCHITECTURES`.
Attention is causal or not; a padded key is seen by no real query either way. The logits may be
fewer than the tokens. Pinned by tests/model/test_plain.py and every oracle test over the families.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutput

Hidden = Float[Tensor, "inputs positions d_model"]
Mask = Bool[Tensor, "inputs_or_1 1 queries keys"]


@strict
class PlainConfig(PreTrainedConfig):
    """Sizes of a plain transformer.

    Attributes:
        n_output: logits a position; None for `vocab_size`.
        causal: whether a query sees earlier positions only.
        attention_bias, mlp_bias: whether the maps have biases.
        use_mlp: False for attention only; the MLPs are then nodes that write zero.
        output_bias: whether the unembedding has a bias.
        trained_on: which inputs of its task it was trained on, in the task's own words.
    """

    model_type = "plain"

    vocab_size: int = 64
    n_output: int | None = None
    hidden_size: int = 32
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    head_dim: int = 8
    intermediate_size: int = 64
    max_position_embeddings: int = 64
    causal: bool = True
    attention_bias: bool = True
    mlp_bias: bool = True
    hidden_act: str = "relu"
    use_mlp: bool = True
    output_bias: bool = False
    tie_word_embeddings: bool = False
    trained_on: dict[str, Any] | None = None


class PlainAttention(nn.Module):
    """Softmax attention over all heads at once."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        width, bias = config.num_attention_heads * config.head_dim, config.attention_bias
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, width, bias=bias)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=bias)

    def forward(
        self, hidden_states: Hidden, attention_mask: Mask | None = None
    ) -> tuple[Hidden, None]:
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        z = nn.functional.scaled_dot_product_attention(query, key, value, attention_mask)
        return self.o_proj(z.transpose(1, 2).flatten(-2)), None


class PlainMLP(nn.Module):
    """One hidden layer."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        bias = config.mlp_bias
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=bias)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Hidden) -> Hidden:
        out: Tensor = self.down_proj(self.act(self.up_proj(hidden_states)))
        return out


class NoMLP(nn.Module):
    """Writes zero, and is part of the graph of gradients like any MLP."""

    def forward(self, hidden_states: Hidden) -> Hidden:
        return hidden_states * 0.0


class PlainLayer(nn.Module):
    """Attention, then the MLP, each added to the stream."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.Identity()
        self.self_attn = PlainAttention(config)
        self.post_attention_layernorm = nn.Identity()
        self.mlp = PlainMLP(config) if config.use_mlp else NoMLP()

    def forward(self, hidden_states: Hidden, attention_mask: Mask | None = None) -> Hidden:
        normed = self.input_layernorm(hidden_states)
        stream = hidden_states + self.self_attn(normed, attention_mask=attention_mask)[0]
        out: Tensor = stream + self.mlp(self.post_attention_layernorm(stream))
        return out


class _PlainPreTrained(PreTrainedModel):
    config_class = PlainConfig
    base_model_prefix = "model"
    _supports_sdpa = True


class PlainModel(_PlainPreTrained):
    """Embeddings and layers."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.causal = config.causal
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(PlainLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Identity()
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "inputs positions"],
        attention_mask: Int[Tensor, "inputs positions"] | None = None,
        position_ids: Int[Tensor, "inputs_or_1 positions"] | None = None,
        **_: Any,
    ) -> Hidden:
        if position_ids is None:
            ones = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            position_ids = (ones.long().cumsum(-1) - 1).clamp(min=0)
        hidden = self.embed_tokens(input_ids) + self.embed_positions(position_ids)
        mask = self._mask(input_ids.shape[1], attention_mask, input_ids.device)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask)
        out: Tensor = self.norm(hidden)
        return out

    def _mask(self, n: int, real: Tensor | None, device: torch.device) -> Mask | None:
        """Which keys each query sees; a padded query sees itself, for it must see something."""
        if real is None and not self.causal:
            return None
        seen = torch.ones(n, n, dtype=torch.bool, device=device)
        seen = (seen.tril() if self.causal else seen)[None, None]
        if real is None:
            return seen
        itself = torch.eye(n, dtype=torch.bool, device=device)
        return (seen & real.bool()[:, None, None, :]) | itself


class PlainForCausalLM(_PlainPreTrained):
    """A plain transformer with its unembedding."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.model = PlainModel(config)
        n_output = config.n_output or config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, n_output, bias=config.output_bias)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Int[Tensor, "inputs positions"],
        attention_mask: Int[Tensor, "inputs positions"] | None = None,
        position_ids: Int[Tensor, "inputs_or_1 positions"] | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        hidden = self.model(input_ids, attention_mask, position_ids)
        return CausalLMOutput(logits=self.lm_head(hidden))


AutoConfig.register(PlainConfig.model_type, PlainConfig, exist_ok=True)
AutoModelForCausalLM.register(PlainConfig, PlainForCausalLM, exist_ok=True)
