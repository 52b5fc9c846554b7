"""Sweeps from Python, and README's own lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgesweep as es
from edgesweep.sweeping import LineProgress
from edgesweep.sweeps.config.fields import ConfigError
from tests.sweeps.helpers import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_readmes_lines_run(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## From Python\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    told = (
        "\nassert len(curve) and dict(heads.edges)"
        "\nassert again == circuit and scores['edge'].size > 300"
        "\nassert list(found['metric']) == ['logit_diff', 'kl']"
        "\nassert run.status['state'] == 'done' and len(run.prompts('eap'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + told],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/smoke/report.html").is_file()
    assert (tmp_path / "circuit.graphml").is_file()


def test_a_sweep_of_plain_values_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tiny(sweep={"method": "eap", "task": "ioi"})
    run = es.sweep(raw, evaluate={"threshold": [5], "metric": "kl"}, name="changed")
    assert run.path == Path("runs/changed")
    assert run.results["threshold"].unique().tolist() == [5]
    assert raw == tiny(sweep={"method": "eap", "task": "ioi"})
    before = (run.path / "results.parquet").read_bytes()
    again = es.sweep(
        raw, "runs/changed", evaluate={"threshold": [5], "metric": "kl"}, name="changed"
    )
    assert (again.path / "results.parquet").read_bytes() == before
    with pytest.raises(ConfigError, match="holds another run"):
        es.sweep(raw, "runs/changed")


def test_a_wrong_config_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="config 'smok' is no file and no preset"):
        es.sweep("smok")
    with pytest.raises(ConfigError, match=r"data\.n_build: 'x' is not a whole number"):
        es.sweep("smoke", data={"n_build": "x"})
    with pytest.raises(ConfigError, match="unknown key 'dat'"):
        es.sweep("smoke", dat={"n_build": 1})
    assert not list(tmp_path.iterdir())


def test_a_notebook_has_one_line(capsys):
    progress = LineProgress()
    progress.begin({"attribute": "attribution"}, {"attribute": 3}, {"attribute": 1})
    progress.tick("attribute")
    progress.tick("attribute", failed=True)
    progress.end()
    out = capsys.readouterr().out
    assert out.startswith("2 shards (attribution 2), 1 there already\n\rshards: 2/3, ")
    assert out.count("\n") == 2
    assert out.endswith("1 quarantined\n")
