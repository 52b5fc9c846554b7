"""Folders of nonsense, and of ill will: one line, no code of theirs run, nothing asked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgesweep.engine.model import ModelError, resolve_model
from edgesweep.engine.model.tiny import write_tiny_random

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_tiny_random(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    """A model with a tokenizer, to be spoiled."""
    return Path(shutil.copytree(good, tmp_path / "mine"))


def _refused(folder, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(str(folder))
    assert str(caught.value).startswith(f"model {str(folder)!r}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700


CONFIG = "its config cannot be"
TOKENIZER = "its tokenizer cannot be read"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": "wide"}, f"{CONFIG} read: .*hidden_size"),
        ({"num_hidden_layers": [3]}, f"{CONFIG} read: .*num_hidden_layers"),
        ({"num_hidden_layers": 10**30}, "tensors in all"),
        ({"num_attention_heads": 0}, "."),
        ({"num_key_value_heads": 3}, "."),
        ({"vocab_size": -1}, "."),
        ({"hidden_size": 10**30}, "."),
        ({"hidden_act": "nonsense"}, "nonsense"),
        ({"dtype": 0}, f"{CONFIG} used: "),
        ({"rope_parameters": 3}, "."),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized weights are not"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized weights are not"),
        ({"model_type": ["llama"]}, f"{CONFIG} read: "),
        ({"model_type": 3}, f"{CONFIG} read: "),
    ],
    ids=str,
)
def test_fields_of_the_wrong_type(folder, fields, message):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    _refused(folder, message)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", "[" * 200_000, "\0\xff"])
def test_a_config_that_is_none(folder, text):
    (folder / "config.json").write_text(text, encoding="latin1")
    _refused(folder, f"{CONFIG} read")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 200_000, "\0\xff"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_none(folder, name, text):
    (folder / name).write_text(text, encoding="latin1")
    _refused(folder, TOKENIZER)


def test_a_tokenizer_without_its_words(folder):
    """The library would make one that knows no word."""
    (folder / "tokenizer.json").unlink()
    _refused(folder, TOKENIZER)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_in_place_of_a_file(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    _refused(folder, "cannot be read")


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none(folder, text):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    _refused(folder, "index.json")


def test_weights_of_another_name(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    _refused(folder, "its weights cannot be read: .*model.safetensors")


# --- ill will ----------------------------------------------------------------------------------


TRAP = "from pathlib import Path\nPath({proof!r}).write_text('executed')\nclass Evil: ...\n"
SCRIPT = """
import sys
from edgesweep.engine.model import ModelError, load_model, resolve_model
for folder in sys.argv[1:]:
    try:
        load_model(resolve_model(folder))
        print("loaded")
    except ModelError as error:
        print(error)
"""
CONFIGS = ("config.json", "tokenizer_config.json")
TRAPS = {
    "config": ({"auto_map": {"AutoConfig": "evil.Evil"}}, {}),
    "model": ({"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}, {}),
    "tokenizer": ({}, {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
    "class": ({}, {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}),
    "type": ({"auto_map": {"AutoConfig": "evil.Evil"}, "model_type": "evil"}, {}),
}


def test_code_in_a_folder_is_not_run(good, tmp_path):
    """Whatever is answered to a question: none is asked."""
    proof = tmp_path / "proof"
    for trap, changes in TRAPS.items():
        folder = Path(shutil.copytree(good, tmp_path / trap))
        (folder / "evil.py").write_text(TRAP.format(proof=str(proof)))
        for name, change in zip(CONFIGS, changes, strict=True):
            before = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({**before, **change}))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(str(tmp_path / trap) for trap in TRAPS)],
        cwd=ROOT,
        input="y\n" * 9,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert not proof.exists()
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    *loaded, refused = done.stdout.splitlines()
    assert len(loaded) == len(TRAPS) - 1
    assert loaded[:2] == ["loaded", "loaded"]
    assert refused.startswith(f"model {str(tmp_path / 'type')!r}: its config cannot be read: ")
