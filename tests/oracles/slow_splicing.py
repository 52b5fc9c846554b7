"""Values of sites, and losses with a site's value replaced, by hooks on Hugging Face's own modules:
one text at a time, without padding."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

#: stack of layers, and within a layer what writes attention's and the MLP's output to the stream
PLACES = {
    "gpt2": ("transformer.h", "attn", "mlp"),
    "gpt_neo": ("transformer.h", "attn", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp"),
    "llama": ("model.layers", "self_attn", "mlp"),
    "gemma2": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm"),
}
Change = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def changed(hf, site: str, change: Change) -> Iterator[None]:
    """Within, the value of a site is `change` of it."""
    stack, attention, mlp = PLACES[hf.config.model_type]
    layers = hf.get_submodule(stack)

    def after(_, args, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    if site == "embed":
        hook = layers[0].register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    else:
        kind, layer = site.rstrip("0123456789"), layers[int(site.lstrip("abcdefghijklmnoprstu"))]
        inner = {"resid": "", "attn": attention, "mlp": mlp}[kind]
        hook = layer.get_submodule(inner).register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


def site_value(hf, site: str, text: Sequence[int]) -> torch.Tensor:
    """`[positions, d_model]`."""
    seen = []
    with torch.no_grad(), changed(hf, site, lambda x: seen.append(x) or x):
        hf(torch.tensor([text]), use_cache=False)
    return seen[0][0]


def loss(hf, site: str, texts: Sequence[Sequence[int]], change: Change) -> float:
    """Mean −log p of every token but the first, in nats."""
    total, n = 0.0, 0
    for text in texts:
        with torch.no_grad(), changed(hf, site, change):
            logits = hf(torch.tensor([text]), use_cache=False).logits[0].double()
        for position, token in enumerate(text[1:]):
            probability = logits[position].exp() / logits[position].exp().sum()
            total -= math.log(probability[token])
            n += 1
    return total / n
