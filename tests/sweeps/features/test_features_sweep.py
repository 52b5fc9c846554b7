"""Cells over features through the sweep engine: lists of edges, and what is added up of them,
against direct calls of the engine."""

import json

import numpy as np
import pytest

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, attribute_edges
from edgesweep.engine.features.nodes import attribute_nodes, node_scores
from edgesweep.engine.features.values import make_feature_patch
from edgesweep.engine.statistics.stability import agreement, half_weights, top_of
from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.arrays import open_array
from edgesweep.storage.fold import AGGREGATIONS
from edgesweep.storage.readers import aggregate
from edgesweep.storage.tables import MEASURES, read_table
from edgesweep.sweeps.actor.context import Context
from edgesweep.sweeps.granularity import feature_scores
from edgesweep.sweeps.launch import reopen, worker_settings
from edgesweep.sweeps.stages import listed
from edgesweep.sweeps.stages.bootstrap import Bootstrap
from tests.sweeps.helpers import (
    Faulty,
    contents,
    run_tiny,
    uncommit,
)
from tests.sweeps.over_features import (
    ALL_DATA,
    BATCH,
    N,
    batches,
    cell_of,
    config,
    edges_of,
    stored,
)

# --- lists -------------------------------------------------------------------------------------


def test_lists_are_those_of_a_direct_call(run, plan, features):
    cell = cell_of(plan, "ig_activations")
    patch = make_feature_patch("counterfactual")
    how = EdgeSettings(steps=2, rule="midpoint", target="attribution", keep=5000)
    direct = []
    for batch in batches(plan.dataset(cell).data.build):
        ends = FeatureBatch.of(features, batch, patch)
        nodes = attribute_nodes(ends, "logit_diff", steps=2, rule="midpoint")
        direct += attribute_edges(ends, nodes, "logit_diff", how).inputs
    lists = {name: stored(run, cell, name) for name in (*layout.LISTS, *layout.PER_LIST)}
    assert lists["source"].shape == (N, 5000)
    assert len(direct) == N
    for row, mine in enumerate(direct):
        n = int(lists["count"][row])
        assert 0 < n == len(mine.source) < 5000
        assert (lists["source"][row, :n] == mine.source).all()
        assert (lists["target"][row, :n] == mine.target).all()
        np.testing.assert_allclose(lists["weight"][row, :n], mine.weight, rtol=1e-6)
        np.testing.assert_allclose(lists["raw"][row, :n], mine.raw, rtol=1e-6)
        assert (lists["source"][row, n:] == -1).all()
        assert np.isnan(lists["weight"][row, n:]).all()
    assert (lists["dropped_abs"] == 0).all()
    assert np.isfinite(lists["residual"]).all()


def test_node_scores_are_those_of_a_direct_call(run, plan, features):
    cell = cell_of(plan, "node_ig")
    found = np.asarray(open_array(run.attributions, layout.scores(cell.key))[...])
    assert found.shape == (N, features.numbers.logits)
    expected = np.zeros_like(found)
    for first, batch in enumerate(batches(plan.dataset(cell).data.build)):
        ends = FeatureBatch.of(features, batch, make_feature_patch("counterfactual"))
        nodes = attribute_nodes(ends, "logit_diff", steps=2, rule="midpoint")
        for row, of_input in enumerate(node_scores(ends, nodes)):
            expected[BATCH * first + row, of_input.node] = of_input.score
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found[:, : features.model.d_model] != 0).any()


def small_run(out, features):
    """A run of one method and its plan, with other options of features."""
    raw = config(
        sweep={"method": "ig_activations"},
        features=features,
        evaluate={"threshold": 20, "eval_patch": "counterfactual", "ablation": "edge"},
        blocks={"fit": "none"},
    )
    assert run_tiny(out, raw).exit_code == 0
    return RunDirectory.open(out), reopen(out).plan


@pytest.fixture(scope="module")
def sets_run(tmp_path_factory):
    """A run of two sets of one dictionary a site, that rank edges by other weights."""
    raw = config(
        sweep={"method": "ig_activations", "nodes": ["capped", "own"]},
        evaluate={"threshold": 20, "eval_patch": "counterfactual", "ablation": "edge"},
        blocks={"fit": "none"},
    )
    given = raw["features"]
    raw["features"] = {"capped": {**given, "keep": 100}, "own": {**given, "target": "value"}}
    out = tmp_path_factory.mktemp("sets") / "run"
    assert run_tiny(out, raw).exit_code == 0
    return RunDirectory.open(out), reopen(out).plan


