"""A tiny run from config to tables: its numbers by hand, stopped and resumed, and what is said."""

import json
import signal
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.evaluation import evaluate_circuits, evaluate_reference, faithfulness
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model import load_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import make_patch, mean_partials
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import open_array
from edgesweep.storage.readers import evaluation, scores
from edgesweep.storage.tables import BLOCKS as BLOCKS_TABLE
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.circuits import ran_mask, read_selected
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.command.watching import run_status
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, reopen, start
from edgesweep.sweeps.progress import PlainProgress, Silence
from edgesweep.sweeps.stages.blockmodels import blocks
from edgesweep.sweeps.stages.registry import STAGES
from edgesweep.sweeps.stopping import Stopper
from tests.sweeps.helpers import (
    BLOCKS,
    DATA,
    Faulty,
    assert_ran_is_what_was_counted,
    committed,
    contents,
    run_tiny,
    tiny,
)

MEANS = {"evaluate": {"eval_patch": ["counterfactual", "mean", "zero"]}}
NEEDS_GRAPH_TOOL = pytest.mark.skipif(
    find_interpreter() is None, reason="no graph-tool on this machine"
)


# --- one number, from the prompt to the row -----------------------------------------------------


def test_rows_are_what_the_engine_gives_by_hand(tmp_path):
    """Scores, masks, values and faithfulness against direct calls; means included."""
    raw = tiny(**MEANS, data={"mean_positions": "pooled"}, sweep={"method": "eap"})
    out = tmp_path / "run"
    launch = start(parse_config(raw), out)
    assert drive(launch, Silence()).exit_code == 0
    plan, run = launch.plan, launch.run
    cell = plan.cells[0]
    dataset, graph = plan.dataset(cell), plan.model(cell).graph
    model = load_model(plan.model(cell).source)

    build = PromptBatch.make(dataset.data.build)
    mine = METHODS["eap"].attribute(
        model, build, make_patch("counterfactual"), "logit_diff", Settings()
    )
    rows, stored = scores(run, cell.key)
    assert rows.tolist() == list(range(8))
    np.testing.assert_allclose(stored, mine.scores.numpy(), rtol=1e-4, atol=1e-5)

    spec = plan.circuits(cell)[1]
    order = np.argsort(-np.abs(stored.astype(np.float64).mean(0)), kind="stable")
    assert sorted(order[:40]) == np.flatnonzero(read_selected(run, cell)[spec.key]).tolist()
    edges = read_table(run, CIRCUITS).query("circuit == @spec.key")
    assert edges["edge"].tolist() == sorted(order[:40])
    assert edges["source"].iloc[0] == graph.sources[graph.edge_source[edges["edge"].iloc[0]]]

    partials = mean_partials(model, dataset.data.build, pooled=True, over="patch", micro_batch=8)
    means = {group: partial.mean() for group, partial in partials.items()}
    table = read_table(run, RESULTS)
    batch = PromptBatch.make(dataset.data.evaluation)
    for condition in plan.conditions():
        patch = make_patch(condition.eval_patch, means, pooled=True)
        mask = ran_mask(plan.nodes(cell), graph, read_selected(run, cell)[spec.key], condition)
        value = evaluate_circuits(model, batch, mask[None], patch, ["kl"])["kl"][0]
        full, empty = (r["kl"] for r in evaluate_reference(model, batch, patch, ["kl"]))
        _, stored = evaluation(run, spec.key, condition.key, "kl")
        np.testing.assert_allclose(stored, value, rtol=1e-3, atol=1e-6)
        mine = table.query(
            "circuit == @spec.key and ablation == @condition.ablation and metric == 'kl' and "
            "eval_patch == @condition.eval_patch"
        ).set_index("subset")
        assert list(mine.index) == ["agreement", "all", "ioi", "macro", "worst"]
        for subset, at in [("all", slice(0, 8)), ("ioi", slice(0, 4)), ("agreement", slice(4, 8))]:
            row = mine.loc[subset]
            assert row["n_inputs"] == at.stop - at.start
            assert row["value"] == pytest.approx(value[at].mean(), rel=1e-3, abs=1e-6)
            phi = faithfulness(row["value"], row["value_full"], row["value_empty"])
            assert row["faithfulness"] == pytest.approx(phi, nan_ok=True)
            assert row["value_empty"] == pytest.approx(empty[at].mean(), rel=1e-3, abs=1e-6)
            assert row["value_full"] == pytest.approx(full[at].mean(), abs=1e-6)
        assert mine["n_edges"].iloc[0] == mask.sum()


def test_results_are_keyed_and_sorted(calm):
    table = read_table(RunDirectory.open(calm), RESULTS)
    # 2 cells x 2 circuits x 2 ablations x 2 metrics x 5 subsets
    assert len(table) == 80
    keys = list(table[list(RESULTS.key)].itertuples(index=False, name=None))
    assert keys == sorted(set(keys))
    assert set(table["steps"]) == {0, 5}
    assert set(table["split"]) == {"eval"}


