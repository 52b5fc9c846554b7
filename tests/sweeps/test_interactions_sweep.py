"""Interaction graphs in a sweep of a small network of images: the numbers, and what is refused."""

from __future__ import annotations

import shutil

import networkx
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import edgesweep as es
from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.fourier import label
from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.training import NetworkTraining
from edgesweep.engine.training.modadd import Modadd
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.arrays import open_array
from edgesweep.storage.tables import (
    DIRECTIONS,
    EDGES_NEEDED,
    INTERACTIONS,
    LABELS,
    MODULARITY,
    MODULES,
    SPECTRA,
    read_table,
)
from edgesweep.sweeps import launch
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.interactions.files import read_basis
from edgesweep.sweeps.plan.estimates import describe
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.training.modadd import ModaddRequest, train_sums
from edgesweep.tasks import build_task
from tests.bases import made
from tests.sweeps.helpers import contents, run_tiny

N = 96
FILES = (
    *(
        "attributions.zarr",
        "layered",
        "edges_needed.parquet",
        "interactions.parquet",
        "spectra.parquet",
    ),
    "modularity.parquet",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("models") / "digits-mlp"
    how = NetworkTraining(epochs=5)
    train_model(ModelRequest("digits", (), (12, 8), "gelu", how, out), Silence())
    return str(out)


def config(model: str, **changes) -> dict:
    raw = {
        "name": "tiny",
        "sweep": {
            "model": model,
            "task": "digits",
            "nodes": ["lib", "pca"],
            "method": "interactions",
            "steps": 2,
            "rule": "right",
        },
        "bases": {"cut": {"variance": 1e-6}},
        "interactions": {"keep_inputs": True},
        "edges_needed": {"within": 0.05, "points": 4, "sections": "all"},
        "modules": {"seeds": 2, "rewired": 2},
        "measures": {"bootstrap": 20},
        "data": {"n_build": N, "n_eval": 40},
        "execution": {"executor": "serial", "micro_batch": 16, "shard_inputs": 48},
    }
    return {k: {**raw.get(k, {}), **changes.get(k, {})} if k != "name" else "tiny"
            for k in {**raw, **changes}}  # fmt: skip


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("layers") / "run"
    assert run_tiny(out, config(model)).exit_code == 0
    return RunDirectory.open(out)


def test_stored_interactions_are_the_engine_s(run, model):
    chain = chain_of(load_model(resolve_model(model), "cpu", "float64"))
    data = build_task("digits", None, N, 40, 0, shape=(8, 8))
    batch = PromptBatch.make(data.build)
    inputs = chain.prepare(batch.clean, batch.real)
    bases = made.bases(chain, inputs, cut=made.Cut(1e-6, 1e-12))
    table = read_table(run, INTERACTIONS)
    for start in ("input", "hidden0", "hidden1"):
        wanted = made.interactions(chain, inputs, bases, start, [(0.5, 0.5), (1.0, 0.5)])
        rows = table[(table.basis == "lib") & table.source.str.startswith(f"{start}/")]
        square = wanted.mean_square[:, 1:].numpy()
        assert len(rows) == min(square.size, 2000)
        ends = [rows[c].str.rpartition("/d")[2].astype(int) for c in ("target", "source")]
        np.testing.assert_allclose(
            rows.mean_square, square[ends[0], ends[1]], atol=1e-6 * square.max()
        )
        assert rows.residual.iloc[0] == pytest.approx(float(wanted.residual), rel=1e-4, abs=1e-9)


def test_tables_say_what_is_needed(run):
    needed, spectra = read_table(run, EDGES_NEEDED), read_table(run, SPECTRA)
    assert needed.search.value_counts().to_dict() == {"robust": 8, "bisect": 6, "own": 2}
    robust, own = (needed[needed.search == name] for name in ("robust", "own"))
    each = robust[robust.target != "logits"].groupby("basis").edges.sum()
    last = robust[(robust.source == "hidden1")].set_index("basis").edges
    assert (own.set_index("basis").edges == each + last).all()
    assert set(zip(own.source, own.target, strict=True)) == {("input", "logits")}
    assert ((robust.low <= robust.high) & (robust.edges <= 1 + 65 * 13)).all()
    assert not spectra[(spectra.basis == "lib") & (spectra.of == "spectrum")].empty
    directions = read_table(run, DIRECTIONS)
    last = directions.sort_values("directions").groupby(["basis", "layer"]).score.last()
    assert np.ptp(last) == 0  # at the end each layer is as it was
    page = render(load_run(run.path))
    for title in ("Interactions that are needed", "Interaction graphs", "Spectra of layers"):
        assert f"<h2>{title}</h2>" in page


def test_modules_are_those_of_the_interactions_that_are_needed(run):
    pytest.importorskip("leidenalg")
    modules, worth = read_table(run, MODULES), read_table(run, MODULARITY)
    needed, edges = read_table(run, EDGES_NEEDED), read_table(run, INTERACTIONS)
    assert set(modules.layer) == {"input", "hidden0", "hidden1"}
    for about in worth[worth.resolution == 1].to_dict("records"):
        mine = modules[(modules.graph == about["graph"]) & (modules.resolution == 1)]
        block = mine.set_index("node").module
        parts = []
        for start in ("input", "hidden0"):
            kept = needed[(needed.graph == about["graph"]) & (needed.source == start)]
            kept = int(kept[kept.search == "bisect"].kept.iloc[0])
            rows = edges[(edges.graph == about["graph"]) & edges.source.str.startswith(f"{start}/")]
            rows = rows.sort_values("mean_square", ascending=False).head(kept)
            parts.append(rows.assign(w=np.log(rows.mean_square / rows.mean_square.min())))
        weights = pd.concat(parts)
        weights = weights[weights.w > 0]
        assert (about["n_edges"], about["n_rewired"]) == (len(weights), 2)
        ends = [weights[c].map(block) for c in ("source", "target")]
        strength = np.zeros(block.max() + 1)
        for end in ends:
            np.add.at(strength, end, weights.w)
        twice = 2 * weights.w.sum()
        q = 2 * weights.w[ends[0] == ends[1]].sum() / twice - ((strength / twice) ** 2).sum()
        assert about["q"] == pytest.approx(q)
    data = load_run(run.path)
    page = render(data)
    assert "<h2>Modules</h2>" in page
    assert "interactions that are needed by the published search (Leiden" in page
    needed = data.layered["edges_needed"]
    data.layered["edges_needed"] = needed[needed["search"] != "bisect"]
    assert "interactions that are needed by the robust rule (Leiden" in render(data)


def test_what_is_redone_has_the_same_bytes(run, model, tmp_path):
    """A shard of every stage is lost; the run ends as it was."""
    again = tmp_path / "run"
    shutil.copytree(run.path, again)
    log = CommitLog(RunDirectory.open(again))
    for stage in log.stages():
        for write in log.record(stage, log.keys(stage)[0])["writes"]:
            lost = again / (write.get("file") or f"attributions.zarr/{write['array']}/c/0/0/0")
            lost.write_bytes(b"lost")
    assert run_tiny(again, config(model)).exit_code == 0
    assert contents(again, *FILES) == contents(run.path, *FILES)


def test_each_input_s_interactions_are_kept(run):
    """They sum to what is stored of all; what is cut is NaN."""
    graph = es.open(run.path).interaction_graph("lib")
    for start, width in (("input", 64), ("hidden0", 12)):
        found, stored = graph.inputs(start), graph.interactions(start).mean_square
        assert found.dims == ("input", "target", "source")
        assert found.sizes["input"] == N
        assert found.sizes["source"] == 1 + graph.bases[start].k <= 1 + width
        np.testing.assert_allclose(found.mean("input"), stored, rtol=1e-5)
        array = open_array(run.attributions, f"{graph.about['key']}/{start}/inputs")
        assert array.shape[2] == 1 + width
        assert 48 % array.chunks[0] == 0
        assert np.isnan(array[:, :, found.sizes["source"] :]).all()


def test_a_graph_leaves_as_graphml_and_its_bases_as_a_file(run, tmp_path):
    graph = es.open(run.path).interaction_graph("pca")
    circuit = graph.circuit("bisect")
    needed = read_table(run, EDGES_NEEDED).query("basis == 'pca' and search == 'bisect'")
    assert circuit.n_edges == needed.kept.sum()
    table = read_table(run, INTERACTIONS).query("basis == 'pca'")
    strongest = table.sort_values("mean_square").iloc[-1]
    name = f"{strongest.source}->{strongest.target}"
    assert circuit.edges[name] == pytest.approx(strongest.mean_square**0.5)
    circuit.to_graphml(tmp_path / "graph.graphml")
    again = networkx.read_graphml(tmp_path / "graph.graphml")
    assert set(again.edges) == set(circuit.to_networkx().edges)
    circuit.to_json(tmp_path / "graph.json")
    loaded = es.load_circuit(tmp_path / "graph.json")
    assert (loaded.edges, loaded.selected) == (circuit.edges, circuit.selected)
    graph.save_bases(tmp_path / "bases.safetensors")
    with safe_open(tmp_path / "bases.safetensors", "pt") as file:
        told = file.metadata()
        assert (told["basis"], told["layers"]) == ("pca", "input,hidden0,hidden1,logits")
        encode = file.get_tensor("hidden0/encode")
    assert torch.equal(encode, graph.bases["hidden0"].encode)
    assert graph.circuit(n_edges=2).n_edges == 6
    with pytest.raises(ValueError, match=r"no edges needed by search 'x' \(there: bisect, robust"):
        graph.circuit("x")
    with pytest.raises(ValueError, match="no interaction graph is so; there is lib of digits-mlp"):
        es.open(run.path).interaction_graph("gib")


def test_a_dry_run_says_what_it_takes(model):
    told = describe(make_plan(resolve(parse_config(config(model)))))
    assert "lib, interactions, 2 steps (right); input (64) -> hidden0 (12)" in told
    assert "memory: 0." in told
    kept = 2 * 4 * N * (12 * 65 + 8 * 13 + 10 * 9) / 1e6
    assert f"interactions of each input (interactions.keep_inputs): {kept:.1f} MB" in told


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("sweep", {"method": "eap"}, "sweep.method: 'interactions' is for nodes lib, gib, pca"),
        ("sweep", {"rule": "trapezoid", "steps": 1}, "sweep.steps: 1 is too few for rule"),
        ("bases", {"layers": ["hidden0", "input"]}, "not in forward order; give input, hidden0"),
        ("bases", {"layers": ["input", "hiden1"]}, "'hiden1' is no cut .*did you mean 'hidden1'"),
        ("bases", {"layers": ["input", "input"]}, "has 'input' twice"),
        ("bases", {"layers": ["input"]}, "fewer than two layers"),
        ("bases", {"sources": 2}, "bases.sources: 2, and no section of .* mixes positions"),
        ("bases", {"norms": "split"}, "it has no norms; allowed: bases.norms whole"),
        ("bases", {"positions": "all"}, "it has no positions; allowed: bases.positions read"),
        ("bases", {"norms": "folded"}, "bases.norms: 'folded' .*allowed: whole, split"),
        ("edges_needed", {"within": 0}, "edges_needed.within: 0 is out of range"),
        ("edges_needed", {"within": 2}, "within is 2; of accuracy allowed: at most 1"),
        ("modules", {"resolution": [1.0, 1.0]}, "modules.resolution: .* has 1.0 twice"),
        ("modules", {"seeds": 0}, "modules.seeds: 0 is out of range"),
        ("edges_needed", {"metric": "logit_diff"}, "edges_needed.metric: 'logit_diff' is not k"),
        ("data", {"n_build": 40}, "data.n_build: 40 prompts give 40 vectors at 'input'.*rank 40"),
    ],
)
def test_what_cannot_be_is_refused(model, section, change, message):
    with pytest.raises(ConfigError, match=message):
        resolve(parse_config(config(model, **{section: change})))


