"""Interaction graphs of a language model in a sweep, on prompts and on running text."""

from __future__ import annotations

import json
import random

import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.engine.model.tiny import tiny_model, word_tokenizer
from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import INTERACTIONS, LABELS, RESULTS, SPECTRA, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config, parse_config
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.tasks import vocabulary
from tests.sweeps.helpers import run_tiny, tiny

WORDS = {
    "name": "words",
    "sweep": {"model": "tiny-random", "task": "ioi", "nodes": ["lib"], "method": "interactions"},
    "bases": {
        "norms": "split", "positions": "all", "sources": 1, "n_jacobian": 4,
        "layers": ["resid0.normed", "mid1", "mid1.var"],
    },
    "edges_needed": {"metric": "nll", "within": 0.1, "points": 3, "search": "grid"},
    "data": {"n_build": 8, "n_eval": 4},
    "execution": {"executor": "serial", "micro_batch": 4},
}  # fmt: skip


@pytest.fixture
def text(tmp_path):
    """A text of words that the tiny models know."""
    draw, path = random.Random(0), tmp_path / "my.txt"
    known = [word for word in vocabulary() if word.startswith(" ") and word.strip()]
    path.write_text("The" + "".join(draw.choices(known, k=600)), encoding="utf-8")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ioi", "text"])
def test_a_language_model_has_a_variance_of_its_own_and_words(task, text, tmp_path):
    raw = WORDS | {"sweep": WORDS["sweep"] | ({"task": text} if task == "text" else {})}
    raw["data"] = raw["data"] | {"context": 16}
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    labels, edges = read_table(run, LABELS), read_table(run, INTERACTIONS)
    assert set(labels.kind) == {"position", "at", "writes"}
    assert labels.share.between(0, 1 + 1e-9).all()
    assert "mid1.var/var" in set(edges.target)
    assert set(read_table(run, SPECTRA).alias) == {"attn_in.1", "ln2.1", "ln2_out.1"}
    page = render(load_run(run.path))
    assert "<h2>What directions of the language model are of</h2>" in page


def test_heads_are_scored_on_a_text_too(text, tmp_path):
    raw = tiny(
        sweep={"task": text, "method": "eap", "build_metric": ["logit_diff", "nll"]},
        evaluate={
            "threshold": [5], "metric": ["kl", "nll"],
            "eval_patch": ["counterfactual", "resample", "mean"],
        },
        data={"context": 8},
    )  # fmt: skip
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    results = read_table(RunDirectory.open(tmp_path / "run"), RESULTS)
    assert set(results.task) == {"my"}
    assert results.value.notna().all()


def gpt_neo(folder, tokenizer=True, **sizes) -> str:
    """A random model of TinyStories' family that knows the words."""
    words = word_tokenizer()
    tiny_model("gpt_neo", n_vocab=len(words), **sizes).hf.save_pretrained(folder)
    if tokenizer:
        words.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_the_preset_of_tinystories_runs_on_random_weights_of_its_family(text, tmp_path):
    raw = load_config("tinystories-lib").model_dump(mode="json")
    raw["sweep"] |= {"model": gpt_neo(tmp_path / "neo", n_layers=2, width=8), "task": text}
    raw["bases"]["n_jacobian"], raw["edges_needed"] = 2, {"metric": "nll", "within": 9.0}
    raw |= {"execution": {"executor": "serial"}, "modules": {"leiden": False}}
    raw["data"] |= {"n_build": 24, "n_eval": 2, "context": 16}
    raw["measures"]["bootstrap"] = 0
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    norms = [f"{of}{part}" for of in ("embed", "mid0", "resid0", "mid1", "resid1")
             for part in ("", ".var", ".normed")]  # fmt: skip
    assert set(read_table(RunDirectory.open(tmp_path / "run"), SPECTRA).layer) == {*norms}


def refused(raw) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(parse_config(raw))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_windows_that_cannot_be_had_are_one_line(text, tmp_path):
    assert "my.txt has 9 different windows of 64 tokens" in refused(
        tiny(sweep={"task": text}, data={"n_build": 6})
    )
    model = gpt_neo(tmp_path / "neo", n_layers=1)
    raw = tiny(sweep={"task": text, "model": model}, data={"n_build": 2, "n_eval": 2})
    raw["data"]["context"] = 65
    assert "'my' has a prompt of 65 tokens; model 'neo' reads at most 64" in refused(raw)
    raw["sweep"]["model"] = gpt_neo(tmp_path / "mute", tokenizer=False, n_layers=1, width=16)
    assert "sweep.task: task my needs a tokenizer and this model has none" in refused(raw)


def test_nll_without_next_tokens_is_refused(tmp_path):
    lines = [{"clean": [i], "patch": [i + 1], "good": 0, "bad": 1} for i in range(2, 60)]
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model = gpt_neo(tmp_path / "neo", tokenizer=False, n_layers=1, width=8)
    raw = WORDS | {"sweep": WORDS["sweep"] | {"model": model, "task": f"{tmp_path}/one.jsonl"}}
    raw |= {"bases": {"positions": "all", "layers": ["embed", "mid0"]}}
    raw["data"] = {"n_build": 30, "n_eval": 4}
    assert "edges_needed.metric: nll at all positions is of next tokens, and a prompt of 'one'" in (
        refused(raw)
    )
