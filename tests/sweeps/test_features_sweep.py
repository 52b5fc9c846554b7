"""Cells over features through the sweep engine: lists of edges, what is added up of them, circuits
and their values against direct calls of the engine, and the faults that a run must bear."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.dictionaries.base import Identity, Relu, TopK
from edgesweep.engine.dictionaries.files import load_dictionary
from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.features.ablation.evaluation import (
    evaluate_feature_circuits,
    evaluate_feature_nodes,
)
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, attribute_edges
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_nodes, node_scores
from edgesweep.engine.features.values import make_feature_patch, node_mean_partials
from edgesweep.engine.graph import touched_nodes
from edgesweep.engine.metrics import measure
from edgesweep.engine.model import load_model
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import open_array
from edgesweep.storage.fold import AGGREGATIONS
from edgesweep.storage.readers import aggregate
from edgesweep.storage.tables import BLOCKS as BLOCKS_TABLE
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.circuits import ran_mask
from edgesweep.sweeps.granularity import feature_scores
from edgesweep.sweeps.launch import reopen
from edgesweep.sweeps.plan.cells import Condition
from edgesweep.sweeps.stages import listed
from edgesweep.sweeps.stages.references import ReferenceShard
from tests.graph.made import graph_of_names
from tests.sweeps.helpers import (
    BLOCKS,
    DATA,
    FailsStages,
    Faulty,
    assert_ran_is_what_was_counted,
    contents,
    flip_a_bit,
    run_tiny,
    tiny,
)

HAS_GRAPH_TOOL = find_interpreter() is not None
ALL_DATA = (*DATA, "means.zarr", "dictionaries", "blocks")
DICTIONARIES = {
    "embed": "identity",
    "mlp1": {"kind": "relu", "features": 24, "steps": 20, "prompts": 4},
    "resid2": {"kind": "topk", "features": 32, "k": 4, "steps": 20, "prompts": 4},
}
PARENTS = {
    "embed": (),
    "mlp1": ("embed",),
    "resid2": ("embed", "mlp1"),
    "logits": ("resid2",),
}
N, BATCH = 8, 2  # build and evaluation prompts of both tasks; prompts in a forward


def config(**changes) -> dict:
    """A mixture over features with every stage; keywords change sections."""
    sections = {
        "sweep": {"nodes": "features", "method": ["ig_activations", "node_ig"], "steps": 2},
        "features": {"dictionaries": DICTIONARIES, "keep": 5000, "edges": 1000},
        "evaluate": {
            "aggregation": ["mean", "rms"],
            "threshold": [20, 200],
            "node_threshold": [5, 30],
            "eval_patch": ["counterfactual", "mean"],
        },
        "data": {"mean_positions": "pooled"},
        "blocks": {**BLOCKS, "method": "ig_activations", "chains": 1} if HAS_GRAPH_TOOL else {},
        "execution": {"max_attempts": 1, "shard_inputs": 4},
    }
    names = {*sections, *changes}
    return tiny(**{s: {**sections.get(s, {}), **changes.get(s, {})} for s in names})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("features") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def plan(run):
    return reopen(run.path).plan


@pytest.fixture(scope="module")
def features(run, plan) -> FeatureModel:
    """The model with the run's dictionaries, by hand."""
    found = {"embed": Identity(plan.resolved.models["tiny-random"].sizes.d_model)}
    model = load_model(plan.resolved.models["tiny-random"].source)
    for file in (run.path / "dictionaries").iterdir():
        found[file.name.split("-")[0]] = load_dictionary(str(file), d_model=model.d_model)
    assert {s: type(d) for s, d in found.items()} == {
        "embed": Identity,
        "mlp1": Relu,
        "resid2": TopK,
    }
    return FeatureModel(model, found)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the run, to be hurt."""
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def cell_of(plan, method):
    return next(c for c in plan.cells if c.method == method)


def stored(run, cell, name) -> np.ndarray:
    return np.asarray(open_array(run.attributions, layout.listed(cell.key, name))[...])


def batches(prompts):
    return [PromptBatch.make(prompts[i : i + BATCH]) for i in range(0, N, BATCH)]


# --- lists -------------------------------------------------------------------------------------


def test_lists_are_those_of_a_direct_call(run, plan, features):
    cell = cell_of(plan, "ig_activations")
    patch = make_feature_patch("counterfactual")
    how = EdgeSettings(steps=2, rule="midpoint", target="value", keep=5000)
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


def test_a_cap_keeps_the_largest_and_counts_what_it_drops(run, plan, tmp_path):
    out, cell = tmp_path / "run", cell_of(plan, "ig_activations")
    few = config(
        sweep={"method": "ig_activations"},
        features={"keep": 100},
        evaluate={"threshold": 20, "eval_patch": "counterfactual", "ablation": "edge"},
        blocks={"fit": "none"},
    )
    assert run_tiny(out, few).exit_code == 0
    capped, small = RunDirectory.open(out), reopen(out).plan.cells[0]
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


def edges_of(run, plan) -> np.ndarray:
    """Codes of the edges that the aggregates are of."""
    cell = cell_of(plan, "ig_activations")
    ends = np.asarray(open_array(run.aggregates, layout.edges(cell.key))[...])
    return ends[:, 1] * (plan.nodes(cell).n_nodes + 1) + ends[:, 0]


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
    for record in (copy / "commits" / "reduce").glob("ig_activations*"):
        record.unlink()
    monkeypatch.setattr(listed, "PART_ENTRIES", 3000)
    worker = Faulty()
    assert run_tiny(copy, config(), worker).exit_code == 0
    assert len(worker.asked) == 1
    assert contents(copy, *ALL_DATA) == contents(run.path, *ALL_DATA)


def test_shards_of_positions_add_up(run, plan, tmp_path):
    out = tmp_path / "run"
    split = config(
        sweep={"method": "ig_activations"},
        features={"position_shards": 2},
        evaluate={"threshold": 20, "eval_patch": "counterfactual", "ablation": "edge"},
        blocks={"fit": "none"},
    )
    assert run_tiny(out, split).exit_code == 0
    other, theirs = RunDirectory.open(out), reopen(out).plan
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


# --- circuits ----------------------------------------------------------------------------------


def test_circuits_are_the_first_edges_by_size(run, plan, features):
    cell, codes = cell_of(plan, "ig_activations"), edges_of(run, plan)
    numbers, table = features.numbers, read_table(run, CIRCUITS)
    target, source = np.divmod(codes, numbers.logits + 1)
    names = [f"{numbers.name(s)}->{numbers.name(t)}" for s, t in zip(source, target, strict=True)]
    for spec in plan.circuits(cell):
        scores = aggregate(run, cell.key, spec.aggregation)
        order = np.argsort(-np.abs(scores), kind="stable")[: int(spec.threshold)]
        mine = table[table["circuit"] == spec.key]
        written = (mine["source"] + "->" + mine["target"]).tolist()
        assert written == [names[i] for i in sorted(order)]
        np.testing.assert_array_equal(mine["weight"], scores[np.sort(order)])


def test_a_circuit_of_nodes_is_all_edges_among_them(run, plan, features):
    cell, numbers = cell_of(plan, "node_ig"), features.numbers
    for spec in plan.circuits(cell):
        scores = np.abs(aggregate(run, cell.key, spec.aggregation))
        order = np.argsort(-scores, kind="stable")[: int(spec.threshold)]
        nodes: dict[str, list[str]] = {}
        for name in map(numbers.name, order.tolist()):
            nodes.setdefault(name.split("/")[0], []).append(name)
        expected = {
            (a, b)
            for site, parents in PARENTS.items()
            for parent in parents
            for a in nodes.get(parent, [])
            for b in nodes.get(site, ["logits"] if site == "logits" else [])
        }
        mine = read_table(run, CIRCUITS).query("circuit == @spec.key")
        assert set(zip(mine["source"], mine["target"], strict=True)) == expected


def direct_values(run, plan, features, cell, circuit, condition) -> dict[str, np.ndarray]:
    """What the engine gives for a circuit whose edges are read by name."""
    edges = read_table(run, CIRCUITS).query("circuit == @circuit")
    graph = graph_of_names(PARENTS, edges["source"] + "->" + edges["target"])
    dataset, whole = plan.dataset(cell), np.ones(graph.n_edges, dtype=bool)
    means = node_mean_partials(
        features, dataset.data.build, pooled=True, over="patch", micro_batch=N
    )
    tables = {group: partial.mean() for group, partial in means.items()}
    patch = make_feature_patch(condition.eval_patch, tables, pooled=True)
    given = FeatureBatch.of(features, PromptBatch.make(dataset.data.evaluation), patch)
    metrics = ["logit_diff", "kl"]
    if condition.ablation == "edge":
        found = evaluate_feature_circuits(given, graph, whole[None], metrics)[0]
    else:
        kept = touched_nodes(graph, ran_mask(plan.nodes(cell), graph, whole, condition))
        found = evaluate_feature_nodes(given, graph, kept[None], metrics)
    return {metric: rows[0] for metric, rows in found.items()}


@pytest.mark.parametrize("ablation", ["edge", "node"])
@pytest.mark.parametrize("patch", ["counterfactual", "mean"])
def test_values_are_those_of_a_direct_call(run, plan, features, ablation, patch):
    cell, condition = cell_of(plan, "ig_activations"), Condition(ablation, patch)
    spec = plan.circuits(cell)[1]
    direct = direct_values(run, plan, features, cell, spec.key, condition)
    table = read_table(run, RESULTS).query("circuit == @spec.key and blocks == 'all'")
    table = table.query("ablation == @ablation and eval_patch == @patch")
    for metric, values in direct.items():
        scale = float(np.abs(values).max())
        stored = open_array(run.evaluations, layout.value(spec.key, condition.key, metric))[...]
        np.testing.assert_allclose(stored, values, rtol=1e-3, atol=1e-4 * scale)
        rows = table[table["metric"] == metric].set_index("subset")
        at = {"all": slice(0, N), "ioi": slice(0, N // 2), "agreement": slice(N // 2, N)}
        assert set(rows.index) == set(at)
        for subset, inputs in at.items():
            mean = pytest.approx(values[inputs].mean(), rel=1e-3, abs=1e-4 * scale)
            assert rows.loc[subset, "value"] == mean
            assert rows.loc[subset, "n_inputs"] == inputs.stop - inputs.start


def _logits(features, tokens, real):
    return features.model.run(features.model.prepare(tokens, real)).logits


def test_the_full_graph_is_the_model_and_the_empty_one_the_patch_run(run, plan, features):
    cell = cell_of(plan, "ig_activations")
    source, dataset = cell.source, plan.dataset(cell)
    assert source == ReferenceShard(dataset.key, "mean", None, "features", cell.features).source
    batch = PromptBatch.make(dataset.data.evaluation)
    with torch.no_grad():
        runs = [_logits(features, tokens, batch.real) for tokens in (batch.clean, batch.patch)]
    full, empty = (measure("logit_diff", x, batch, runs[0]).numpy() for x in runs)
    for patch in ("counterfactual", "mean"):
        distance, scale = (
            np.asarray(open_array(run.evaluations, layout.reference(source, patch, *name))[...])
            for name in layout.DISTANCES
        )
        assert (distance <= 1e-5 * scale).all()
        mine = read_table(run, RESULTS).query("eval_patch == @patch and metric == 'logit_diff'")
        of_all = mine[mine["subset"] == "all"]
        np.testing.assert_allclose(of_all["value_full"], full.mean(), rtol=1e-4, atol=1e-6)
        if patch == "counterfactual":
            np.testing.assert_allclose(of_all["value_empty"], empty.mean(), rtol=1e-4, atol=1e-6)


def test_faithfulness_and_sizes_follow_from_the_row(run, plan):
    table = read_table(run, RESULTS)
    assert set(table["nodes"]) == {"features"}
    for _, row in table.iterrows():
        phi = faithfulness(row["value"], row["value_full"], row["value_empty"])
        assert row["faithfulness"] == pytest.approx(phi, nan_ok=True)
        assert row["average_degree"] == pytest.approx(
            2 * row["n_edges"] / row["n_nodes"] if row["n_nodes"] else 0
        )
        assert row["n_edges"] <= row["n_edges_possible"]


def test_the_table_of_circuits_says_which_edges_ran(run):
    assert set(read_table(run, CIRCUITS)["ran"]) == {"", "counterfactual+mean"}
    assert_ran_is_what_was_counted(run)


@pytest.mark.skipif(not HAS_GRAPH_TOOL, reason="needs graph-tool")
def test_block_models_are_of_the_circuit_s_nodes(run, plan):
    cell, found = cell_of(plan, "ig_activations"), read_table(run, BLOCKS_TABLE)
    assert found["circuit"].nunique() == 1
    circuit = found["circuit"].iloc[0]
    graph = plan.nodes(cell).graph(run, cell)
    edges = read_table(run, CIRCUITS)
    kept = edges[edges["circuit"] == circuit]["edge"].to_numpy()
    mask = np.zeros(graph.n_edges, dtype=bool)
    mask[kept] = True
    touched = touched_nodes(graph, ran_mask(plan.nodes(cell), graph, mask, plan.fitted_condition))
    assert set(found["node"]) == {n for n, t in zip(graph.nodes, touched, strict=True) if t}
    assert set(found["label"]) <= {"ioi", "agreement"}
    mine = read_table(run, RESULTS).query("circuit == @circuit")
    of_blocks = mine[mine["blocks"] != "all"]
    modes = {f"{mode}:{task}" for mode in ("without", "only") for task in ("ioi", "agreement")}
    assert set(of_blocks["blocks"]) == modes
    whole = mine[(mine["blocks"] == "all") & (mine["ablation"] == "edge")]
    assert of_blocks["n_edges"].max() <= whole["n_edges"].max()


def test_a_graph_without_edges_is_the_patch_run(tmp_path):
    """No node passes the threshold, so that a cell that scores nodes has none."""
    out = tmp_path / "run"
    none = config(
        sweep={"task": "ioi"},
        evaluate={"selection": "abs", "threshold": 1e9, "eval_patch": "counterfactual"},
    )
    assert run_tiny(out, none).exit_code == 0
    table = read_table(RunDirectory.open(out), RESULTS)
    assert (table["n_edges"] == 0).all()
    assert set(table["method"]) == {"ig_activations", "node_ig"}
    np.testing.assert_allclose(table["value"], table["value_empty"], rtol=1e-3, atol=1e-6)


# --- faults ------------------------------------------------------------------------------------


def test_a_run_stopped_in_any_wave_ends_with_the_same_bytes(run, tmp_path):
    out = tmp_path / "run"
    fit = [("blocks", "evaluate"), ("block_evaluate",)] if HAS_GRAPH_TOOL else [("evaluate",)]
    for stages in (("dictionaries",), ("means", "attribute"), ("reduce",), *fit):
        stop_at = FailsStages(stages)
        assert run_tiny(out, config(), Faulty(before=stop_at)).exit_code == 3
        assert stop_at.met == set(stages)
    assert run_tiny(out, config()).exit_code == 0
    assert contents(out, *ALL_DATA) == contents(run.path, *ALL_DATA)


def test_ray_gives_the_same_bytes(run, tmp_path):
    out, ray = tmp_path / "run", {"executor": "ray", "actors": 2}
    assert run_tiny(out, config(execution=ray)).exit_code == 0
    assert contents(out, *ALL_DATA) == contents(run.path, *ALL_DATA)


@pytest.mark.parametrize(
    "where",
    [
        "dictionaries/mlp1-*",
        "attributions.zarr/ig_*/listed/weight",
        "attributions.zarr/ig_*/listed/target",
        "aggregates.zarr/ig_*/edges",
        "aggregates.zarr/ig_*/ioi/mean",
        "means.zarr/*/0000",
    ],
)
def test_a_flipped_byte_is_found_and_the_shard_redone(run, copy, where):
    (place,) = copy.glob(where)
    files = [place] if place.is_file() else sorted((place / "c").rglob("*"))
    flip_a_bit(next(f for f in files if f.is_file()))
    assert contents(copy, *ALL_DATA) != contents(run.path, *ALL_DATA)
    worker = Faulty()
    assert run_tiny(copy, config(), worker).exit_code == 0
    assert len(worker.asked) == 1
    assert contents(copy, *ALL_DATA) == contents(run.path, *ALL_DATA)


@pytest.mark.parametrize(
    "where", ["aggregates.zarr/node_ig-*/edges", "attributions.zarr/*_ig-*/graph/edge_source"]
)
@pytest.mark.parametrize("hurt", [flip_a_bit, Path.unlink])
def test_what_the_driver_wrote_is_written_again_where_it_is_hurt(run, copy, where, hurt):
    """A driver that is killed may leave an array without its numbers."""
    (place,) = copy.glob(where)
    (file,) = (f for f in (place / "c").rglob("*") if f.is_file())
    hurt(file)
    for record in (copy / "commits" / "evaluate").glob("node_ig*"):
        record.unlink()
    assert run_tiny(copy, config()).exit_code == 0
    assert contents(copy, *ALL_DATA) == contents(run.path, *ALL_DATA)