def test_the_table_of_circuits_says_which_edges_ran(tmp_path):
    patches = {"eval_patch": ["counterfactual", "zero"], "threshold": [5, 40], "node_threshold": 8}
    raw = tiny(sweep={"method": ["eap", "node_ap"]}, evaluate=patches)
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    assert set(read_table(run, CIRCUITS)["ran"]) == {"", "zero", "counterfactual+zero"}
    assert_ran_is_what_was_counted(run)


def test_completeness_is_stored_for_every_input(tmp_path):
    out = tmp_path / "run"
    run_tiny(out, tiny(sweep={"method": ["eap", "ig_inputs"], "steps": 200}))
    run = RunDirectory.open(out)
    eap, ig = (c["key"] for c in run.plan["cells"])
    stored = {key: open_array(run.attributions, layout.per_input(key))[...].T for key in (eap, ig)}
    assert np.isnan(stored[eap]).all(1).tolist() == [True, False, True]
    residual, clean, base = stored[ig]
    assert (np.abs(residual) <= 0.01 * np.abs(clean - base) + 1e-4).all()


def write_own_task(path: Path, n: int, first: int = 3) -> None:
    """A user's task of token ids."""
    lines = (
        {"clean": [first + i, 9, 11], "patch": [first + i, 8, 11], "good": [20], "bad": [21, 22]}
        for i in range(n)
    )
    path.write_text("\n".join(map(json.dumps, lines)))


def test_a_task_of_one_s_own_and_a_file_that_changes(tmp_path):
    own, out = tmp_path / "mine.jsonl", tmp_path / "run"
    write_own_task(own, 8)
    raw = tiny(sweep={"task": f"ioi+{own}"}, evaluate={"threshold": 30})
    assert run_tiny(out, raw).exit_code == 0
    table = read_table(RunDirectory.open(out), RESULTS)
    assert set(table["task"]) == {"ioi+mine"}
    assert set(table["subset"]) == {"all", "ioi", "mine", "macro", "worst"}
    write_own_task(own, 8, first=4)
    with pytest.raises(ConfigError, match=r"holds another run .* tasks.tiny-random/ioi\+mine"):
        reopen(out)


def test_the_options_that_others_leave_alone(tmp_path):
    raw = tiny(
        sweep={"method": "ig_inputs", "steps": 2, "build_patch": "mean", "build_metric": "kl"},
        evaluate={
            "selection": ["value", "abs", "topk_value", "greedy"],
            "threshold": {
                "value": [0, "1e-3"],
                "abs": {"linear": [0, 1, 3]},
                "topk_value": 30,
                "greedy": 30,
            },
            "eval_patch": "mean",
            "metric": ["accuracy", "kl_reverse", "stat_dist"],
        },
        data={"n_build": 60, "mean_over": "clean"},
        execution={"dtype": "float64", "shard_inputs": 30, "micro_batch": 16},
    )
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    table = read_table(run, RESULTS)
    grid = set(table[["selection", "threshold"]].itertuples(index=False, name=None))
    assert grid == {
        ("value", 0), ("value", 0.001), ("abs", 0), ("abs", 0.5), ("abs", 1), ("topk_value", 30),
        ("greedy", 30),
    }  # fmt: skip
    assert committed(tmp_path / "run")["means"]
    assert set(table.query("selection == 'greedy' and ablation == 'edge'")["n_edges"]) == {30}
    whole = table.query("selection == 'abs' and threshold == 0 and ablation == 'edge'")
    # Every edge has some score, so this circuit is the model.
    assert (whole["n_edges"] == whole["n_edges_possible"]).all()
    assert np.allclose(whole["value"], whole["value_full"], atol=1e-9)


# --- resuming -----------------------------------------------------------------------------------


def test_a_second_run_does_nothing(calm):
    before = contents(calm, *DATA, "commits")
    worker = Faulty()
    assert run_tiny(calm, factory=worker).exit_code == 0
    assert worker.asked == []
    assert contents(calm, *DATA, "commits") == before
    assert drive(reopen(calm), Silence()).exit_code == 0
    assert contents(calm, *DATA, "commits") == before


def test_stopped_anywhere_and_resumed_it_has_the_same_bytes(calm, tmp_path):
    """Drained after every few shards, each time by a new driver."""
    out = tmp_path / "run"
    outcome, drivers = None, 0
    while outcome is None or outcome.stopped:
        launch = start(parse_config(tiny()), out)
        stopper = Stopper(lambda text: None, launch.how_to_resume)
        worker = Faulty()

        def count(shard, worker=worker, stopper=stopper):
            stopper.asked = len(worker.asked) >= 7

        worker.before = count
        outcome = drive(launch, Silence(), worker, stopper)
        drivers += 1
        assert outcome.exit_code == (3 if outcome.stopped else 0)
    assert drivers >= 5
    assert contents(out, *DATA) == contents(calm, *DATA)


