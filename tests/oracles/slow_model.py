"""A transformer as its graph says, one port and one node at a time, on Hugging Face's modules.

Nothing of `engine.model` is used. Every port reads its own stream, normalised and projected alone;
every head writes through the output map alone. `stream_of` decides what each port reads, so that
the same forward is the plain model, the edge-ablated one, or one with a single edge disturbed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgesweep.engine.graph import EdgeGraph

Values = dict[str, torch.Tensor]
#: (target, what every earlier source wrote, constants added so far) -> the stream it reads
StreamOf = Callable[[str, Values, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Names:
    stack: str
    layers: str
    attn: str
    norm1: str
    norm2: str
    final: str
    out: str
    post1: str | None = None
    post2: str | None = None


LLAMA = Names(
    "model", "layers", "self_attn", "input_layernorm", "post_attention_layernorm", "norm", "o_proj"
)
GEMMA = Names(
    "model",
    "layers",
    "self_attn",
    "input_layernorm",
    "pre_feedforward_layernorm",
    "norm",
    "o_proj",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
)
NAMES = {
    "gpt2": Names("transformer", "h", "attn", "ln_1", "ln_2", "ln_f", "c_proj"),
    "gpt_neo": Names("transformer", "h", "attn.attention", "ln_1", "ln_2", "ln_f", "out_proj"),
    "gpt_neox": Names(
        "gpt_neox",
        "layers",
        "attention",
        "input_layernorm",
        "post_attention_layernorm",
        "final_layer_norm",
        "dense",
    ),
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "plain": LLAMA,
}


class SlowModel:
    """The graph of `hf`, run slowly on one batch of tokens."""

    def __init__(self, hf, graph: EdgeGraph, tokens, real) -> None:
        self.hf, self.graph, self.spec = hf, graph, graph.spec
        self.names = NAMES[hf.config.model_type]
        self.layers = getattr(hf.get_submodule(self.names.stack), self.names.layers)
        self.read = real.shape[1] - 1 - real.flip(-1).long().argmax(-1)
        self.embed, self.contexts = self._record(tokens, real)

    def _record(self, tokens, real):
        """The embeddings and each attention's keyword arguments, seen in a real forward."""
        seen, first, hooks = [], [], []
        for layer in self.layers:
            attn = layer.get_submodule(self.names.attn)
            hooks.append(
                attn.register_forward_pre_hook(
                    lambda _, args, kwargs: seen.append(
                        {k: v for k, v in kwargs.items() if k != "hidden_states"}
                    ),
                    with_kwargs=True,
                )
            )
        hooks.append(
            self.layers[0].register_forward_pre_hook(lambda _, args: first.append(args[0]))
        )
        positions = (real.long().cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            self.hf(tokens, attention_mask=real.long(), position_ids=positions, use_cache=False)
        for hook in hooks:
            hook.remove()
        return first[0], seen

    # --- one forward ---------------------------------------------------------------------
    def forward(self, stream_of: StreamOf, embed=None) -> tuple[torch.Tensor, Values]:
        """Logits at the read positions, and what every source wrote."""
        values: Values = {"embed": self.embed if embed is None else embed}
        constant = torch.zeros_like(self.embed[0, 0])
        for index in range(self.spec.n_layers):
            written = self._attention(index, values, constant, stream_of)
            for head, value in enumerate(written):
                values[f"a{index}.h{head}"] = value
            before = constant
            bias = getattr(getattr(self._attn(index), self.names.out), "bias", None)
            constant = constant if bias is None else constant + bias
            visible = before if self.spec.parallel else constant
            values[f"m{index}"] = self._mlp(index, stream_of(f"m{index}", values, visible))
        stream = stream_of("logits", values, constant)
        stack = self.hf.get_submodule(self.names.stack)
        stream = stream[torch.arange(len(self.read)), self.read]
        normed = self._norm(getattr(stack, self.names.final), stream)
        logits = self.hf.get_output_embeddings()(normed)
        cap = getattr(self.hf.config, "final_logit_softcapping", None)
        return (logits if cap is None else torch.tanh(logits / cap) * cap), values

    def _attn(self, index):
        return self.layers[index].get_submodule(self.names.attn)

    def _attention(self, index, values, constant, stream_of):
        """What each head writes; every query, key and value from its own stream."""
        spec, norm = self.spec, getattr(self.layers[index], self.names.norm1)

        def port(letter: str, number: int, name: str):
            normed = self._norm(norm, stream_of(name, values, constant))
            return self._slice(index, normed, letter, number)

        q = [port("q", h, f"a{index}.h{h}.q") for h in range(spec.n_heads)]
        k = [port("k", g, f"a{index}.kv{g}.k") for g in range(spec.n_kv_heads)]
        v = [port("v", g, f"a{index}.kv{g}.v") for g in range(spec.n_kv_heads)]
        z = self._attend(index, q, k, v)
        d_head = z.shape[-1] // spec.n_heads
        out = getattr(self._attn(index), self.names.out)
        zero = out(torch.zeros_like(z))
        written = []
        for head in range(spec.n_heads):
            alone = torch.zeros_like(z)
            span = slice(head * d_head, (head + 1) * d_head)
            alone[..., span] = z[..., span]
            written.append(out(alone) - zero)
        return written if self.names.post1 is None else self._post_norm(index, written)

    def _post_norm(self, index, written):
        post = getattr(self.layers[index], self.names.post1)
        scale = self._scale(sum(written), post.eps) * (1 + post.weight)
        return [w * scale for w in written]

    def _norm(self, norm, stream):
        return norm(stream)

    def _scale(self, total, eps):
        return torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + eps)

    def _slice(self, index, normed, letter, number):
        """One head's query, key or value out of the whole projection's output."""
        attn, kind = self._attn(index), self.hf.config.model_type
        n_heads = self.spec.n_heads
        if kind == "gpt2":
            whole = attn.c_attn(normed).chunk(3, dim=-1)["qkv".index(letter)]
        elif kind == "gpt_neox":
            per_head = attn.query_key_value(normed).chunk(n_heads, dim=-1)[number]
            return per_head.chunk(3, dim=-1)["qkv".index(letter)]
        else:
            whole = getattr(attn, f"{letter}_proj")(normed)
        count = n_heads if letter == "q" else self.spec.n_kv_heads
        return whole.chunk(count, dim=-1)[number]

    def _attend(self, index, q, k, v):
        """z of the real attention module, its projections overruled by hooks."""
        attn, kind = self._attn(index), self.hf.config.model_type
        if kind == "gpt2":
            overrule = {"c_attn": torch.cat([*q, *k, *v], dim=-1)}
        elif kind == "gpt_neox":
            heads = [torch.cat(t, dim=-1) for t in zip(q, k, v, strict=True)]
            overrule = {"query_key_value": torch.cat(heads, dim=-1)}
        else:
            overrule = {
                f"{n}_proj": torch.cat(t, dim=-1) for n, t in zip("qkv", (q, k, v), strict=True)
            }
        seen, hooks = [], []
        for name, value in overrule.items():
            module = getattr(attn, name)
            hooks.append(module.register_forward_hook(lambda *_, value=value: value))
        out = getattr(attn, self.names.out)
        hooks.append(out.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
        attn(torch.zeros_like(self.embed), **self.contexts[index])
        for hook in hooks:
            hook.remove()
        return seen[0]

    def _mlp(self, index, stream):
        layer = self.layers[index]
        out = self._inside_mlp(layer.mlp, self._norm(getattr(layer, self.names.norm2), stream))
        return (
            out if self.names.post2 is None else self._norm(getattr(layer, self.names.post2), out)
        )

    def _inside_mlp(self, mlp, normed):
        return mlp(normed)

    # --- what ports read -----------------------------------------------------------------
    def sources_of(self, target: str) -> list[str]:
        """Names of the sources that a target reads."""
        number = self.graph.targets.index(target)
        block = self.graph.blocks[self.graph.target_block[number]]
        return list(self.graph.sources[: block.n_sources])

    def plain(self, target: str, values: Values, constant: torch.Tensor) -> torch.Tensor:
        """The full model: every port reads everything before it."""
        return sum(values[s] for s in self.sources_of(target)) + constant

    def ablated(self, mask, patch: Values) -> StreamOf:
        """Edge ablation: dropped edges carry the patch value, kept ones this run's."""
        kept = {self.graph.edge_name(e) for e in mask.nonzero()[0]}

        def stream_of(target, values, constant):
            total = constant
            for source in self.sources_of(target):
                total = total + (values if f"{source}->{target}" in kept else patch)[source]
            return total

        return stream_of

    def disturbed(self, edge: str, by: torch.Tensor) -> StreamOf:
        """The full model with `by` added to what flows along one edge."""
        _, _, disturbed_target = edge.partition("->")

        def stream_of(target, values, constant):
            stream = self.plain(target, values, constant)
            return stream + by if target == disturbed_target else stream

        return stream_of
