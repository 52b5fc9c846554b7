"""What workers load is what was planned with: else the run stops, and says what to put back."""

import shutil

import pytest
import torch

from edgesweep.engine.dictionaries.base import Relu
from edgesweep.engine.dictionaries.files import save_dictionary
from edgesweep.engine.model import resolve_model
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.runtime import ExecutorError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence
from tests.sweeps.helpers import committed, tiny


def _write(file, seed):
    draw = torch.Generator().manual_seed(seed)
    maps = [torch.randn(8, 32, generator=draw) for _ in range(2)]
    save_dictionary(Relu(maps[0], torch.zeros(8), maps[1], torch.zeros(32)), file)


def _stops(raw, out, exchange, message):
    """Nothing of what was exchanged is committed."""
    launch = start(parse_config(raw), out)
    exchange()
    with pytest.raises(ExecutorError, match=message) as caught:
        drive(launch, Silence())
    assert len(str(caught.value).splitlines()) == 1
    return committed(out)


def test_a_model_exchanged_after_planning_stops_the_run(tmp_path):
    """It gave the other's values under the first one's digest."""
    folder = shutil.copytree(resolve_model("tiny-random").path, tmp_path / "mine")
    n_vocab = resolve_model(str(folder)).sizes.n_vocab

    def exchange():
        tiny_model("llama", n_layers=4, n_vocab=n_vocab, seed=1).hf.save_pretrained(folder)

    raw = tiny(sweep={"model": str(folder)})
    message = rf"the files in {folder} are not those that the run was planned with; put"
    assert not any(_stops(raw, tmp_path / "run", exchange, message).values())


def test_a_dictionary_exchanged_after_planning_stops_the_run(tmp_path):
    file = tmp_path / "sae.safetensors"
    _write(file, 0)
    raw = tiny(sweep={"nodes": "features", "method": "ig_activations"}, evaluate={"threshold": [5]})
    raw["features"] = {"dictionaries": {"resid1": str(file)}}
    message = r"dictionary '.*sae.safetensors' of site resid1 is not the one that the run was plan"
    _stops(raw, tmp_path / "run", lambda: _write(file, 1), message)