def test_edges_are_ranked_by_their_weight_in_the_units_of_their_targets(run, plan, sets_run):
    cell, (other, theirs) = cell_of(plan, "ig_activations"), sets_run
    own = next(c for c in theirs.cells if c.nodes == "own")
    assert (cell.target, own.target) == ("attribution", "value")
    for row in range(N):
        raw, weight = (stored(other, own, name)[row] for name in ("raw", "weight"))
        np.testing.assert_array_equal(weight, raw)
        of_run = {
            (s, t): w
            for s, t, w in zip(*(stored(run, cell, n)[row] for n in LISTED), strict=True)
            if t >= 0
        }
        mine = {
            (s, t): w
            for s, t, w in zip(*(stored(other, own, n)[row] for n in LISTED), strict=True)
            if t >= 0
        }
        assert of_run.keys() <= mine.keys()  # what is worth nothing to the metric has a value too
        for edge, value in of_run.items():
            assert mine[edge] == pytest.approx(value, rel=1e-5, abs=1e-7)
    mean = aggregate(other, own.key, "mean")
    of_attribution = aggregate(run, cell.key, "mean")
    assert np.nanmax(np.abs(mean)) != pytest.approx(np.nanmax(np.abs(of_attribution)), rel=1e-3)


LISTED = ("source", "target", "raw")


def test_a_cap_keeps_the_largest_and_counts_what_it_drops(run, plan, sets_run):
    """By the weight that is asked for: here in units of the metric."""
    cell = cell_of(plan, "ig_activations")
    capped, theirs = sets_run
    small = next(c for c in theirs.cells if c.nodes == "capped")
    for row in range(N):
        whole = stored(run, cell, "weight")[row]
        sizes = np.sort(np.abs(whole[np.isfinite(whole)]))[::-1]
        kept = np.abs(stored(capped, small, "weight")[row])
        np.testing.assert_allclose(np.sort(kept)[::-1], sizes[:100], rtol=1e-6)
        dropped = stored(capped, small, "dropped_abs")[row]
        assert dropped == pytest.approx(sizes[100:].sum(dtype=np.float64), rel=1e-4)


# --- what is added up --------------------------------------------------------------------------


def dense(run, plan) -> tuple[np.ndarray, np.ndarray]:
    """Codes of all edges that any input lists, and their weights, `[input, edge]`, 0 if absent."""
    cell = cell_of(plan, "ig_activations")
    source, target, weight = (stored(run, cell, n) for n in ("source", "target", "weight"))
    n_nodes = plan.nodes(cell).n_nodes + 1
    codes = np.unique((target * n_nodes + source)[target >= 0])
    table = np.zeros((N, len(codes)))
    for row in range(len(source)):
        for place in range(source.shape[1]):
            if target[row, place] >= 0:
                code = target[row, place] * n_nodes + source[row, place]
                table[row % N, np.searchsorted(codes, code)] += float(weight[row, place])
    return codes, table


SLOW = {
    "mean": lambda x: x.mean(0),
    "max": lambda x: x.max(0),
    "rms": lambda x: np.sqrt((x**2).mean(0)),
    "mean_abs": lambda x: np.abs(x).mean(0),
    "max_abs": lambda x: np.abs(x).max(0),
}