def test_a_set_of_dictionaries_may_be_called_pca():
    raw = {
        "name": "x",
        "sweep": {"nodes": ["heads", "pca"]},
        "features": {"pca": {"dictionaries": {"resid1": {"kind": "pca"}}}},
    }
    assert parse_config(raw).bases_of == ()


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("models") / "modadd"
    how = Modadd(7, 16, 2, 64, share=0.9, steps=300, lr=3e-3, weight_decay=3.0)  # four of five
    train_sums(ModaddRequest(how, out), Silence())
    return str(out)


def sums_config(model: str, n_eval: int) -> dict:
    """Modular addition; with 5 evaluation prompts the whole grid of 7 by 7."""
    sweep = {"model": model, "task": "modadd", "nodes": ["lib"], "method": "interactions"}
    changed = {"sweep": sweep, "data": {"n_build": 44, "n_eval": n_eval}}
    more = {"edges_needed": {"points": 2}, "modules": {"sbm": True}}
    return config(model, **changed, **more)


def test_directions_on_a_whole_grid_have_labels(sums, tmp_path):
    """Of the bases that are stored, on all inputs in the grid's own order."""
    out = tmp_path / "run"
    assert run_tiny(out, sums_config(sums, 5)).exit_code == 0
    run = RunDirectory.open(out)
    table = read_table(run, LABELS)
    assert set(table.layer) == {"embed", "mid0", "resid0"}
    plan = make_plan(resolve(parse_config(sums_config(sums, 5))))
    (graph,) = plan.graphs
    chain = chain_of(load_model(resolve_model(sums), "cpu", "float64"))
    xy = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    inputs = made.prepared(chain, torch.cat([xy, torch.full((49, 1), 7)], 1))
    for layer, mine in table.groupby("layer"):
        basis = read_basis(run, CommitLog(run), graph.basis, layer)
        f_hat = basis.encoded(made.value_at(chain, layer, inputs)).sum(1)
        assert set(mine.direction) == set(range(min(basis.k, 25)))
        for direction, rows in mine.groupby("direction"):
            wanted = label(f_hat[:, direction].reshape(7, 7).detach().numpy())
            rows = rows.sort_values("rank")
            assert rows.share.tolist() == pytest.approx([term.share for term in wanted], abs=1e-6)
            if len(wanted) == 1 or wanted[0].share > wanted[1].share + 1e-6:
                assert rows.term.iloc[0] == wanted[0].name
    page = render(load_run(run.path))
    assert "<h2>What directions are of</h2>" in page
    if find_interpreter():
        (fitted,) = read_table(run, MODULARITY).query("method == 'sbm'").to_dict("records")
        assert fitted["length"] <= fitted["one_a_layer"]
        assert "agreement of chains" in page


def test_prompts_that_are_no_whole_grid_have_none(sums):
    plan = make_plan(resolve(parse_config(sums_config(sums, 4))))
    assert "labels" not in plan.stages or not plan.stages["labels"]


class Listening(Silence):
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def test_of_a_network_that_only_guesses_edges_needed_are_left_out_and_it_is_said(sums, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(sums, wrong)
    weights = load_file(wrong / "model.safetensors")
    weights["unembed.b_U"][7] = 1e3  # the token `=`, which is no sum
    with safe_open(wrong / "model.safetensors", "pt") as file:
        header = file.metadata()
    save_file(weights, wrong / "model.safetensors", header)
    told = Listening()
    started = launch.start(parse_config(sums_config(str(wrong), 4)), tmp_path / "run")
    assert launch.drive(started, told).exit_code == 0
    (line,) = [line for line in told.said if "by chance" in line]
    assert "accuracy of the network as it is, 0, is worse than by chance, 0.125; its" in line
    run = RunDirectory.open(tmp_path / "run")
    assert read_table(run, EDGES_NEEDED).empty
    assert len(read_table(run, INTERACTIONS))
    assert "No section of this run was searched" in render(load_run(run.path))
