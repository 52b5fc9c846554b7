"""What the libraries' tensor names mean: from tensors and a config to a dictionary.

`encoder.weight` `[features, d_model]` and `decoder.weight` `[d_model, features]`
(dictionary_learning), by what else is there:

    bias            ReLU, centred, decoder columns brought to unit norm      (Marks et al. 2024)
    decoder.bias    ReLU, not centred
    gate_bias       gated, centred by `decoder_bias`, with `mag_bias` and `r_mag`
    b_dec           top-k, centred, k from the tensor `k` or the config; or batch top-k, which has
                    the same names and at inference one `threshold` for all features

`W_enc` `[d_model, features]` and `W_dec` `[features, d_model]`, with `b_enc` and `b_dec`:

    threshold       JumpReLU; of dictionary_learning not centred, of SAELens as its config says
    group_sizes     Matryoshka batch top-k: one `threshold`, centred
    b_gate          gated, with `b_mag` and `r_mag`
    else            ReLU or top-k, as the config's `architecture` and `activation_fn` say

A SAELens config centres by `apply_b_dec_to_input`, which is true where it is missing. What is not
understood is refused rather than left out: another architecture or activation, scaled inputs, a
tensor that nothing above asks for. Pinned by tests/model/test_dictionary_files.py.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.dictionaries.base import (
    Dictionary,
    DictionaryError,
    Gated,
    JumpRelu,
    Linear,
    Relu,
    TopK,
)

Config = Mapping[str, Any]
Encoders = Float[Tensor, "features d_model"]
PerFeature = Float[Tensor, " features"]
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk")


def dictionary_of(tensors: Mapping[str, Tensor], config: Config) -> Dictionary:
    """The dictionary, float32.

    Args:
        config: of the layout's own file, one level of nesting joined; empty where there is none.

    Raises:
        DictionaryError: no layout above, or numbers that do not fit together.
    """
    _refuse_what_changes_inputs(config)
    left = _Tensors(tensors)
    if config.get("kind") == "linear":  # of our own files
        found = _linear(left)
    elif "encoder.weight" in left:
        found = _by_modules(left, config)
    else:
        found = _by_matrices(left, config)
    left.refuse_rest()
    for name, tensor in found.tensors().items():
        if not torch.isfinite(tensor).all():
            raise DictionaryError(f"its {name} has numbers that are not finite")
    return found


class _Tensors:
    """The tensors of a file; those that nobody asked for are left."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._all, self._left = tensors, set(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def take(self, name: str, *shape: int | None) -> Tensor:
        """A tensor of this shape, float32; None stands for any length."""
        if name not in self._all:
            names = ", ".join(sorted(self._all)[:8]) or "none"
            raise DictionaryError(f"has no tensor {name!r}; it has {names}")
        self._left.discard(name)
        found = self._all[name]
        fits = [n is None or n == m for n, m in zip(shape, found.shape, strict=False)]
        if found.ndim != len(shape) or not all(fits):
            wanted = " by ".join("any" if n is None else str(n) for n in shape) or "one number"
            raise DictionaryError(f"its {name} is {tuple(found.shape)}; it must be {wanted}")
        return found.detach().to(torch.float32)

    def number(self, name: str) -> float:
        return float(self.take(name))

    def ignore(self, *names: str) -> None:
        self._left -= set(names)

    def refuse_rest(self) -> None:
        # SAELens wrote factors of 1 for a time
        rest = {n for n in self._left if "scaling_factor" not in n or (self._all[n] != 1).any()}
        if rest:
            raise DictionaryError(
                f"has tensors that no layout known here uses: {', '.join(sorted(rest)[:8])}"
            )


def _linear(t: _Tensors) -> Dictionary:
    encoder = t.take("encoder", None, None)
    shape = encoder.shape
    shift, decoder = t.take("shift", shape[0]), t.take("decoder", *shape)
    return Linear(encoder, shift, decoder, t.take("bias", shape[1]))


def _by_modules(t: _Tensors, config: Config) -> Dictionary:
    encoder = t.take("encoder.weight", None, None)
    features, width = encoder.shape
    decoder = t.take("decoder.weight", width, features).T.contiguous()
    if "gate_bias" in t:
        gate, size, scale = (t.take(n, features) for n in ("gate_bias", "mag_bias", "r_mag"))
        return Gated(encoder, decoder, t.take("decoder_bias", width), gate, size, scale)
    parts = (encoder, t.take("encoder.bias", features), decoder)
    if "b_dec" in t:
        return _topk_or_threshold(t, config, *parts)
    if "decoder.bias" in t:
        return Relu(*parts, t.take("decoder.bias", width), centred=False)
    return Relu(*_unit_norms(*parts), t.take("bias", width))


