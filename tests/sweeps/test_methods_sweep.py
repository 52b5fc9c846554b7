"""Every method through the sweep engine: candidates, searches, nodes, complements, single edges,
and the tables that are derived from what is stored."""

import json
import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control, spearmanr

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.graph import induced_edges, prune
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.metrics import measure
from edgesweep.engine.model import load_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import make_patch
from edgesweep.storage import RunDirectory
from edgesweep.storage.arrays import open_array
from edgesweep.storage.readers import aggregate
from edgesweep.storage.tables import MEASURES, MINIMALITY, OVERLAP, RESULTS, read_table
from edgesweep.sweeps.actor.worker import make_worker
from edgesweep.sweeps.candidates import read_candidates
from edgesweep.sweeps.circuits import read_selected
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.config.schema import METHODS as NAMES
from edgesweep.sweeps.launch import reopen, start
from tests.sweeps.helpers import DATA, FailsStages, Faulty, contents, run_tiny, tiny

DERIVED = (
    *("measures.parquet", "roc.parquet", "overlap.parquet", "minimality.parquet"),
    *("interpolation.parquet", "known.parquet"),
)
ALL = {
    "sweep": {
        "task": "ioi",
        "method": list(NAMES),
        "steps": 2,
        "tau": [0.01, 0.1],
        "candidates": {"top": 12, "random": 6},
    },
    "evaluate": {
        "threshold": [40, 200],
        "ablation": ["edge", "node"],
        "metric": ["logit_diff", "kl"],
        "complement": True,
    },
    "measures": {"bootstrap": 20, "minimality": 30, "interpolate": 3, "fractions": 4},
}


def config(**changes) -> dict:
    return tiny(**{s: {**ALL.get(s, {}), **changes.get(s, {})} for s in {*ALL, *changes}})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("all") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def plan(run):
    return reopen(run.path).plan


def cell_of(plan, method, tau=None):
    return next(c for c in plan.cells if c.method == method and tau in (None, c.tau))


# --- scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NAMES)
def test_stored_scores_are_the_method_s_own(run, plan, method):
    cell = cell_of(plan, method)
    dataset, graph = plan.dataset(cell), plan.model(cell).graph
    candidates = read_candidates(run, cell) if cell.is_refined else None
    settings = Settings(steps=2, tau=cell.tau or 0.0, candidates=candidates, rows=32)
    model = load_model(plan.model(cell).source)
    batch, patch = PromptBatch.make(dataset.data.build), make_patch("counterfactual")
    mine = METHODS[method].attribute(model, batch, patch, "logit_diff", settings).scores
    stored = np.asarray(open_array(run.attributions, f"{cell.key}/scores")[...])
    assert stored.shape[1] == (len(graph.sources) if plan.is_nodes(cell) else graph.n_edges)
    np.testing.assert_allclose(stored, mine.numpy(), rtol=1e-3, atol=1e-5)
    mean = aggregate(run, cell.key, "mean")
    np.testing.assert_allclose(mean, stored.astype(np.float64).mean(0), rtol=1e-6, atol=1e-9)
    if candidates is not None:
        assert (np.isfinite(mean) == candidates).all()


def test_candidates_are_the_first_of_eap_and_some_others(run, plan):
    for method, n_random in (("exact", 6), ("acdc", 6), ("eap_acdc", 0)):
        kept = read_candidates(run, cell_of(plan, method))
        scores = np.abs(aggregate(run, cell_of(plan, "eap").key, "mean"))
        first = np.argsort(-scores, kind="stable")[:12]
        assert kept[first].all()
        assert kept.sum() == 12 + n_random
    assert all(event["event"] != "not_finite" for event in run.read_log())


def test_a_circuit_of_nodes_is_all_edges_among_them(run, plan):
    cell, graph = cell_of(plan, "node_ig"), plan.model(cell_of(plan, "node_ig")).graph
    scores = np.abs(aggregate(run, cell.key, "mean"))
    for spec in plan.circuits(cell):
        kept = np.zeros(len(graph.sources), dtype=bool)
        kept[np.argsort(-scores, kind="stable")[: int(spec.threshold)]] = True
        mask = read_selected(run, cell)[spec.key]
        assert (mask == induced_edges(graph, kept)).all()
        for edge in np.flatnonzero(mask):
            ends = np.flatnonzero(graph.target_nodes[graph.edge_target[edge]])
            assert kept[graph.edge_source[edge]]
            assert any(n == len(graph.sources) or kept[n] for n in ends)
    table = read_table(run, RESULTS)
    mine = table[(table["cell"] == cell.key) & (table["blocks"] == "all")]
    by_ablation = mine.pivot_table(index=["circuit", "metric"], columns="ablation", values="value")
    np.testing.assert_allclose(by_ablation["edge"], by_ablation["node"], rtol=1e-3, atol=1e-5)


