"""What is stored of scores changes nothing else, and however inputs are cut, sums are the same."""

from __future__ import annotations

import re

import numpy as np
import pytest

import edgesweep
from edgesweep.storage import StorageError, layout
from edgesweep.storage.packing import scores as packing
from edgesweep.storage.readers import aggregate
from edgesweep.storage.tables import MEASURES, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.granularity import heads
from edgesweep.sweeps.plan import rows
from edgesweep.sweeps.stages import bootstrap, reduce
from tests.sweeps.helpers import committed, contents, run_tiny, tiny

SMALL = {"sweep": {"method": "eap"}, "evaluate": {"threshold": [40], "ablation": "edge"}}
KEPT = ({"keep": "none"}, {"keep": 0.1, "bits": 7, "codec": "lz4"}, {"bits": 7, "codec": "zstd"})
#: of a cell, folded
FOLDED = re.compile(r"aggregates\.zarr/[^/]+/([a-z]+/)?(mean|max|rms|mean_abs|max_abs|n|n_bad)/c/0")


def folded(run):
    return {k: v for k, v in contents(run, "aggregates.zarr").items() if FOLDED.fullmatch(k)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_tiny(out, tiny(**SMALL, measures={"bootstrap": 5})).exit_code == 0
    return out


@pytest.mark.parametrize("how", KEPT, ids=lambda how: str(how.get("keep", "all")))
def test_aggregates_and_results_do_not_depend_on_what_is_stored(tmp_path, whole, how):
    out = tmp_path / "run"
    assert run_tiny(out, tiny(**SMALL, measures={"bootstrap": 5}, scores=how)).exit_code == 0
    assert folded(out) == folded(whole)
    assert len(folded(out)) == 21
    assert contents(out, "results.parquet") == contents(whole, "results.parquet")
    run, exact = edgesweep.open(out), edgesweep.open(whole).scores("eap")
    measures = set(read_table(run.directory, MEASURES)["measure"])
    assert ("stability" in measures) == ("keep" not in how)
    assert ("normal_intervals" in measures) == ("keep" in how)
    if how.get("keep") == "none":
        with pytest.raises(StorageError, match=r"scores\.keep is none"):
            run.scores("eap")
        return
    found = run.scores("eap")
    assert found.shape == exact.shape
    there = found.notnull()
    kept = round(0.1 * exact.shape[1]) if "keep" in how else exact.shape[1]
    assert (there.sum("edge") == kept).all()
    assert (abs(found - exact) <= 0.004 * abs(exact)).where(there, True).all()
    assert (run.scores("eap", prompt=1).notnull() == there[1]).all()


@pytest.mark.parametrize("keep", ["some", 0, 1, 1.5, None, True])
def test_a_share_is_a_share(keep):
    with pytest.raises(ConfigError, match=r"scores\.keep.* allowed: all, none, or more than 0"):
        parse_config(tiny(scores={"keep": keep}))


def test_however_inputs_are_cut_the_bits_are_the_same(tmp_path, monkeypatch):
    """16 leaves of one input: shards of one, and of four in subtrees of two, over ranges of edges;
    scores are resampled at once, and a block at a time."""
    monkeypatch.setattr(heads, "SHARD_INPUTS", (1, 1))
    changes = {**SMALL, "data": {"n_build": 8, "n_eval": 2}, "execution": {"shard_inputs": None}}
    runs = {}
    for name, block in (("one", 1), ("four", 4)):
        if name == "four":
            monkeypatch.setattr(rows, "MIN_SHARDS", 1)
            monkeypatch.setattr(reduce, "SUBTREE", 2)
            monkeypatch.setattr(reduce, "RANGE", 128)
            monkeypatch.setattr(packing, "CHUNK_BYTES", 640)
            monkeypatch.setattr(bootstrap, "AT_ONCE", 1)
            monkeypatch.setattr(bootstrap, "RANGE", 100)
        raw = tiny(**changes, scores={"block": block}, measures={"bootstrap": 5})
        out = tmp_path / name
        assert run_tiny(out, raw).exit_code == 0
        runs[name] = out
    done = {name: committed(out) for name, out in runs.items()}
    assert len(done["one"]["attribute"]) == 16
    assert len(done["four"]["attribute"]) == 4
    assert "subtrees" not in done["one"]
    assert len(done["four"]["subtrees"]) > 2
    assert len(done["four"]["reduce"]) > 3
    assert len(done["four"]["bootstrap"]) > 2
    one, four = (edgesweep.open(out) for out in runs.values())
    for subset in ("", "/ioi", "/agreement"):
        for name in ("mean", "rms", "max", "n"):
            values = [_folded(run, subset, name) for run in (one, four)]
            assert values[0].tobytes() == values[1].tobytes()
    assert contents(runs["one"], "results.parquet") == contents(runs["four"], "results.parquet")
    for name in (layout.INTERVAL, layout.STABILITY):
        at_once, in_parts = (_folded(run, "", name) for run in (one, four))
        np.testing.assert_allclose(in_parts, at_once, rtol=1e-9)


def _folded(run, subset, name):
    return aggregate(run.directory, f"{run.cells['key'][0]}{subset}", name)