def _topk_or_threshold(
    t: _Tensors, config: Config, encoder: Encoders, shift: PerFeature, decoder: Encoders
) -> Dictionary:
    """Top-k and batch top-k, which a learned threshold and the same names make look alike."""
    bias, name = t.take("b_dec", encoder.shape[1]), config.get("dict_class")
    threshold = t.number("threshold") if "threshold" in t else -1.0
    k = t.number("k") if "k" in t else config.get("k")
    if name == "BatchTopKSAE":
        return JumpRelu(encoder, shift, decoder, bias, torch.full_like(shift, threshold))
    if threshold >= 0 and name != "AutoEncoderTopK":
        raise DictionaryError(
            "could be top-k or batch top-k, whose features differ; put beside it its config.json, "
            'or one with {"dict_class": "AutoEncoderTopK"} or {"dict_class": "BatchTopKSAE"}'
        )
    return TopK(encoder, shift, decoder, bias, _whole(k))


def _by_matrices(t: _Tensors, config: Config) -> Dictionary:
    decoder = t.take("W_dec", None, None)
    features, width = decoder.shape
    encoder = t.take("W_enc", width, features).T.contiguous()
    bias, kind = t.take("b_dec", width), _architecture(t, config)
    foreign = "threshold" in t and not config.get("architecture")
    centred = bool(config.get("apply_b_dec_to_input", not foreign))
    if kind == "gated":
        gate, size, scale = (t.take(n, features) for n in ("b_gate", "b_mag", "r_mag"))
        return Gated(encoder, decoder, bias, gate, size, scale, centred=centred)
    parts = (encoder, t.take("b_enc", features), decoder)
    if kind == "matryoshka":
        t.ignore("group_sizes", "k")  # of training
        return JumpRelu(*parts, bias, torch.full_like(parts[1], t.number("threshold")))
    if kind == "jumprelu":
        return JumpRelu(*parts, bias, t.take("threshold", features), centred=centred)
    if kind == "topk":
        if config.get("rescale_acts_by_decoder_norm"):
            parts = _unit_norms(*parts)
        return TopK(*parts, bias, _whole(config.get("k")), centred=centred)
    return Relu(*parts, bias, centred=centred)


def _architecture(t: _Tensors, config: Config) -> str:
    """One of `ARCHITECTURES`, or "matryoshka"."""
    if "group_sizes" in t:
        return "matryoshka"
    by_name = "gated" if "b_gate" in t else "jumprelu" if "threshold" in t else "standard"
    kind = config.get("architecture") or by_name
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if kind == "standard" and activation == "topk":
        return "topk"
    if kind not in ARCHITECTURES or activation not in ("relu", kind):
        raise DictionaryError(
            f"architecture {kind!r} with activation {activation!r} is not known; allowed: "
            f"{', '.join(ARCHITECTURES)}, with relu or topk"
        )
    return str(kind)


def _unit_norms(
    encoder: Encoders, shift: PerFeature, decoder: Encoders
) -> tuple[Encoders, PerFeature, Encoders]:
    """The same D(E(x)) with every d_j of length 1; one that is 0 stays."""
    norms = decoder.norm(dim=1)
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    if torch.allclose(norms, torch.ones_like(norms)):  # to rounding, which would only be added to
        return encoder, shift, decoder
    return encoder * norms[:, None], shift * norms, decoder / norms[:, None]


def _whole(k: Any) -> int:
    if not isinstance(k, int | float) or not float(k).is_integer():
        raise DictionaryError(f"is a top-k dictionary, and k is {k!r}; allowed: a whole number")
    return int(k)


def _refuse_what_changes_inputs(config: Config) -> None:
    scaled = config.get("normalize_activations")
    if scaled not in (None, False, "none"):
        raise DictionaryError(
            f"normalize_activations is {scaled!r}; fold the scaling into the weights first"
        )
    place = config.get("hook_name") or config.get("hook_point") or ""
    if config.get("reshape_activations") == "hook_z" or "hook_z" in str(place):
        raise DictionaryError(
            "is of the heads' outputs before they are projected (hook_z); sites are embed, attn, "
            "mlp and resid"
        )