# --- what is run -------------------------------------------------------------------------------


def test_the_complement_is_the_model_without_the_circuit(run, plan):
    cell = cell_of(plan, "eap")
    graph, dataset = plan.model(cell).graph, plan.dataset(cell)
    model = load_model(plan.model(cell).source)
    batch = PromptBatch.make(dataset.data.evaluation)
    inputs = model.prepare(batch.clean, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    table = read_table(run, RESULTS)
    for spec in plan.circuits(cell):
        circuit = prune(graph, read_selected(run, cell)[spec.key], both_sides=True)
        logits = ablated_logits(model, inputs, values, ~circuit[None])
        value = float(measure("logit_diff", logits, batch, logits[0]).mean())
        row = table[
            (table["circuit"] == spec.key)
            & (table["blocks"] == "complement")
            & (table["metric"] == "logit_diff")
        ]
        assert len(row) == 1
        assert row["value"].iloc[0] == pytest.approx(value, rel=1e-3)


def test_minimality_is_the_circuit_without_each_edge(run, plan):
    cell = cell_of(plan, "ig_inputs")
    graph, dataset = plan.model(cell).graph, plan.dataset(cell)
    model = load_model(plan.model(cell).source)
    batch = PromptBatch.make(dataset.data.evaluation)
    inputs = model.prepare(batch.clean, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    rows = read_table(run, MINIMALITY)
    rows = rows[(rows["cell"] == cell.key) & (rows["metric"] == "logit_diff")]
    circuit = prune(graph, read_selected(run, cell)[rows["circuit"].iloc[0]], both_sides=True)
    assert rows["edge"].tolist() == np.flatnonzero(circuit).tolist()
    whole = ablated_logits(model, inputs, values, circuit[None])
    for _, row in rows.iterrows():
        less = circuit.copy()
        less[row["edge"]] = False
        without = ablated_logits(model, inputs, values, less[None])
        drops = [measure("logit_diff", x[0], batch, x[0]).mean() for x in (whole, without)]
        assert row["drop"] == pytest.approx(float(drops[0] - drops[1]), rel=1e-3, abs=1e-4)
        assert row["low"] <= row["drop"] + 1e-12 <= row["high"] + 2e-12
    np.testing.assert_allclose(rows["q"], false_discovery_control(rows["p"]))
    found = rows["q"] <= rows["rate"]
    assert set(rows["rate"]) == {1 - 0.95}
    assert ((rows["kind"] == "needed") == (found & (rows["drop"] > 0))).all()
    assert ((rows["kind"] == "unclear") == ~found).all()


def test_interpolation_ends_at_exact_patching(run, plan):
    from edgesweep.storage.tables import INTERPOLATION, read_table

    rows, exact = read_table(run, INTERPOLATION), aggregate(run, cell_of(plan, "exact").key, "mean")
    eap = aggregate(run, cell_of(plan, "eap").key, "mean")
    rows = rows[rows["metric"] == "logit_diff"]
    assert rows["edge"].nunique() == 3
    assert sorted(set(rows["fraction"])) == [0, 0.25, 0.5, 0.75, 1]
    for _, row in rows.iterrows():
        assert row["estimate"] == pytest.approx(-eap[row["edge"]] * row["fraction"])
        if row["fraction"] == 0:
            assert row["change"] == 0
        if row["fraction"] == 1 and np.isfinite(exact[row["edge"]]):
            assert row["change"] == pytest.approx(-exact[row["edge"]], rel=1e-3, abs=1e-5)


# --- derived tables ------------------------------------------------------------------------------


def test_areas_and_sizes_follow_from_the_results(run, plan):
    table, found = read_table(run, RESULTS), read_table(run, MEASURES)
    cell = cell_of(plan, "eap")
    rows = table[
        (table["cell"] == cell.key)
        & (table["metric"] == "kl")
        & (table["ablation"] == "edge")
        & (table["blocks"] == "all")
    ].sort_values("n_edges")
    mine = found[
        (found["cell"] == cell.key) & (found["metric"] == "kl") & (found["ablation"] == "edge")
    ].set_index("measure")
    masks = read_selected(run, cell)
    assert rows["n_selected"].tolist() == [masks[key].sum() for key in rows["circuit"]]
    rows = rows.sort_values("n_selected")
    phi = np.where(rows["n_edges"] == 0, 0.0, rows["faithfulness"])
    assert mine.loc["area_log", "value"] == pytest.approx(phi.mean())  # two sizes: one trapezoid
    assert mine.loc["area_log", "low"] <= mine.loc["area_log", "high"]
    span = math.log(200 / 40) / math.log(rows["n_edges_possible"].iloc[0])
    assert mine.loc["share_log", "value"] == pytest.approx(span)
    assert mine.loc[["cpr", "cmd"], "value"].isna().all()  # these are not MIB's sizes
    reached = rows[rows["faithfulness"] >= 0.8]["n_edges"]
    smallest = float(reached.min()) if len(reached) else math.nan
    assert mine.loc["edges_80", "value"] == pytest.approx(smallest, nan_ok=True)
    row = rows.iloc[0]
    phi = faithfulness(row["value"], row["value_full"], row["value_empty"])
    assert row["faithfulness"] == pytest.approx(phi)


def test_methods_are_compared_pair_by_pair(run, plan):
    found = read_table(run, OVERLAP)
    exact, eap = cell_of(plan, "exact"), cell_of(plan, "eap")
    x, y = aggregate(run, eap.key, "mean"), aggregate(run, exact.key, "mean")
    both = np.isfinite(y)
    pair = found[(found["cell_a"] == eap.key) & (found["cell_b"] == exact.key)].set_index("measure")
    row = pair.loc["r2"]
    assert row["n"] == both.sum() == 18
    assert row["value"] == pytest.approx(np.corrcoef(x[both], y[both])[0, 1] ** 2, rel=1e-6)
    drawn = both.copy()  # 6 of the others; of EAP's 12 as large a share would be less than one
    drawn[np.argsort(-np.abs(x), kind="stable")[:12]] = False
    row = pair.loc["spearman_signed"]
    assert row["n"] == drawn.sum() == 6
    assert row["value"] == pytest.approx(spearmanr(x[drawn], y[drawn]).statistic)
    nodes = {c.key for c in plan.cells if plan.is_nodes(c)}
    crossed = found["cell_a"].isin(nodes) != found["cell_b"].isin(nodes)
    assert not crossed.any()


def test_intervals_of_scores_hold_their_means(run, plan):
    cell = cell_of(plan, "ig_inputs")
    low, high = np.asarray(open_array(run.aggregates, f"{cell.key}/interval")[...])
    mean = aggregate(run, cell.key, "mean")
    assert (low <= high).all()
    assert ((low <= mean + 1e-9) & (mean <= high + 1e-9)).mean() > 0.9


# --- faults ------------------------------------------------------------------------------------


FEW = {"method": ["exact", "acdc", "node_ap"], "tau": 0.05}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    out = tmp_path_factory.mktemp("few") / "run"
    assert run_tiny(out, config(sweep=FEW)).exit_code == 0
    return contents(out, *DATA, *DERIVED)


def test_a_run_stopped_in_any_wave_ends_with_the_same_bytes(few, tmp_path):
    out, raw = tmp_path / "run", config(sweep=FEW, execution={"max_attempts": 1})
    for stages in (("refine",), ("reduce_refined", "bootstrap"), ("probe",)):
        stop_at = FailsStages(stages)
        assert run_tiny(out, raw, Faulty(before=stop_at)).exit_code == 3
        assert stop_at.met == set(stages)
    assert run_tiny(out, raw, make_worker).exit_code == 0
    assert contents(out, *DATA, *DERIVED) == few


@pytest.mark.proof
def test_ray_gives_the_same_bytes(few, tmp_path):
    out, ray = tmp_path / "run", {"executor": "ray", "actors": 2}
    assert run_tiny(out, config(sweep=FEW, execution=ray)).exit_code == 0
    assert contents(out, *DATA, *DERIVED) == few


def test_the_plan_says_at_which_edges_a_cell_looks(run):
    cells = json.loads((run.path / "plan.json").read_text())["cells"]
    assert {c["candidates"] for c in cells if c["method"] == "eap_acdc"} == {"12 of eap"}


def test_start_refuses_before_it_writes(tmp_path):
    with pytest.raises(ConfigError):
        start(parse_config(config(sweep={"task": "ioi+agreement"})), tmp_path / "run")
    assert not (tmp_path / "run").exists()
