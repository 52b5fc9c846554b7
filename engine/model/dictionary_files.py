"""Dictionaries on disk, by what they hold and not by what they are called.

    ae.pt           a state dict of the dictionary_learning library, read with weights_only: ReLU
                    (as used by Marks et al. 2024), gated, JumpReLU and top-k
    FOLDER          with ae.pt; or SAELens's cfg.json and sae_weights.safetensors
    FILE.safetensors  what `save_dictionary` writes; also the numbers of a SAELens folder
    OWNER/REPO[:PATH] one of these on the hub

Tensors are told apart by their names, so a config is asked only for what they do not say. What
would change the numbers and is not done here (scaled inputs, other activations) is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.model.dictionaries import (
    Dictionary,
    DictionaryError,
    Gated,
    Identity,
    JumpRelu,
    Linear,
    NoDictionary,
    Relu,
    TopK,
)

Tensors = Mapping[str, Tensor]
Config = Mapping[str, Any]
ALLOWED = (
    "identity, none, an ae.pt or .safetensors file, a folder that holds one, or a hub name "
    "OWNER/REPO:PATH"
)


def load_dictionary(source: str, *, d_model: int) -> Dictionary:
    """The dictionary that a name stands for, float32 on the CPU.

    Args:
        source: see above; also "identity" and "none".
        d_model: width of the site, for dictionaries that have no numbers of their own.

    Raises:
        DictionaryError: nothing is there, or what is there is no dictionary that we know.
    """
    if source == "identity":
        return Identity(d_model)
    if source == "none":
        return NoDictionary(d_model)
    path = Path(source).expanduser()
    if not path.exists():
        path = _from_hub(source)
    try:
        tensors, config = _read(path)
        return _made(tensors, config)
    except DictionaryError as error:
        raise DictionaryError(f"dictionary {source!r}: {error}") from None


def _from_hub(source: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    repo, _, inside = source.partition(":")
    if repo.count("/") != 1 or source.startswith((".", "/", "~")):
        raise DictionaryError(f"dictionary {source!r} is not there; allowed: {ALLOWED}")
    try:
        if inside.endswith((".pt", ".safetensors")):
            hf_hub_download(repo, inside.rsplit("/", 1)[0] + "/config.json")
    except Exception:  # a config beside the file is rare, and rarely needed
        pass
    try:
        if inside.endswith((".pt", ".safetensors")):
            return Path(hf_hub_download(repo, inside))
        wanted = [f"{inside}/*" if inside else "*"]
        return Path(snapshot_download(repo, allow_patterns=wanted)) / inside
    except Exception as error:  # hub clients raise many kinds; all mean: not to be had here
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DictionaryError(
            f"dictionary {source!r} could not be had from the hub: {reason}"
        ) from None


def _read(path: Path) -> tuple[Tensors, Config]:
    """The tensors and the config of a file or a folder."""
    if path.is_dir():
        names = ("ae.pt", "sae_weights.safetensors")
        found = [path / n for n in names if (path / n).is_file()]
        if not found:
            raise DictionaryError(f"the folder has neither of {' and '.join(names)}")
        path = found[0]
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many kinds; all mean: no plain state dict
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DictionaryError(f"{path.name} is no plain state dict: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DictionaryError(f"{path.name} holds no state dict of tensors")
    return state, _config_beside(path)


def _read_safetensors(path: Path) -> tuple[Tensors, Config]:
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a truncated or foreign file
        raise DictionaryError(f"{path.name} is no safetensors file: {error}") from None
    return tensors, {**_config_beside(path), **json.loads(told.get("edgesweep", "{}"))}


def _config_beside(path: Path) -> Config:
    """What a config.json or cfg.json in the folder says, one level of nesting joined."""
    for name in ("cfg.json", "config.json"):
        file = path.parent / name
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
                raise DictionaryError(f"{name} cannot be read: {error}") from None
            if not isinstance(found, dict):
                raise DictionaryError(f"{name} is no mapping")
            inner = {
                k: v for part in found.values() if isinstance(part, dict) for k, v in part.items()
            }
            return {**inner, **found}
    return {}


# --- layouts ----------------------------------------------------------------------------------


def _made(tensors: Tensors, config: Config) -> Dictionary:
    _refuse_what_changes_numbers(config)
    tensors = {name: value.detach().to(torch.float32) for name, value in tensors.items()}
    if config.get("kind") == "linear":
        return Linear(*(tensors[n] for n in ("encoder", "shift", "decoder", "bias")))
    found = _by_modules(tensors) if "encoder.weight" in tensors else _by_matrices(tensors, config)
    _check_shapes(found)
    return found


def _by_modules(t: Tensors) -> Dictionary:
    """Linear modules, `[features, d_model]` and `[d_model, features]`, centred by the bias."""
    encoder, decoder = t["encoder.weight"], _one(t, "decoder.weight").T.contiguous()
    if "gate_bias" in t:
        bias, log_scale = _one(t, "decoder_bias"), _one(t, "r_mag")
        return Gated(encoder, decoder, bias, t["gate_bias"], _one(t, "mag_bias"), log_scale)
    shift = t.get("encoder.bias", encoder.new_zeros(len(encoder)))
    if "k" in t:
        return TopK(encoder, shift, decoder, _one(t, "b_dec"), int(t["k"]))
    return Relu(encoder, shift, decoder, _one(t, "bias"))


def _by_matrices(t: Tensors, config: Config) -> Dictionary:
    """Matrices `W_enc` `[d_model, features]` and `W_dec` `[features, d_model]`."""
    encoder, decoder, bias = _one(t, "W_enc").T.contiguous(), _one(t, "W_dec"), _one(t, "b_dec")
    kind = str(config.get("architecture", "") or "")
    centred = bool(config.get("apply_b_dec_to_input", kind in ("", "standard", "gated", "topk")))
    if "b_gate" in t or kind == "gated":
        parts = (_one(t, "b_gate"), _one(t, "b_mag"), _one(t, "r_mag"))
        return Gated(encoder, decoder, bias, *parts, centred=centred)
    shift = _one(t, "b_enc")
    if "threshold" in t or kind == "jumprelu":
        centred = bool(config.get("apply_b_dec_to_input", False))
        return JumpRelu(encoder, shift, decoder, bias, _one(t, "threshold"), centred=centred)
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
    activation = str(config.get("activation_fn_str") or config.get("activation_fn") or "relu")
    if kind == "topk" or activation == "topk":
        if k is None:
            raise DictionaryError("a top-k dictionary whose config names no k")
        return TopK(encoder, shift, decoder, bias, int(k), centred=centred)
    if activation != "relu" or kind not in ("", "standard"):
        raise DictionaryError(
            f"architecture {kind or 'standard'!r} with activation {activation!r} is not known; "
            "allowed: standard with relu or topk, gated, jumprelu, topk"
        )
    return Relu(encoder, shift, decoder, bias, centred=centred)


def _one(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise DictionaryError(
            f"has no tensor {name!r}; it has {', '.join(sorted(tensors)[:8]) or 'none'}"
        )
    return tensors[name]


def _refuse_what_changes_numbers(config: Config) -> None:
    scaled = config.get("normalize_activations")
    if scaled not in (None, False, "none", "expected_average_only_in_training"):
        raise DictionaryError(
            f"normalize_activations is {scaled!r}; fold the scaling into the weights first"
        )
    for name in ("finetuning_scaling_factor", "rescale_acts_by_decoder_norm"):
        if config.get(name):
            raise DictionaryError(f"{name} is set; fold the scaling into the weights first")


def _check_shapes(found: Dictionary) -> None:
    features, width = found.decoder.shape
    wanted = {"bias": (width,), "encoder": (features, width)}
    for name, tensor in found.tensors().items():
        shape = wanted.get(name, (features,) if tensor.ndim == 1 else (features, width))
        if tuple(tensor.shape) != shape:
            raise DictionaryError(
                f"its {name} is {tuple(tensor.shape)} and its decoder {features} by {width}"
            )


# --- writing ----------------------------------------------------------------------------------


def dictionary_bytes(dictionary: Dictionary) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file that `load_dictionary` reads.

    Raises:
        DictionaryError: a kind that is never trained here.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in dictionary.tensors().items()}
    told: dict[str, Any] = {"kind": dictionary.kind}
    if isinstance(dictionary, Linear):
        return tensors, {"edgesweep": json.dumps(told)}
    if not isinstance(dictionary, Relu | TopK):
        raise DictionaryError(f"dictionaries of kind {dictionary.kind!r} are not written")
    told |= {"architecture": "standard", "apply_b_dec_to_input": dictionary.centred}
    if isinstance(dictionary, TopK):
        told |= {"architecture": "topk", "k": dictionary.k}
    parts = {
        "W_enc": dictionary.encoder.T,
        "b_enc": dictionary.shift,
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.bias,
    }
    plain = {name: t.detach().cpu().contiguous() for name, t in parts.items()}
    return plain, {"edgesweep": json.dumps(told)}


def save_dictionary(dictionary: Dictionary, path: Path) -> None:
    """Write a dictionary as a safetensors file."""
    tensors, told = dictionary_bytes(dictionary)
    save_file(tensors, path, told)