def test_aggregates_are_those_of_the_whole_table(run, plan):
    assert set(SLOW) == set(AGGREGATIONS)
    cell, (codes, table) = cell_of(plan, "ig_activations"), dense(run, plan)
    assert len(codes) > 1000
    mass = np.abs(table).sum(0)
    kept = np.sort(np.argsort(-mass, kind="stable")[:1000])
    assert (edges_of(run, plan) == codes[kept]).all()
    members = {"all": slice(0, N), "ioi": slice(0, N // 2), "agreement": slice(N // 2, N)}
    for member, rows in members.items():
        group = cell.key if member == "all" else f"{cell.key}/{member}"
        for name, slow in SLOW.items():
            found = aggregate(run, group, name)
            np.testing.assert_allclose(found, slow(table[rows][:, kept]), rtol=1e-12, atol=1e-15)
        for name, n in (("n", rows.stop - rows.start), ("n_bad", 0)):
            counts = np.asarray(open_array(run.aggregates, f"{group}/{name}")[...])
            assert (counts == n).all()


def test_the_fold_does_not_depend_on_its_parts(run, copy, monkeypatch):
    """Memory is bounded by folding the edges a part at a time; the bits are those of one part."""
    uncommit(copy, "reduce", lambda shard: shard.startswith("ig_activations"))
    monkeypatch.setattr(listed, "PART_ENTRIES", 3000)
    worker = Faulty()
    assert run_tiny(copy, config(), worker).exit_code == 0
    assert len(worker.asked) == 1
    assert contents(copy, *ALL_DATA) == contents(run.path, *ALL_DATA)


def test_shards_of_positions_add_up(run, plan, tmp_path):
    other, theirs = small_run(tmp_path / "run", {"position_shards": 2})
    assert len(theirs.stages["attribute"]) == 2 * N // 4
    assert (stored(other, theirs.cells[0], "dropped_abs") == 0).all()
    codes, table = dense(run, plan)
    found, again = dense(other, theirs)
    both = np.intersect1d(found, codes)
    assert len(both) > 0.999 * max(len(found), len(codes))  # a sum may cancel in one order only
    a, b = table[:, np.searchsorted(codes, both)], again[:, np.searchsorted(found, both)]
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(table).max())
    kept = edges_of(other, theirs)
    assert len(np.setdiff1d(kept, edges_of(run, plan))) < 5  # of equal size at the cut
    mean = aggregate(other, theirs.cells[0].key, "mean")
    expected = again[:, np.searchsorted(found, kept)].mean(0)
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-15)


def test_memory_that_does_not_suffice_moves_no_position_to_another_shard(tmp_path, monkeypatch):
    """A shard that had to halve its micro-batch has narrower batches than the others, and yet the
    same positions."""
    own = tmp_path / "mine.jsonl"
    lines = [
        {"clean": [i] * n + [9], "patch": [i + 1] * n + [9], "good": [20], "bad": [21]}
        for i, n in enumerate([2, 8, 3, 6, 2, 8, 3, 6], 3)
    ]
    own.write_text("\n".join(map(json.dumps, lines)))
    totals = []
    for n_shards in (1, 3):
        split = config(
            sweep={"method": "ig_activations", "task": str(own)},
            features={
                "dictionaries": dict.fromkeys(["embed", "resid2"], "identity"),
                "position_shards": n_shards,
            },
            evaluate={"threshold": 20, "eval_patch": "counterfactual", "ablation": "edge"},
            blocks={"fit": "none"},
            execution={"micro_batch": 4},
        )
        assert run_tiny(tmp_path / str(n_shards), split).exit_code == 0
        made = RunDirectory.open(tmp_path / str(n_shards))
        weights = stored(made, reopen(made.path).plan.cells[0], "weight")
        totals.append(np.nansum(weights))
        monkeypatch.setattr(feature_scores, "attribute_edges", starved_of_the_first_positions)
    assert totals[1] == pytest.approx(totals[0])


def starved_of_the_first_positions(ends, nodes, metric, how, positions):
    if positions.start == 0 and len(ends.batch) > 1:
        raise MemoryError
    return attribute_edges(ends, nodes, metric, how, positions)


def test_halves_of_the_inputs_are_held_against_each_other(run, plan):
    """Of nodes: which edges are listed is decided by all inputs, and both halves know it."""
    cell = cell_of(plan, "node_ig")
    scores = np.asarray(open_array(run.attributions, layout.scores(cell.key))[...])
    halves = half_weights(np.repeat([0, 1], N // 2), plan.config.seed)
    found = agreement(halves @ scores.astype(np.float64), top_of(scores.shape[1]))
    there = open_array(run.aggregates, layout.stability(cell.key))[...]
    np.testing.assert_allclose(there, found, rtol=1e-6)
    measures = read_table(run, MEASURES)
    assert set(measures.query("measure == 'stability'")["method"]) == {"node_ig"}


def test_a_worker_sees_what_was_reduced_since_it_first_looked(run, plan, copy):
    cell = cell_of(plan, "ig_activations")
    for stage in ("reduce", "bootstrap"):
        uncommit(copy, stage, lambda shard: shard.startswith(cell.key))
    again = reopen(copy)
    context = Context(worker_settings(again.plan, again.run))
    assert not any(r["shard"].startswith(cell.key) for r in context.log.records("reduce"))
    assert run_tiny(copy, config()).exit_code == 0
    (shard,) = (s for s in again.plan.stages["bootstrap"] if s.cell == cell)
    writes, _ = Bootstrap().run(context, shard)
    wanted = CommitLog(RunDirectory.open(run.path)).record("bootstrap", shard.key)["writes"]
    assert [w["crc"] for w in writes] == [w["crc"] for w in wanted]
