"""Circuits over features through the sweep engine: their values against direct calls of the engine,
and the faults that a run must bear."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.features.ablation.evaluation import (
    evaluate_feature_circuits,
    evaluate_feature_nodes,
)
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.values import make_feature_patch, node_mean_partials
from edgesweep.engine.graph import touched_nodes
from edgesweep.engine.metrics import measure
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import open_array
from edgesweep.storage.readers import aggregate, evaluation
from edgesweep.storage.tables import BLOCKS as BLOCKS_TABLE
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.circuits import ran_mask
from edgesweep.sweeps.plan.cells import Condition
from edgesweep.sweeps.stages.references import ReferenceShard
from tests.graph.made import graph_of_names
from tests.sweeps.helpers import (
    FailsStages,
    Faulty,
    assert_ran_is_what_was_counted,
    contents,
    flip_a_bit,
    run_tiny,
    uncommit,
)
from tests.sweeps.over_features import (
    ALL_DATA,
    HAS_GRAPH_TOOL,
    PARENTS,
    N,
    cell_of,
    config,
    edges_of,
)

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
        _, stored = evaluation(run, spec.key, condition.key, metric)
        np.testing.assert_allclose(stored, values, rtol=1e-3, atol=1e-4 * scale)
        rows = table[table["metric"] == metric].set_index("subset")
        at = {"all": slice(0, N), "ioi": slice(0, N // 2), "agreement": slice(N // 2, N)}
        assert set(rows.index) == {*at, "macro", "worst"}
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
        distance, scale = open_array(run.evaluations, layout.distance(source, patch))[...].T
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
        if row["subset"] != "macro":  # which is a mean of ratios
            phi = faithfulness(row["value"], row["value_full"], row["value_empty"])
            assert row["faithfulness"] == pytest.approx(phi, nan_ok=True)
        assert row["average_degree"] == pytest.approx(
            2 * row["n_edges"] / row["n_nodes"] if row["n_nodes"] else 0
        )
        assert row["n_edges"] <= row["n_edges_among_found"] <= row["n_edges_possible"]
        assert row["density"] == row["n_edges"] / row["n_edges_possible"]
        assert row["density_among_found"] == row["n_edges"] / row["n_edges_among_found"]
    # features of each dictionary and its error node: no cell and no grid changes what can be
    embed, mlp1, resid2 = plan.model(plan.cells[0]).sizes.d_model + 1, 24 + 1, 32 + 1
    possible = embed * mlp1 + (embed + mlp1) * resid2 + resid2
    assert set(table["n_edges_possible"]) == {possible}
    assert (table["n_edges_among_found"] < possible).any()


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
    assert set(found["label"]) <= {"ioi", "agreement", "shared"}
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


@pytest.mark.proof
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
    uncommit(copy, "evaluate", lambda shard: shard.startswith("node_ig"))
    assert run_tiny(copy, config()).exit_code == 0
    assert contents(copy, *ALL_DATA) == contents(run.path, *ALL_DATA)
