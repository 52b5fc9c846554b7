"""Methods against circuits that are known by construction, through the whole engine."""

from pathlib import Path

import numpy as np
import pytest

from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import KNOWN, MEASURES, ROC, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start
from tests.sweeps.helpers import run_tiny, tiny

REVERSE = Path(__file__).parents[3] / "shared" / "data" / "tracr" / "reverse"
TRUE_ON_REVERSE = ["embed->a3.kv0.v", "a3.h0->logits"]


def config(model: str, patch: str) -> dict:
    return tiny(
        sweep={
            "model": model,
            "task": "own",
            "method": ["ig_inputs", "ig_activations", "exact", "acdc", "node_exact", "random"],
            "steps": 5,
            "tau": {"log": [0.001, 1, 3]},
            "build_patch": patch,
        },
        evaluate={"threshold": [2, 10], "eval_patch": patch, "ablation": "edge"},
        data={"n_build": 16, "n_eval": 8},
        execution={"micro_batch": 16, "shard_inputs": 8},
        measures={"bootstrap": 0},
    )


def areas(out: Path) -> dict[str, float]:
    found = read_table(RunDirectory.open(out), MEASURES).query("measure == 'roc_auc'")
    return dict(zip(found["method"], found["value"], strict=True))


@pytest.mark.parametrize("model", ["wired-induction", "wired-copy", "wired-decoy"])
def test_exact_patching_and_acdc_find_what_was_wired(tmp_path, model):
    assert run_tiny(tmp_path / "run", config(model, "counterfactual")).exit_code == 0
    found = areas(tmp_path / "run")
    assert found["exact"] == found["node_exact"] == found["acdc"] == 1.0
    assert found["random"] < 0.9
    curves = read_table(RunDirectory.open(tmp_path / "run"), ROC)
    for _, curve in curves.groupby(["cell", "aggregation", "selection"]):
        assert curve["fpr"].is_monotonic_increasing
        assert (curve["tpr"].iloc[0], curve["tpr"].iloc[-1]) == (0, 1)


@pytest.mark.skipif(not REVERSE.exists(), reason=f"no golden data at {REVERSE}")
def test_every_method_finds_the_circuit_of_a_compiled_program(tmp_path):
    """Area at least 0.99 under resample ablation."""
    assert run_tiny(tmp_path / "run", config(str(REVERSE), "resample")).exit_code == 0
    true = read_table(RunDirectory.open(tmp_path / "run"), KNOWN)
    assert sorted(true["source"] + "->" + true["target"]) == sorted(TRUE_ON_REVERSE)
    found = areas(tmp_path / "run")
    for method in ("ig_inputs", "ig_activations", "exact", "acdc"):
        assert found[method] >= 0.99


def test_a_known_circuit_is_as_faithful_as_the_model(tmp_path):
    """The true edges alone do the task: exact patching's first circuits reach φ = 1."""
    assert run_tiny(tmp_path / "run", config("wired-copy", "counterfactual")).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    n_true = len(read_table(run, KNOWN))
    table = read_table(run, MEASURES).query("measure == 'edges_95' and method == 'exact'")
    assert np.isfinite(table["value"]).all()
    assert n_true <= 10


def test_a_model_without_prompts_of_its_own_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"sweep.task: .*own"):
        start(parse_config(config("tiny-random", "counterfactual")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
