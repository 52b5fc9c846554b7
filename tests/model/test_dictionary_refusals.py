"""Dictionaries that cannot be had, or not without changing their numbers: one line says why."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgesweep.engine.dictionaries import DictionaryError, load_dictionary
from tests.model.dictionary_layouts import (
    FEATURES,
    GATED,
    LAYOUTS,
    LEARNED,
    LEVELS,
    MATRICES,
    MODULES,
    TOPK,
    UNIT,
    WEIGHTS,
    WIDTH,
    B,
    Layout,
    old_saelens,
    relu,
    saelens,
    zipped,
)

MARKS = LAYOUTS["marks"].tensors
REFUSED = {
    "another architecture": (WEIGHTS, MATRICES, saelens("transcoder"), "architecture 'transcoder'"),
    "one that looks like JumpReLU": (
        WEIGHTS,
        {**MATRICES, "threshold": LEVELS},
        saelens("jumprelu_transcoder"),
        "architecture 'jumprelu_transcoder' with activation 'relu' is not known; allowed: standard",
    ),
    "another activation": (
        WEIGHTS,
        MATRICES,
        old_saelens(activation_fn_str="tanh-relu"),
        "activation 'tanh-relu' is not known",
    ),
    "another activation, gated": (
        WEIGHTS,
        GATED,
        old_saelens(architecture="gated", activation_fn_str="tanh-relu"),
        "architecture 'gated' with activation 'tanh-relu'",
    ),
    **{
        f"scaled inputs: {how}": (
            WEIGHTS,
            MATRICES,
            saelens("standard", normalize_activations=how),
            f"normalize_activations is {how!r}; fold the scaling into the weights first",
        )
        for how in ("layer_norm", "constant_norm_rescale", "expected_average_only_in", True)
    },
    "heads": (WEIGHTS, MATRICES, saelens("standard", reshape_activations="hook_z"), "hook_z"),
    "heads, by name": (
        WEIGHTS,
        MATRICES,
        old_saelens(hook_name="blocks.3.attn.hook_z"),
        "heads' outputs before they are projected",
    ),
    "a scaling that acts": (
        WEIGHTS,
        {**MATRICES, "scaling_factor": np.full(FEATURES, 1.5)},
        old_saelens(finetuning_scaling_factor=True),
        "no layout known here uses: scaling_factor",
    ),
    "a tensor too many": (
        WEIGHTS,
        {**MATRICES, "W_skip": np.ones((WIDTH, WIDTH))},
        saelens("standard"),
        "tensors that no layout known here uses: W_skip",
    ),
    "a tensor too few": (
        "ae.pt",
        {n: t for n, t in MARKS.items() if n != "bias"},
        None,
        "has no tensor 'bias'; it has decoder.weight, encoder.bias, encoder.weight",
    ),
    "top-k or batch top-k": (
        "ae.pt",
        {**TOPK, "threshold": LEARNED},
        None,
        "could be top-k or batch top-k, whose features differ; put beside it its config.json",
    ),
    "no k": ("ae.pt", {**MODULES, "b_dec": B}, None, "k is None; allowed: a whole number"),
    "no k, SAELens": (WEIGHTS, MATRICES, saelens("topk"), "k is None; allowed: a whole number"),
    "k that is none": (WEIGHTS, MATRICES, saelens("topk", k="32"), "k is '32'"),
    "k of many": (
        "ae.pt",
        {**TOPK, "k": np.ones(3)},
        None,
        r"its k is \(3,\); it must be one number",
    ),
    "k of nan": ("ae.pt", {**TOPK, "k": np.array(np.nan)}, None, "k is nan"),
    "too large a k": (
        WEIGHTS,
        MATRICES,
        saelens("topk", k=100),
        "k is 100 of 9 features; allowed: 1 to all",
    ),
    "shapes": (
        "ae.pt",
        {**MARKS, "bias": np.ones(WIDTH + 1)},
        None,
        r"its bias is \(6,\); it must be 5",
    ),
    "transposed": (
        "ae.pt",
        {**MARKS, "decoder.weight": UNIT},
        None,
        r"its decoder.weight is \(9, 5\); it must be 5 by 9",
    ),
    "axes": (
        "ae.pt",
        {**MARKS, "bias": np.ones((1, WIDTH))},
        None,
        r"its bias is \(1, 5\); it must be 5",
    ),
    "not finite": (
        "ae.pt",
        {**MARKS, "encoder.bias": np.full(FEATURES, np.nan)},
        None,
        "its shift has numbers that are not finite",
    ),
    "foreign": ("ae.pt", {"conv.weight": np.ones(3)}, None, "has no tensor 'W_dec'; it has conv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_honoured_is_refused(case, tmp_path):
    numbers, tensors, config, message = REFUSED[case]
    folder = Layout(numbers, tensors, config, "", relu()).write(tmp_path / "sae")
    refused(str(folder), message)


def refused(source: str, message: str) -> None:
    with pytest.raises(DictionaryError, match=message) as error:
        load_dictionary(source, d_model=WIDTH)
    assert str(error.value).startswith(f"dictionary {source!r}: ")
    assert len(str(error.value).splitlines()) == 1


def test_nothing_there(hub, tmp_path):
    allowed = "is not there; allowed: identity, none, an ae.pt or .safetensors file, a folder"
    for source in ("typo", "./no/such", "/no/such/ae.pt", "a/b/c", "~/no-such-file", "identitiy"):
        refused(source, allowed)


def test_hub_names_that_lead_nowhere(hub):
    root, _ = hub
    LAYOUTS["marks"].write(root / "o/r/x")
    refused("o/missing:x", "is not here, and could not be had from the hub: 404: o/missing is priv")
    refused("o/r:y", "o/r has no y, or only a copy without it is here")
    refused("o/r:x/other.pt", "o/r has no x/other.pt, or")
    refused("o/r:all.zip/x", "o/r has no all.zip/x, or")
    refused("o/r", "the folder has neither of ae.pt and sae_weights.safetensors")


def test_archives_that_hold_something_else(tmp_path):
    archive = zipped(LAYOUTS["marks"].write(tmp_path / "a"), tmp_path / "all.zip", "saes/l1/")
    refused(f"{archive}/saes/l2", "all.zip has no saes/l2; it has saes/l1/ae.pt")
    refused(f"{archive}/saes", "the folder has neither of")
    (tmp_path / "bad.zip").write_bytes(b"not an archive")
    refused(f"{tmp_path}/bad.zip/x", "bad.zip cannot be read: File is not a zip file")


def test_folders_that_hold_something_else(tmp_path):
    refused(str(tmp_path), "the folder has neither of ae.pt and sae_weights.safetensors")
    for name in ("marks", "sl-standard"):
        LAYOUTS[name].write(tmp_path)
    refused(str(tmp_path), "the folder has both ae.pt and sae_weights.safetensors; name one")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("ae.pt", b"", "ae.pt is no plain state dict: "),
        ("ae.pt", b"no pickle at all", "ae.pt is no plain state dict: "),
        ("x.safetensors", b"\x10\x00\x00", "x.safetensors is no safetensors file: "),
    ],
)
def test_broken_files(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    refused(str(tmp_path / name), message)


@pytest.mark.parametrize("state", [[1, 2], {"bias": 3}, {"state_dict": {"bias": torch.ones(2)}}])
def test_files_of_something_else(state, tmp_path):
    torch.save(state, tmp_path / "ae.pt")
    refused(str(tmp_path / "ae.pt"), "ae.pt holds no state dict of tensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "config.json cannot be read: "), ("[1]", "config.json is no mapping")],
)
def test_broken_configs(text, message, tmp_path):
    folder = LAYOUTS["marks"].write(tmp_path)
    (folder / "config.json").write_text(text)
    refused(str(folder), message)


class Bomb:
    """What a pickle can do where it is trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def test_no_code_in_a_file_is_run(tmp_path):
    torch.save({"bias": torch.ones(2), "x": Bomb(tmp_path / "proof")}, tmp_path / "ae.pt")
    refused(str(tmp_path / "ae.pt"), "ae.pt is no plain state dict: ")
    assert not (tmp_path / "proof").exists()


def test_precision_of_the_file_does_not_matter(tmp_path):
    made = LAYOUTS["marks"]
    folder = made.write(tmp_path)
    state = torch.load(folder / "ae.pt", weights_only=True)
    torch.save({n: t.bfloat16() for n, t in state.items()}, folder / "ae.pt")
    found = load_dictionary(str(folder), d_model=WIDTH)
    assert {t.dtype for t in found.tensors().values()} == {torch.float32}
