"""Interaction graphs of a language model in a sweep."""

from __future__ import annotations

import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import INTERACTIONS, LABELS, SPECTRA, read_table
from tests.sweeps.helpers import run_tiny


@pytest.mark.slow
def test_a_language_model_has_a_variance_of_its_own_and_words(tmp_path):
    raw = {
        "name": "words",
        "sweep": {
            "model": "tiny-random", "task": "ioi", "nodes": ["lib"], "method": "interactions",
        },
        "bases": {
            "norms": "split", "positions": "all", "sources": 1, "n_jacobian": 4,
            "layers": ["resid0.normed", "mid1", "mid1.var"],
        },
        "edges_needed": {"metric": "nll", "within": 0.1, "points": 3, "search": "grid"},
        "data": {"n_build": 8, "n_eval": 4},
        "execution": {"executor": "serial", "micro_batch": 4},
    }  # fmt: skip
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    labels, edges = read_table(run, LABELS), read_table(run, INTERACTIONS)
    assert set(labels.kind) == {"position", "at", "writes"}
    assert labels.share.between(0, 1 + 1e-9).all()
    assert "mid1.var/var" in set(edges.target)
    assert set(read_table(run, SPECTRA).alias) == {"attn_in.1", "ln2.1", "ln2_out.1"}
    page = render(load_run(run.path))
    assert "<h2>What directions of the language model are of</h2>" in page
