"""A folder whose files are not the model that its config says: refused by name, before work."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgesweep.engine.model import ChangedError, ModelError, load_model, resolve_model
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network.architectures import ARCHITECTURES

MAP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama."""
    return _saved("llama", tmp_path / "mine")


def _saved(kind, folder, **how):
    tiny_model(kind).hf.save_pretrained(folder, **how)
    return folder


def _change(folder, **tensors):
    """Write the weights again with some others; None leaves one out."""
    file = folder / "model.safetensors"
    found = {**load_file(file), **tensors}
    save_file({k: v for k, v in found.items() if v is not None}, file, {"format": "pt"})


def _refused(folder, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(str(folder))
    assert str(caught.value).startswith(f"model {str(folder)!r}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_renamed_tensor_is_named_on_both_sides(folder):
    weight = load_file(folder / "model.safetensors")[MAP]
    _change(folder, **{MAP: None, "model.layers.1.mlp.upp.weight": weight})
    _refused(folder, rf"its files lack {MAP}; .* no part of the model: model.layers.1.mlp.upp.weig")


def test_missing_tensors_are_counted(folder):
    named = [n for n in load_file(folder / "model.safetensors") if ".layers.2." in n]
    _change(folder, **dict.fromkeys(named))
    _refused(folder, rf"its files lack model.layers.2.*, .* and {len(named) - 4} more$")


def test_a_tensor_of_another_shape(folder):
    _change(folder, **{MAP: torch.ones(3, 5)})
    _refused(folder, rf"shapes do not fit its config: {MAP} is \(3, 5\), not \(64, 32\)")


def test_tensors_of_another_model(folder):
    _change(folder, **{"vision.patch.weight": torch.ones(2)})
    _refused(folder, "hold what is no part of the model: vision.patch.weight")


def test_a_missing_unembedding_is_no_tied_one(folder):
    _change(folder, **{"lm_head.weight": None})
    _refused(folder, "its files lack lm_head.weight")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_family_loads_as_it_was_saved(kind, tmp_path):
    model = load_model(resolve_model(str(_saved(kind, tmp_path / kind))))
    theirs = tiny_model(kind).hf.state_dict()
    assert all(torch.equal(ours, theirs[name]) for name, ours in model.hf.state_dict().items())


def test_old_checkpoints_of_gpt2_load(tmp_path):
    """As on the hub: no prefix, masks among the weights, the unembedding tied."""
    folder = _saved("gpt2", tmp_path / "gpt2")
    found = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("transformer."): tensor for name, tensor in found.items()}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64) for i in range(3)}
    masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(3)}
    assert "lm_head.weight" not in found
    save_file({**plain, **masks}, folder / "model.safetensors", {"format": "pt"})
    model = load_model(resolve_model(str(folder)))
    assert torch.equal(model.hf.transformer.wte.weight, found["transformer.wte.weight"])
    assert model.hf.lm_head.weight is model.hf.transformer.wte.weight


def test_old_checkpoints_of_pythia_load(tmp_path):
    folder = _saved("gpt_neox", tmp_path / "pythia")
    first = "gpt_neox.layers.0.attention"
    _change(
        folder,
        **{
            f"{first}.bias": torch.ones(1, 1, 64, 64),
            f"{first}.masked_bias": torch.tensor(-1e9),
            f"{first}.rotary_emb.inv_freq": torch.ones(4),
        },
    )
    load_model(resolve_model(str(folder)))


@pytest.mark.parametrize("kept", [0, 4, 100, -1000, -1])
def test_a_file_cut_short(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    _refused(folder, "its weights cannot be read: .*header")


@pytest.fixture
def shards(tmp_path):
    """The same in several files with an index."""
    folder = _saved("llama", tmp_path / "shards", max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def test_shards_load(shards):
    theirs = tiny_model("llama").hf.state_dict()
    ours = load_model(resolve_model(str(shards))).hf.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_shard_that_is_not_there(shards):
    lost = sorted(shards.glob("*.safetensors"))[1]
    lost.unlink()
    _refused(shards, f"index.json names files that the folder does not have: {lost.name}")


def test_shards_outside_the_folder(shards, tmp_path):
    """The digest is not of them."""
    moved = sorted(shards.glob("*.safetensors"))[1]
    shutil.move(moved, tmp_path / moved.name)
    index = shards / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(moved.name, f"../{moved.name}"))
    _refused(shards, f"does not have: ../{moved.name}")


def test_the_index_is_part_of_the_identity(shards):
    before = resolve_model(str(shards)).digest
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "note": 1}))
    assert resolve_model(str(shards)).digest != before


# --- what is loaded is what was planned with ---------------------------------------------------


def test_weights_exchanged_after_planning_stop_the_run(folder):
    source = resolve_model(str(folder))
    file = folder / "model.safetensors"
    stamp, before = file.stat(), load_file(file)
    _change(folder, **{MAP: before[MAP] + 1})
    assert file.stat().st_size == stamp.st_size
    with pytest.raises(ChangedError, match="are not those that the run was planned") as caught:
        load_model(source)
    assert caught.value.stops_run
    assert str(folder) in str(caught.value)
    _change(folder, **{MAP: before[MAP]})
    load_model(source)


def test_a_folder_that_is_gone_stops_the_run(folder):
    source = resolve_model(str(folder))
    shutil.rmtree(folder)
    with pytest.raises(ChangedError, match=r"is no longer there: .*config\.json"):
        load_model(source)


def test_equal_size_and_time_are_not_identity(folder):
    first = resolve_model(str(folder))
    file = folder / "model.safetensors"
    stamp = file.stat()
    _change(folder, **{MAP: torch.ones(64, 32)})
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    assert resolve_model(str(folder)).digest != first.digest
