"""Circuits that a config gives: run beside found ones, under the same conditions."""

import json
import re

import numpy as np
import pytest

import edgesweep as es
from edgesweep.dashboards.report import pages
from edgesweep.sweeps.config.load import ConfigError, load_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.plan.estimates import describe
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.progress import Silence
from tests.sweeps.helpers import tiny

CONDITION = ["subset", "ablation", "eval_patch", "metric"]
VALUES = ["n_nodes", "n_edges", "value", "value_full", "value_empty", "faithfulness"]


def run_of(raw, out):
    assert drive(start(load_config(raw), out), Silence()).exit_code == 0
    return es.open(out)


def test_a_found_circuit_that_is_given_back_has_its_values(tmp_path):
    """As JSON, in other tools' names and as a bare list, in node ablation too."""
    raw = tiny(
        sweep={"method": "eap"},
        evaluate={"threshold": [5, 40], "eval_patch": ["counterfactual", "mean"]},
        data={"mean_positions": "pooled"},
    )
    first = run_of(raw, tmp_path / "first")
    found = first.circuit("eap", threshold=40)
    found.to_json(tmp_path / "ours.json")
    named = [re.sub(r"\.q$", "<q>", edge.replace("embed->", "input->")) for edge in found.edges]
    theirs = {edge: {"score": 1.0, "in_graph": True} for edge in named}
    (tmp_path / "eap-ig.json").write_text(json.dumps({"cfg": {}, "nodes": {}, "edges": theirs}))
    files = [str(tmp_path / name) for name in ("ours.json", "eap-ig.json")]
    raw["evaluate"]["circuits"] = files
    second = run_of(raw, tmp_path / "second")

    rows = second.results.query("method == 'given'")
    wanted = first.results.query("circuit == @found.name").set_index(CONDITION)[VALUES]
    assert rows["circuit"].nunique() == 2
    for _, mine in rows.groupby("circuit"):
        mine = mine.set_index(CONDITION)[VALUES].loc[wanted.index]
        assert (np.abs(mine - wanted).max() <= 1e-5 * np.abs(wanted).max()).all()  # other batches
    others = second.results.query("method == 'eap'")[VALUES].reset_index(drop=True)
    assert others.equals(first.results[VALUES].reset_index(drop=True))
    for _, edges in second.circuits[second.circuits["cell"].str.startswith("given")].groupby(
        "circuit"
    ):
        assert set(edges["source"] + "->" + edges["target"]) == set(found.edges)
    assert "ours" not in str(second.directory.plan["identity"])  # its edges are, not its path


def test_a_known_circuit_is_evaluated_as_directly(tmp_path):
    raw = tiny(
        sweep={"model": "wired-induction", "task": "own", "method": "eap"},
        evaluate={"circuits": "known", "threshold": [5], "eval_patch": ["counterfactual", "zero"]},
    )
    run = run_of(raw, tmp_path / "run")
    rows = run.results.query("method == 'given'")
    assert len(rows) == 2 * 2 * 2
    for row in rows.to_dict("records"):
        direct = es.evaluate(
            "wired-induction",
            "own",
            "known",
            n=4,
            **{name: row[name] for name in ("ablation", "eval_patch", "metric")},
        )
        (point,) = direct.to_dict("records")
        np.testing.assert_allclose(
            [row[name] for name in VALUES], [point[name] for name in VALUES], rtol=1e-4, atol=1e-6
        )
    best = rows.query("ablation == 'edge' and metric == 'logit_diff'").set_index("eval_patch")
    assert best.loc["counterfactual", "faithfulness"] == pytest.approx(1.0, abs=1e-3)
    (cell,) = run.cells.query("method == 'given'").to_dict("records")
    assert cell["given"] == run.known["known"].iloc[0]
    assert f"given · {cell['given']}" in dict(pages(run.path))["report.html"].decode()


def test_a_circuit_is_known_by_its_edges(tmp_path):
    """Another path with the same edges is the same run; other edges are another."""
    first, other = tmp_path / "a" / "mine.json", tmp_path / "b" / "mine.json"
    for file in (first, other):
        file.parent.mkdir()
        file.write_text('["embed->a0.h0.q", "a0.h0->logits"]')
    raw = tiny(sweep={"method": "eap", "task": "ioi"}, evaluate={"circuits": str(first)})
    launch = start(load_config(raw), tmp_path / "run")
    raw["evaluate"]["circuits"] = str(other)
    assert start(load_config(raw), tmp_path / "run").plan.run_id == launch.plan.run_id
    assert "heads, given mine, counterfactual" in describe(launch.plan)
    other.write_text('["embed->a0.h0.q"]')
    with pytest.raises(ConfigError, match=r"holds another run .*circuits\.tiny-random/ioi\.mine"):
        start(load_config(raw), tmp_path / "run")


@pytest.mark.parametrize(
    ("circuits", "what"),
    [
        ("gone.json", r"'/.*/gone\.json' for tiny-random: circuit .* cannot be read: No such file"),
        ("bad.json", r"bad\.json' for tiny-random: circuit .* is none that we read"),
        (
            "other.json",
            r"for tiny-random: edge 'a9\.h0->logits': there is no 'a9\.h0' in this graph; the",
        ),
        (
            "known",
            "'known': no circuit of tiny-random on ioi is known; leave it out, or give a file",
        ),
        ([], r"evaluate\.circuits: \[\] is empty"),
    ],
)
def test_what_is_no_circuit_of_the_model_is_refused(tmp_path, monkeypatch, circuits, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "other.json").write_text('["a9.h0->logits"]')
    raw = tiny(sweep={"method": "eap", "task": "ioi"}, evaluate={"circuits": circuits})
    with pytest.raises(ConfigError, match=what) as told:
        resolve(load_config(raw))
    assert str(told.value).startswith("evaluate.circuits: ")
    assert "\n" not in str(told.value)


def test_circuits_over_heads_need_heads(tmp_path):
    raw = tiny(
        sweep={"nodes": "features", "task": "ioi", "method": "eap"},
        features={"dictionaries": {"resid1": "identity"}},
        evaluate={"circuits": "known"},
    )
    with pytest.raises(
        ConfigError, match=r"evaluate\.circuits: \['known'\] are over heads and MLPs"
    ):
        resolve(load_config(raw))