def test_another_actor_count_resumes_the_same_run(calm):
    other = tiny(execution={"actors": 5, "max_attempts": 7})
    worker = Faulty()
    assert run_tiny(calm, other, worker).exit_code == 0
    assert worker.asked == []


def test_ctrl_c_once_drains_and_says_how_to_resume(tmp_path):
    said: list[str] = []
    stopper = Stopper(said.append, "resume with: x")
    worker = Faulty(before=lambda shard: signal.raise_signal(signal.SIGINT))
    launch = start(parse_config(tiny()), tmp_path / "run")
    outcome = drive(launch, Silence(), worker, stopper)
    assert outcome.stopped
    assert len(worker.asked) == 1
    assert list(chain(*committed(tmp_path / "run").values())) == worker.asked
    assert said == ["stopping when the shards in flight are done (again to abort); resume with: x"]
    assert run_status(tmp_path / "run")["state"] == "stopped"


def test_ctrl_c_twice_aborts(tmp_path, capsys):
    def twice(shard):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    worker = Faulty(before=twice)
    out = tmp_path / "run"
    assert cli.drive_and_tell(start(parse_config(tiny()), out), worker) == 3
    assert f"aborted; resume with: edgesweep resume {out}" in capsys.readouterr().err
    assert len(worker.asked) == 1


# --- blocks -------------------------------------------------------------------------------------


@NEEDS_GRAPH_TOOL
def test_blocks_are_fitted_and_ablated(tmp_path):
    out = tmp_path / "run"
    assert run_tiny(out, tiny(blocks=BLOCKS)).exit_code == 0
    run = RunDirectory.open(out)
    table, found = read_table(run, RESULTS), read_table(run, BLOCKS_TABLE)
    assert set(found["label"]) <= {"ioi", "agreement", "shared"}
    assert ((found["label"] == "shared") == (found["margin"] < 1.5)).all()
    assert found["circuit"].nunique() == 1
    cell = run.plan["cells"][0]["key"]
    rows = table.query("blocks != 'all'")
    assert set(rows["cell"]) == {cell}
    assert set(rows["circuit"]) == set(found["circuit"])
    assert set(rows["blocks"]) == {
        f"{mode}:{task}" for mode in ("without", "only") for task in ("ioi", "agreement")
    }
    # 4 block ablations x 2 metrics x 3 subsets
    assert len(rows) == 24
    whole = table.query("blocks == 'all' and ablation == 'edge'")
    sizes = whole[whole["circuit"].isin(found["circuit"])]["n_edges"]
    assert (rows["n_edges"] <= sizes.iloc[0]).all()
    both = rows.merge(whole, on=["circuit", "metric", "subset"], suffixes=("", "_whole"))
    assert (both["value_full"] == both["value_full_whole"]).all()
    assert (both["value_empty"] == both["value_empty_whole"]).all()


def test_without_graph_tool_the_rest_completes_and_says_so(calm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blocks, "find_interpreter", lambda given: None)
    out = tmp_path / "run"
    assert cli.drive_and_tell(start(parse_config(tiny(blocks=BLOCKS)), out), page=None) == 0
    printed = capsys.readouterr().out
    assert (
        "block models, block ablation: left out: no interpreter here can import graph_tool"
        in printed
    )
    assert "left out: block_evaluate" in printed
    without, whole = (read_table(RunDirectory.open(path), RESULTS) for path in (out, calm))
    assert without.equals(whole)
    assert set(run_status(out)["left_out"]) == {"blocks", "block_evaluate"}


@pytest.mark.parametrize("fits", [pytest.param(True, marks=NEEDS_GRAPH_TOOL), False])
def test_complements_wait_for_no_block_model(tmp_path, monkeypatch, fits):
    """A complement is of the whole circuit: it is run beside it, also where nothing is fitted."""
    out = tmp_path / "run"
    if not fits:
        monkeypatch.setattr(blocks, "find_interpreter", lambda given: None)
    assert run_tiny(out, tiny(blocks=BLOCKS, evaluate={"complement": True})).exit_code == 0
    table = read_table(RunDirectory.open(out), RESULTS)
    assert (table["blocks"] == "complement").sum() == (table["ablation"] == "node").sum() > 0
    assert table["blocks"].str.startswith("without:").any() == fits


# --- what a person is told ----------------------------------------------------------------------


def test_status_as_json(calm, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["edgesweep", "status", str(calm), "--json"])
    cli.main()
    found = json.loads(capsys.readouterr().out)
    total = sum(stage["total"] for stage in found["stages"].values())
    assert found["shards"] == {"total": total, "committed": total, "quarantined": 0}
    assert found["run_id"].startswith("tiny-")
    assert set(found["stages"]) == set(STAGES)


def test_the_model_s_own_skill_is_said(tmp_path, capsys):
    launch = start(parse_config(tiny()), tmp_path / "run")
    drive(launch, PlainProgress())
    printed = capsys.readouterr().out
    assert "tiny-random on ioi: accuracy" in printed
    assert "warning: tiny-random cannot do" in printed
    assert "attribution 8, " in printed
    assert "attribution: 8/8" in printed
