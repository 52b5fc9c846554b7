"""Cache folders: known by the content that they are made of, and whole or made anew."""

import os

import pytest
import torch
from safetensors.torch import load_file

from edgesweep.engine.model import ModelError, load_model, resolve_model
from edgesweep.engine.model.cache import cached
from tests.model.tiny_gguf import write_tiny_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path / "cache"))


def _flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "a flipped bit": lambda folder: _flip_a_bit(folder / "model.safetensors"),
    "half a file": lambda folder: os.truncate(folder / "model.safetensors", 5000),
    "a file that is gone": lambda folder: (folder / "tokenizer.json").unlink(),
    "a file too many": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "a folder from before": lambda folder: (folder / "sha256.json").unlink(),
    "half of what it should be": lambda folder: os.truncate(folder / "sha256.json", 20),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_made_anew(damage):
    first = resolve_model("tiny-random")
    before = {file.name: file.read_bytes() for file in first.path.iterdir()}
    DAMAGES[damage](first.path)
    assert resolve_model("tiny-random") == first
    assert {file.name: file.read_bytes() for file in first.path.iterdir()} == before
    assert [f.name for f in first.path.parent.iterdir()] == [first.path.name]  # nothing beside it


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("written")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cached("some", fail)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_gguf_of_equal_size_and_time_is_another(tmp_path):
    file = write_tiny_gguf(tmp_path / "m.gguf")
    stamp = file.stat()
    first = resolve_model(str(file))
    write_tiny_gguf(file, seed=1)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    second = resolve_model(str(file))
    assert second.digest != first.digest
    weights = load_file(second.path / "model.safetensors")
    model = load_model(second)
    assert torch.equal(model.hf.lm_head.weight, weights["lm_head.weight"])


def test_a_touched_gguf_is_the_same(tmp_path):
    file = write_tiny_gguf(tmp_path / "m.gguf")
    first = resolve_model(str(file))
    os.utime(file, ns=(1, 1))
    assert resolve_model(str(file)) == first


def test_the_cache_of_the_wheel_follows_its_file(tmp_path, monkeypatch):
    """An upgraded wheel was hidden by the folder of the one before."""
    file = write_tiny_gguf(tmp_path / "smollm2.gguf")
    monkeypatch.setattr("edgesweep.engine.model.loading._smollm2_file", lambda: file)
    first = resolve_model("smollm2-135m")
    write_tiny_gguf(file, seed=1)
    assert resolve_model("smollm2-135m").digest != first.digest


def test_a_gguf_without_a_tensor(tmp_path):
    """Its place would be filled at random."""
    file = write_tiny_gguf(tmp_path / "m.gguf", without="blk.1.ffn_up.weight")
    lacks = r"its files lack model\.layers\.1\.mlp\.up_proj\.weight$"
    with pytest.raises(ModelError, match=lacks):
        resolve_model(str(file))


@pytest.mark.parametrize("kept", [0, 3, 100, 2000, -1])
def test_a_gguf_cut_short(kept, tmp_path):
    file = write_tiny_gguf(tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match="the GGUF file cannot be read: ") as caught:
        resolve_model(str(file))
    assert len(str(caught.value).splitlines()) == 1
