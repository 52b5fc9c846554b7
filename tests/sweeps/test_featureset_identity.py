"""What of its dictionaries decides whose run a run is."""

import shutil

import pytest

from edgesweep.engine.dictionaries.base import TopK
from edgesweep.engine.dictionaries.files import save_dictionary
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from tests.sweeps.featuresets import TRAINED, config, relu
from tests.sweeps.helpers import run_tiny
from tests.sweeps.test_run import write_own_task


def run_id(dictionaries, **changes) -> str:
    return make_plan(resolve(parse_config(config(dictionaries, **changes)))).run_id


def test_the_run_id_is_of_what_a_dictionary_holds_not_of_where_it_lies(saved, tmp_path):
    moved, other = tmp_path / "elsewhere" / "d.safetensors", tmp_path / "other.safetensors"
    moved.parent.mkdir()
    shutil.copy(saved, moved)
    save_dictionary(relu(1), other)
    assert run_id({"resid1": str(saved)}) == run_id({"resid1": str(moved)})
    different = {
        run_id({"resid1": str(saved)}),
        run_id({"resid1": str(other)}),
        run_id({"resid2": str(saved)}),
        run_id({"resid1": str(saved), "embed": "identity"}),
        run_id({"resid1": str(saved)}, features={"error": "zero"}),
        run_id({"resid1": str(saved)}, features={"keep": 99}),
    }
    assert len(different) == 6


def test_the_run_id_is_of_how_a_dictionary_is_trained():
    ids = [run_id({"resid1": {**TRAINED, **more}}) for more in ({}, {"lr": 0.01}, {"k": 3})]
    assert len(set(ids)) == 3
    assert ids[0] == run_id({"resid1": dict(TRAINED)})


def test_nor_of_where_the_prompts_lie_that_a_dictionary_is_trained_on(tmp_path):
    ids = []
    for folder, first in (("a", 3), ("b", 3), ("c", 4)):
        own = tmp_path / folder / "mine.jsonl"
        own.parent.mkdir()
        write_own_task(own, 12, first)
        ids.append(run_id({"resid1": TRAINED}, sweep={"task": str(own)}))
    assert ids[0] == ids[1] != ids[2]


def test_a_topk_and_a_relu_dictionary_of_the_same_numbers_are_two(tmp_path):
    same = relu()
    topk = TopK(*(same.encoder, same.shift, same.decoder, same.bias), k=2)
    assert topk.digest != same.digest


def test_a_dictionary_that_changed_is_noticed_on_resume(saved, tmp_path):
    out, raw = tmp_path / "run", config({"resid1": str(saved)}, blocks={"fit": "none"})
    assert run_tiny(out, raw).exit_code == 0
    save_dictionary(relu(1), saved)
    with pytest.raises(ConfigError, match=r"it differs in features\.features\.sets\.tiny-random: "):
        start(parse_config(raw), out)
