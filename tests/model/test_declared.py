"""What edgesweep needs is what it declares: else a fresh machine fails where this one does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from packaging.utils import canonicalize_name

from edgesweep.engine.model.tiny import tiny_model
from tests.model.declared_only import ROOT, closure, declared
from tests.model.tiny_gguf import write_tiny_gguf

SCRIPT = "tests.model.declared_only"
REVERSE = ROOT / "../shared/data/tracr/reverse"


def _load(tmp_path, monkeypatch, *args):
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-m", SCRIPT, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def _llama(folder: Path) -> Path:
    """A safetensors folder with its tokenizer in the form of sentencepiece."""
    tiny_model("llama", n_vocab=300).hf.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the keys to the cabinet are here"] * 9),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=40,
        hard_vocab_limit=False,
        model_type="bpe",
        minloglevel=2,
    )
    return folder


def test_each_kind_of_model_loads_with_declared_packages_only(tmp_path, monkeypatch):
    kinds = {
        write_tiny_gguf(tmp_path / "tiny.gguf"): "llama, tokenizer: True",
        _llama(tmp_path / "folder"): "llama, tokenizer: True",
        "wired-copy": "plain, tokenizer: False",
    }
    if REVERSE.is_dir():
        kinds[REVERSE] = "plain, tokenizer: False"
    done = _load(tmp_path, monkeypatch, *kinds)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(kinds.values())


@pytest.mark.proof
def test_the_model_of_the_wheel_loads_with_declared_packages_only(tmp_path, monkeypatch):
    done = _load(tmp_path, monkeypatch, "smollm2-135m")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "llama, tokenizer: True\n"


@pytest.mark.proof
def test_a_package_that_is_not_declared_is_missed(tmp_path, monkeypatch):
    """As accelerate was: declared nowhere, and hidden by caches."""
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    done = _load(tmp_path, monkeypatch, "--without", "accelerate", file)
    assert done.returncode == 1
    assert re.fullmatch(r"model '.*': the GGUF file cannot be read: .*accelerate.*\n", done.stderr)


def test_constraints_pin_every_package():
    """Transitive ones too, and those of the tests."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    assert closure(declared("dev")) - pinned == {"edgesweep"}  # dev takes its extras
