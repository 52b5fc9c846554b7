"""`SlowModel` with the rules of relevance patching written out, family by family.

Whatever is held is detached where it is computed; autograd does the rest.
"""

import torch
from torch import nn

from tests.oracles.slow_model import SlowModel


def held_norm(norm, x):
    """A layer norm or RMS norm whose scale has no derivative."""
    if isinstance(norm, nn.Identity):
        return x
    if isinstance(norm, nn.LayerNorm):
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.sqrt((centred**2).mean(-1, keepdim=True) + norm.eps).detach()
        return centred / scale * norm.weight + norm.bias
    eps = getattr(norm, "variance_epsilon", None)
    scale = torch.sqrt((x**2).mean(-1, keepdim=True) + (norm.eps if eps is None else eps)).detach()
    gain = 1 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight
    return x / scale * gain


def secant(activation, z):
    """The activation as a constant times its input."""
    return z * (activation(z) / z).detach()


class SlowRelevance(SlowModel):
    """Attention patterns held."""

    def _norm(self, norm, stream):
        return held_norm(norm, stream)

    def _scale(self, total, eps):
        return super()._scale(total, eps).detach()

    def _attend(self, index, q, k, v):
        return super()._attend(index, [x.detach() for x in q], [x.detach() for x in k], v)

    def _inside_mlp(self, mlp, normed):
        if hasattr(mlp, "gate_proj"):
            gate, value = secant(mlp.act_fn, mlp.gate_proj(normed)), mlp.up_proj(normed)
            return mlp.down_proj((gate * value.detach() + gate.detach() * value) / 2)
        first, last = {
            "gpt2": ("c_fc", "c_proj"),
            "gpt_neo": ("c_fc", "c_proj"),
            "gpt_neox": ("dense_h_to_4h", "dense_4h_to_h"),
            "plain": ("up_proj", "down_proj"),
        }[self.hf.config.model_type]
        return getattr(mlp, last)(secant(mlp.act, getattr(mlp, first)(normed)))


class SlowRelevanceQK(SlowRelevance):
    """Attention patterns differentiated; norms of queries and keys held."""

    def _attend(self, index, q, k, v):
        attention = self._attn(index)
        hooks = [
            getattr(attention, name).register_forward_hook(
                lambda norm, given, out: held_norm(norm, given[0])
            )
            for name in ("q_norm", "k_norm")
            if hasattr(attention, name)
        ]
        z = SlowModel._attend(self, index, q, k, v)
        for hook in hooks:
            hook.remove()
        return z
