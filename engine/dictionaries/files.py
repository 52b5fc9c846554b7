"""Dictionaries on disk and on the hub, found by what is there and not by what it is called.

    ae.pt             a state dict of the dictionary_learning library, read with weights_only
    FOLDER            with ae.pt; or SAELens's cfg.json and sae_weights.safetensors
    FILE.safetensors  what `save_dictionary` writes; also the numbers of a SAELens folder
    ARCHIVE.zip/PATH  one of these in an archive
    OWNER/REPO[:PATH] one of these on the hub; the dictionaries of Marks et al. (2024) are an
                      archive there

A config.json or cfg.json beside the numbers is read with them; what both mean is said in
`engine.dictionaries.layouts`.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgesweep.engine.dictionaries.base import (
    Dictionary,
    DictionaryError,
    Identity,
    Linear,
    NoDictionary,
    Relu,
    TopK,
)
from edgesweep.engine.dictionaries.layouts import Config, dictionary_of

ALLOWED = (
    "identity, none, an ae.pt or .safetensors file, a folder or ARCHIVE.zip/PATH that holds one, "
    "or a hub name OWNER/REPO:PATH"
)
NUMBERS = ("ae.pt", "sae_weights.safetensors")
CONFIGS = ("cfg.json", "config.json")


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
    try:
        with _located(source) as path:
            return dictionary_of(*_read(path))
    except (DictionaryError, OSError) as error:
        raise DictionaryError(f"dictionary {source!r}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """Of an error of a library; some are silent, some tell a story."""
    return str(error).splitlines()[0][:400] if str(error) else type(error).__name__


# --- finding ----------------------------------------------------------------------------------


@contextmanager
def _located(source: str) -> Iterator[Path]:
    """A file or folder on this disk, for as long as it is needed."""
    path = Path(source).expanduser()
    if not path.exists() and _archive_of(path) is None:
        path = _from_hub(source)
    archive = _archive_of(path)
    if archive is None:
        yield path
        return
    with TemporaryDirectory() as folder:
        yield _unpacked(archive, path.relative_to(archive).as_posix(), Path(folder))


def _archive_of(path: Path) -> Path | None:
    return next((p for p in path.parents if p.suffix == ".zip" and p.is_file()), None)


def _unpacked(archive: Path, inside: str, folder: Path) -> Path:
    """The file or folder `inside`, and nothing else of the archive, below `folder`."""
    try:
        with zipfile.ZipFile(archive) as members:
            names = set(members.namelist())
            for name in _wanted(inside, inside in names):
                if name in names:
                    with members.open(name) as found, (folder / Path(name).name).open("wb") as file:
                        shutil.copyfileobj(found, file)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise DictionaryError(f"{archive.name} cannot be read: {_first_line(error)}") from None
    if inside in names:
        return folder / Path(inside).name
    if not any(name.startswith(f"{inside}/") for name in names):
        some = ", ".join(sorted(n for n in names if n.endswith(NUMBERS))[:3]) or "no dictionary"
        raise DictionaryError(f"{archive.name} has no {inside}; it has {some}")
    return folder


def _wanted(inside: str, is_file: bool) -> list[str]:
    """The path's own file, or those of its folder that may be a dictionary; and the configs."""
    folder = inside.rpartition("/")[0] if is_file else inside
    names = [*CONFIGS] if is_file else [*NUMBERS, *CONFIGS]
    found = [f"{folder}/{name}" if folder else name for name in names]
    return [inside, *found] if is_file else found


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download

    repo, _, inside = source.partition(":")
    inside = inside.strip("/")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo):
        raise DictionaryError(f"is not there; allowed: {ALLOWED}")
    archive = re.match(r"(.*?\.zip)/", inside)
    is_file = inside.endswith((".pt", ".safetensors"))
    wanted = [archive[1]] if archive else _wanted(inside, is_file)
    try:
        folder = Path(snapshot_download(repo, allow_patterns=wanted))
    except Exception as error:  # hub clients raise many kinds; all mean: not to be had here
        raise DictionaryError(
            f"is not here, and could not be had from the hub: {_first_line(error)[:160]}"
        ) from None
    if not (folder / (archive[1] if archive else inside)).exists():
        raise DictionaryError(f"{repo} has no {inside}, or only a copy without it is here")
    return folder / inside


# --- reading ----------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Mapping[str, Tensor], Config]:
    """The tensors and the config of a file or a folder."""
    if path.is_dir():
        found = [path / name for name in NUMBERS if (path / name).is_file()]
        if len(found) != 1:
            raise DictionaryError(
                f"the folder has both {' and '.join(NUMBERS)}; name one of them"
                if found
                else f"the folder has neither of {' and '.join(NUMBERS)}"
            )
        path = found[0]
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many kinds; all mean: no plain state dict
        raise DictionaryError(
            f"{path.name} is no plain state dict: {_first_line(error)[:120]}"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DictionaryError(f"{path.name} holds no state dict of tensors")
    return state, _config_beside(path)


def _read_safetensors(path: Path) -> tuple[Mapping[str, Tensor], Config]:
    try:
        with safe_open(path, "pt") as file:
            ours = (file.metadata() or {}).get("edgesweep")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(ours) if ours else _config_beside(path)
    except DictionaryError:
        raise
    except Exception as error:  # a truncated or foreign file
        raise DictionaryError(
            f"{path.name} is no safetensors file: {_first_line(error)[:120]}"
        ) from None


def _config_beside(path: Path) -> Config:
    """What a cfg.json or config.json in the folder says, one level of nesting joined."""
    for name in CONFIGS:
        file = path.parent / name
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise DictionaryError(f"{name} cannot be read: {_first_line(error)}") from None
            if not isinstance(found, dict):
                raise DictionaryError(f"{name} is no mapping")
            parts = [part for part in found.values() if isinstance(part, dict)]
            return {**{k: v for part in parts for k, v in part.items()}, **found}
    return {}


# --- writing ----------------------------------------------------------------------------------


def dictionary_bytes(dictionary: Dictionary) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file that `load_dictionary` reads.

    Raises:
        DictionaryError: a kind that is never trained here.
    """
    told: dict[str, Any] = {"kind": dictionary.kind}
    if isinstance(dictionary, Linear):
        parts = dictionary.tensors()
    elif isinstance(dictionary, Relu | TopK):
        told |= {"architecture": "standard", "apply_b_dec_to_input": dictionary.centred}
        if isinstance(dictionary, TopK):
            told |= {"architecture": "topk", "k": dictionary.k}
        parts = {
            "W_enc": dictionary.encoder.T,
            "b_enc": dictionary.shift,
            "W_dec": dictionary.decoder,
            "b_dec": dictionary.bias,
        }
    else:
        raise DictionaryError(f"dictionaries of kind {dictionary.kind!r} are not written")
    plain = {name: t.detach().cpu().contiguous() for name, t in parts.items()}
    return plain, {"edgesweep": json.dumps(told)}


def save_dictionary(dictionary: Dictionary, path: Path) -> None:
    """Write a dictionary as a safetensors file."""
    tensors, told = dictionary_bytes(dictionary)
    save_file(tensors, path, told)
