"""A model with weights that are not finite beside a sound one: its numbers are counted and said,
and the other's are what they are without it."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.model.tiny import write_tiny_random
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.tables import MEASURES, RESULTS, read_table
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.notfinite import plain
from edgesweep.sweeps.progress import PlainProgress
from tests.sweeps.helpers import BLOCKS, run_tiny, tiny


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder of weights one of which is infinite."""
    folder = tmp_path_factory.mktemp("models") / "broken"
    write_tiny_random(folder)
    file = folder / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.inf
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    return folder


def config(*models) -> dict:
    return tiny(
        sweep={"model": [str(m) for m in models]},
        measures={"minimality": 5, "interpolate": 2, "fractions": 2, "bootstrap": 20},
        blocks=BLOCKS if find_interpreter() else {},
        evaluate={"eval_patch": ["counterfactual", "mean"], "aggregation": ["mean", "rms"]},
        data={"mean_positions": "pooled"},
    )


def test_a_model_that_yields_nan_costs_the_others_nothing(broken, tmp_path, capsys):
    out = tmp_path / "run"
    launch = start(parse_config(config("tiny-random", broken)), out)
    outcome = drive(launch, PlainProgress())
    printed = capsys.readouterr().out
    assert not any(shard.startswith("evaluate") for shard in outcome.quarantined)
    run = RunDirectory.open(out)
    table = read_table(run, RESULTS)
    assert run_tiny(tmp_path / "alone", config("tiny-random")).exit_code == 0
    alone = read_table(RunDirectory.open(tmp_path / "alone"), RESULTS)
    mine = table[table["model"] == "tiny-random"].reset_index(drop=True)
    assert mine.equals(alone)
    theirs = table[(table["model"] != "tiny-random") & (table["metric"] == "kl")]
    assert len(theirs)
    assert theirs["faithfulness"].isna().all()
    others = {c["key"] for c in run.plan["cells"] if c["model"] != "tiny-random"}
    found = read_table(run, MEASURES)
    of_broken = found[found["cell"].isin(others)]
    areas = of_broken[of_broken["measure"].isin(["area_log", "cpr", "cmd"])]
    assert areas["value"].isna().all()

    records = list(CommitLog(run).records("evaluate"))
    assert sum(r["bad"].get("kl", 0) for r in records) > 0
    events = [e for e in run.read_log() if e["event"] == "not_finite"]
    assert {e["stage"] for e in events} >= {"attribute", "evaluate"}
    told = [line for line in printed.splitlines() if "are not finite in" in line]
    assert len(told) == 3  # its two cells, and its references
    assert all("broken" in line and "values of" in line for line in told)
    skills = [e for e in run.read_log() if e["event"] == "skill"]
    assert [e["logit_diff"] is None for e in skills] == ["broken" in e["model"] for e in skills]


def test_what_json_lacks_is_none():
    given = {"a": [1.0, np.nan, {"b": float("inf")}], "c": (2, -np.inf), "d": "x"}
    assert plain(given) == {"a": [1.0, None, {"b": None}], "c": [2, None], "d": "x"}
    assert json.dumps(plain(np.float64(np.nan))) == "null"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_faithfulness_of_what_is_not_finite_is_nan(bad):
    for means in ((bad, 1.0, 0.0), (1.0, bad, 0.0), (1.0, 0.0, bad)):
        assert np.isnan(faithfulness(*means))
