"""The weights of a folder: read as what its config says they are, or refused by name.

A file that lacks a tensor would leave that part of the model random, and one that has a tensor too
many is of another model. Both show when the model is loaded without its numbers (on torch's "meta"
device), which reads the files' headers alone and costs a part of a second; it goes the very way
of the real load, so that what that one renames or ties is renamed and tied here.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from edgesweep.engine.model.cache import file_digest, quiet
from edgesweep.engine.model.errors import ModelError, refusing
from edgesweep.engine.model.kinds import kind_of

#: for every reading of a folder: its code is not run, and no hub is asked about it
LOCAL: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}

INDEX = "model.safetensors.index.json"
#: masks and frequencies that older files carry; no model here reads them
HARMLESS = re.compile(r"\.(attn|attention)\.(masked_)?bias$|\.rotary_emb\.inv_freq$")
MOST_NAMED = 4


def load_all(folder: Path, auto: Any = AutoModelForCausalLM, **how: Any) -> Any:
    """What `from_pretrained` makes of a folder, if that is all of the model and nothing else.

    Args:
        auto: whose `from_pretrained`.
        how: its further arguments.

    Raises:
        ModelError: tensors that are missing, too many, or of another shape.
    """
    with quiet(), refusing("its weights cannot be read"):
        found: Any = auto.from_pretrained(
            folder,
            ignore_mismatched_sizes=True,  # they are refused here, where they can be named
            output_loading_info=True,
            **LOCAL,
            **how,
        )
    hf, told = found
    _check_names(told)
    return hf


def open_weights(folder: Path, dtype: torch.dtype = torch.float32, **how: Any) -> Any:
    """The model of a folder of safetensors; arguments and errors as of `load_all`."""
    config = AutoConfig.from_pretrained(folder, **LOCAL)
    kind = kind_of(config)
    how = {**kind.how(config), **how}
    return load_all(folder, kind.auto, dtype=dtype, use_safetensors=True, **how)


def check_weights(folder: Path) -> None:
    """Refuse files that do not hold the model's weights, without reading these.

    Raises:
        ModelError: as `load_all`; or the index names files that are not there.
    """
    _check_index(folder)
    with refusing("its weights cannot be read"):
        _check_layers(folder)
    open_weights(folder, device_map="meta")


def _check_names(told: Mapping[str, Any]) -> None:
    """Refuse a model whose `output_loading_info` says that it is not what the files hold."""
    missing = sorted(told["missing_keys"])
    strange = sorted(name for name in told["unexpected_keys"] if not HARMLESS.search(name))
    misshapen = [
        f"{name} is {tuple(found)}, not {tuple(wanted)}"
        for name, found, wanted in sorted(told["mismatched_keys"])
    ]
    said = (
        ("its files lack", missing),
        ("its files hold what is no part of the model:", strange),
        ("shapes do not fit its config:", misshapen),
    )
    if faults := [f"{what} {_some(names)}" for what, names in said if names]:
        raise ModelError("; ".join(faults))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _check_index(folder: Path) -> None:
    """The digest is of the folder's own files, so the index may name no others."""
    if (folder / "model.safetensors").exists() or not (folder / INDEX).exists():
        return
    with refusing(f"{INDEX} cannot be read"):
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        named = set(map(str, places.values()))
    foreign = sorted(named - {file.name for file in folder.glob("*.safetensors")})
    if foreign:
        raise ModelError(f"{INDEX} names files that the folder does not have: {_some(foreign)}")


def _check_layers(folder: Path) -> None:
    """A config may ask for more layers than could be built in a lifetime."""
    n_layers = AutoConfig.from_pretrained(folder, **LOCAL).num_hidden_layers
    n_tensors = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            n_tensors += len(weights.keys())
    if n_layers > n_tensors:
        raise ModelError(f"num_hidden_layers is {n_layers}, of {n_tensors} tensors in all")


def folder_digest(folder: Path) -> str:
    """sha256 over names and bytes of the files that are `digested`."""
    total = hashlib.sha256()
    for file in digested(folder):
        total.update(file.name.encode())
        total.update(file_digest(file))
    return total.hexdigest()


def digested(folder: Path) -> list[Path]:
    """The config, the index and the weight files."""
    index = [folder / INDEX] if (folder / INDEX).exists() else []
    return [folder / "config.json", *index, *sorted(folder.glob("*.safetensors"))]
