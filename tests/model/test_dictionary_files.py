"""Dictionaries on disk and on a hub: every layout, in every place where one can be."""

import numpy as np
import pytest
import torch

from edgesweep.engine.dictionaries import (
    DictionaryError,
    Linear,
    Relu,
    TopK,
    load_dictionary,
    save_dictionary,
)
from tests.model.dictionary_layouts import (
    DEC,
    ENC,
    LAYOUTS,
    WIDTH,
    B,
    H,
    K,
    Layout,
    check,
    zipped,
)


@pytest.fixture(params=LAYOUTS)
def layout(request) -> Layout:
    return LAYOUTS[request.param]


# --- where dictionaries are ---------------------------------------------------------------------
def test_a_folder(layout, tmp_path):
    check(load_dictionary(str(layout.write(tmp_path / "sae")), d_model=WIDTH), layout)


def test_a_file_is_read_with_the_config_beside_it(layout, tmp_path):
    folder = layout.write(tmp_path)
    check(load_dictionary(str(folder / layout.numbers), d_model=WIDTH), layout)


@pytest.mark.parametrize("inside", ["saes/layer1", "saes/layer1/{numbers}"])
def test_an_archive(layout, inside, tmp_path):
    archive = zipped(layout.write(tmp_path / "a"), tmp_path / "all.zip", "saes/layer1/")
    source = f"{archive}/{inside.format(numbers=layout.numbers)}"
    check(load_dictionary(source, d_model=WIDTH), layout)


@pytest.mark.parametrize("inside", ["", "layer1", "deep/er/layer1"])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_hub_name(layout, inside, by_file, hub):
    root, _ = hub
    layout.write(root / "marks/saes" / inside)
    (root / "marks/saes" / inside / "huge.bin").write_bytes(b"never wanted")
    file = layout.numbers if by_file else ""
    path = "/".join(part for part in (inside, file) if part)
    check(load_dictionary(f"marks/saes:{path}" if path else "marks/saes", d_model=WIDTH), layout)


def test_an_archive_on_the_hub(layout, hub, tmp_path):
    """As Marks et al. publish theirs: one archive of all sites."""
    root, asked = hub
    (root / "marks/saes").mkdir(parents=True)
    zipped(layout.write(tmp_path / "a"), root / "marks/saes/all.zip", "dictionaries/embed/10/")
    source = f"marks/saes:all.zip/dictionaries/embed/10/{layout.numbers}"
    check(load_dictionary(source, d_model=WIDTH), layout)
    assert asked == [("marks/saes", ["all.zip"])]


def test_only_what_a_dictionary_is_made_of_is_downloaded(hub):
    root, asked = hub
    LAYOUTS["marks"].write(root / "o/r/x")
    load_dictionary("o/r:x", d_model=WIDTH)
    load_dictionary("o/r:x/ae.pt", d_model=WIDTH)
    beside = ["x/cfg.json", "x/config.json"]
    assert asked == [
        ("o/r", ["x/ae.pt", "x/sae_weights.safetensors", *beside]),
        ("o/r", ["x/ae.pt", *beside]),
    ]


def test_every_way_gives_the_same_digest(hub, tmp_path):
    root, _ = hub
    made = LAYOUTS["marks"]
    folder = made.write(tmp_path / "local")
    made.write(root / "o/r")
    archive = zipped(folder, tmp_path / "all.zip", "")
    sources = [folder, folder / "ae.pt", f"{archive}/ae.pt", "o/r", "o/r:ae.pt"]
    assert len({load_dictionary(str(s), d_model=WIDTH).digest for s in sources}) == 1


def test_names_without_numbers():
    assert load_dictionary("identity", d_model=7).kind == "identity"
    found = load_dictionary("none", d_model=7)
    assert (found.kind, found.n_features, found.d_model) == ("none", 0, 7)


# --- our own files ------------------------------------------------------------------------------
OWN = {
    "relu": lambda *parts: Relu(*parts),
    "relu-uncentred": lambda *parts: Relu(*parts, centred=False),
    "topk": lambda *parts: TopK(*parts, K),
    "topk-uncentred": lambda *parts: TopK(*parts, K, centred=False),
    "linear": lambda *_: Linear.of_basis(
        torch.from_numpy(np.random.default_rng(1).normal(size=(5, 5))).float()
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_what_is_saved_is_what_is_loaded(name, tmp_path):
    dictionary = OWN[name](*(torch.from_numpy(a).float() for a in (ENC, H, DEC, B)))
    save_dictionary(dictionary, tmp_path / "mine.safetensors")
    (tmp_path / "config.json").write_text('{"normalize_activations": "layer_norm"}')  # not ours
    found = load_dictionary(str(tmp_path / "mine.safetensors"), d_model=WIDTH)
    assert found.digest == dictionary.digest
    assert type(found) is type(dictionary)


def test_kinds_that_are_never_trained_are_not_written(tmp_path):
    found = load_dictionary(str(LAYOUTS["gated"].write(tmp_path / "g")), d_model=WIDTH)
    with pytest.raises(DictionaryError, match="'gated' are not written"):
        save_dictionary(found, tmp_path / "mine.safetensors")
