"""Regions of interest in a sweep of a small network of images: the numbers, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.engine.blockmodel import chain_seeds, find_interpreter
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.regions.ablation import Regions, class_labels
from edgesweep.engine.regions.correlation import correlation, layer, moments_of
from edgesweep.engine.regions.encoding import Encoding
from edgesweep.engine.regions.encodings import fit_encoded
from edgesweep.engine.regions.site import UnitSite, patch_values
from edgesweep.engine.regions.weighted import fit_blocks
from edgesweep.engine.training import NetworkTraining
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.tables import (
    REGION_ABLATION,
    REGION_AREAS,
    REGION_CLASSES,
    REGION_FITS,
    REGION_PICTURES,
    REGION_VIEWS,
    REGIONS,
    ROIS,
    read_table,
)
from edgesweep.sweeps.command.cli import drive_and_tell
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.interactions.files import read_tensors
from edgesweep.sweeps.launch import start
from edgesweep.sweeps.plan.estimates import describe
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.stages.blockmodels import blocks
from edgesweep.tasks import build_task
from tests.sweeps.helpers import FailsStages, Faulty, committed, contents, run_tiny

N, HELD = 96, 90
FILES = ("regions", *(table.file for table in ROIS))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("models") / "digits-cnn"
    how = NetworkTraining(epochs=12, lr=5e-3)
    train_model(ModelRequest("digits", (4,), (9,), "relu", how, out), Silence())
    return str(out)


def config(model: str, **changes) -> dict:
    raw = {
        "name": "tiny",
        "sweep": {
            "model": model,
            "task": "digits",
            "nodes": "rois",
            "method": "node_ig",
            "steps": 2,
            "build_patch": "mean",
        },
        "rois": {
            "sites": "conv0",
            "blocks": ["auto", 5],
            "partition": ["sbm", "random", "ward", "cocluster"],
            "chains": 2,
            "draws": 2,
            "tau": [0, 0.1, 0.5, 1],
            "judge": False,
        },
        "evaluate": {"eval_patch": ["zero", "mean"], "metric": "nll"},
        "measures": {"bootstrap": 20},
        "data": {"n_build": N, "n_eval": HELD},
        "execution": {"executor": "serial", "micro_batch": 16, "shard_inputs": 40},
    }
    return {
        key: {**raw.get(key, {}), **changes.get(key, {})} if key != "name" else "tiny"
        for key in {**raw, **changes}
    }


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("rois") / "run"
    assert run_tiny(out, config(model)).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def found(model):
    """The same by hand: site, attributions, what is attributed, correlations, partition."""
    site = UnitSite.of(load_model(resolve_model(model)), "conv0")
    build = build_task("digits", None, N, HELD, 0, shape=(8, 8)).build
    values = site.values(build)
    patch = patch_values(site, "mean", build, site.values(build, "patch").double().mean(0).float())
    classes = site.predicted(values)
    scores = site.attributions(values, patch, classes, points("midpoint", 2))
    ties = correlation(moments_of(scores))
    chains = [fit_blocks(ties.z, seed) for seed in chain_seeds(0, 2)]
    best = min(chains, key=lambda chain: chain.length)
    return site, scores, classes, ties, best


def test_regions_are_the_engine_s(run, found):
    site, scores, classes, ties, best = found
    fits = read_table(run, REGION_FITS)
    assert fits["length"].min() == pytest.approx(best.length, rel=1e-6)
    assert (fits["n_live"] == len(ties.live)).all()
    table = read_table(run, REGIONS)
    mine = table[table["partition"] == "sbm"].sort_values("unit")
    regions = Regions.among(site.n_units, ties.live, best.blocks)
    assert mine["roi"].tolist() == regions.of.tolist()
    means = np.stack([scores[classes == c].mean(0) for c in range(10)])
    assert mine["dead"].tolist() == (regions.of < 0).tolist()
    said = read_table(run, REGION_CLASSES)
    said = said[said["partition"] == "sbm"].pivot_table(
        index="class", columns="roi", values="attribution"
    )
    of_regions = regions.scores(means)
    np.testing.assert_allclose(said.to_numpy(), of_regions, rtol=1e-4, atol=1e-6)
    labels = class_labels(of_regions)[regions.of[regions.of >= 0]]
    assert mine.loc[~mine["dead"], "label"].tolist() == labels.tolist()


def test_tables_say_what_is_left(run, model):
    """All regions gone is the patch for every input; none gone is the network."""
    table = read_table(run, REGION_ABLATION)
    assert set(table["metric"]) == {"accuracy", "nll"}
    assert set(table["partition"]) == {"sbm", "random", "ward", "cocluster"}
    curves = table[(table["on"] == -1) & (table["metric"] == "accuracy")]
    whole = curves[curves["share_of_units"] == 0]["value"]
    assert whole.nunique() == 1
    assert whole.iloc[0] > 0.6
    network = load_model(resolve_model(model))
    site = UnitSite.of(network, "conv0")
    held = build_task("digits", None, N, HELD, 0, shape=(8, 8)).evaluation
    told = site.predicted(site.values(held)) == [e.good[0] for e in held]
    assert whole.iloc[0] == pytest.approx(told.mean())
    assert ((curves["low"] <= curves["value"]) & (curves["value"] <= curves["high"])).all()
    areas = read_table(run, REGION_AREAS)
    random = areas[areas["partition"] == "random"]
    assert random["beside_random"].abs().max() < 1e-12
    zero = areas[(areas["eval_patch"] == "zero") & (areas["side"] == "ablate")]
    assert set(zero[zero["asked"] == 5]["n_blocks"]) == {5}
    views, pictures = read_table(run, REGION_VIEWS), read_table(run, REGION_PICTURES)
    assert set(views["roi"]) == set(pictures["roi"])
    page = render(load_run(run.path))
    for title in (
        *("Regions beside other partitions", "Without the strongest regions"),
        *("What regions say of each class", "Without the regions of a class", "What regions see"),
    ):
        assert f"<h2>{title}</h2>" in page


def test_what_failed_or_was_lost_has_the_same_bytes(run, model, tmp_path):
    """A run whose partitions fail at first; then a shard of every stage is lost."""
    again = tmp_path / "run"
    failing = Faulty(before=FailsStages(("partitions",)))
    assert run_tiny(again, config(model), failing).exit_code == 3
    assert run_tiny(again, config(model)).exit_code == 0
    assert contents(again, *FILES) == contents(run.path, *FILES)
    log = CommitLog(RunDirectory.open(again))
    for stage in log.stages():
        for write in log.record(stage, log.keys(stage)[-1])["writes"]:
            (again / write["file"]).write_bytes(b"lost")
    assert run_tiny(again, config(model)).exit_code == 0
    assert contents(again, *FILES) == contents(run.path, *FILES)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_the_serial_executor(run, model, tmp_path):
    out = tmp_path / "run"
    execution = {"executor": "ray", "actors": 2}
    assert run_tiny(out, config(model, execution=execution)).exit_code == 0
    assert contents(out, *FILES) == contents(run.path, *FILES)


@pytest.mark.slow
@pytest.mark.skipif(find_interpreter() is None, reason="no graph-tool")
def test_the_judge_agrees_and_further_patches_and_sites_run(model, tmp_path):
    sites = {"sites": ["input", "conv0"], "unit": "neuron", "of": "activation", "score": "sum"}
    changes = {"rois": {**sites, "judge": True, "partition": ["sbm", "random", "singletons"]}}
    sweep = {"build_patch": ["counterfactual", "resample"]}
    raw = config(model, **changes, sweep=sweep, evaluate={"eval_patch": "counterfactual"})
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    fits = read_table(run, REGION_FITS)
    judged = fits[fits["chain"] == -1]
    assert len(judged) == 4
    shortest = fits[fits["chain"] >= 0].groupby("units")["length"].min()
    given = judged.set_index("units")["given"]
    assert given.sort_index().tolist() == pytest.approx(shortest.tolist(), rel=1e-8)
    assert "What regions see" in render(load_run(run.path))


@pytest.mark.slow
@pytest.mark.skipif(find_interpreter() is None, reason="no graph-tool")
def test_the_published_block_model_is_graph_tools_and_is_not_judged(model, tmp_path):
    published = {"model": "microcanonical", "fit": "nested", "encoding": "published", "level": 1}
    raw = config(model, rois={**published, "chains": 1, "judge": True, "partition": ["sbm"]})
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    fits = read_table(RunDirectory.open(tmp_path / "run"), REGION_FITS)
    assert fits["chain"].tolist() == [0]


@pytest.mark.slow
@pytest.mark.skipif(find_interpreter() is None, reason="no graph-tool")
def test_layers_are_of_the_classes_that_are_attributed(model, found, tmp_path):
    rois = {"layers": "class", "chains": 1, "judge": True, "partition": ["sbm", "random"]}
    raw = config(model, rois=rois)
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    _, scores, classes, ties, _ = found
    plan = make_plan(resolve(parse_config(raw)))
    stored = read_tensors(run, CommitLog(run), "unit_ties", plan.rois[0].key)["layers"].numpy()
    layers = [layer(moments_of(scores[classes == c]), ties.live) for c in range(10)]
    np.testing.assert_allclose(stored, layers, rtol=1e-5, atol=1e-7)
    how, seed = Encoding(layers="class"), chain_seeds(0, 1)[0]
    blocks = fit_encoded(stored, how, seed, find_interpreter()).partition.blocks
    table = read_table(run, REGIONS).query("partition == 'sbm' and not dead")
    assert table.sort_values("unit")["roi"].tolist() == blocks.tolist()
    assert read_table(run, REGION_FITS)["engine"].tolist() == ["graph-tool"]
    assert "one partition for all classes, each a layer" in render(load_run(run.path))
    assert "1 chains of 10 layers, 5 partitions" in describe(plan)


def test_a_class_of_too_few_inputs_has_no_layer(model, tmp_path, capsys):
    """Of true labels it is known at once; of predicted ones once there are some."""
    rois = {"layers": "class", "partition": ["sbm"], "target": "label"}
    few = {"n_build": 30, "n_eval": HELD}
    message = (
        r"rois.layers: class (\d) has [123] of 30 build inputs, too few for correlations of its "
        r"own; allowed: 4 or more of each class \(data.n_build\), or layers none"
    )
    with pytest.raises(ConfigError, match=message):
        resolve(parse_config(config(model, rois=rois, data=few)))
    raw = config(model, rois=rois | {"target": "predicted"}, data=few)
    assert drive_and_tell(start(parse_config(raw), tmp_path / "run"), page=None) == 2
    assert re.fullmatch("error: " + message, capsys.readouterr().err.splitlines()[-1])


def test_a_dry_run_says_what_it_takes(model):
    told = describe(make_plan(resolve(parse_config(config(model)))))
    assert "rois of conv0 (64 neurons), attribution of the predicted class, mean, 2 steps" in told
    assert "2 chains, 9 partitions, 4 shares of regions" in told


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("sweep", {"method": "eap"}, "sweep.method: 'eap' attributes no 'rois'; allowed .*node_ig"),
        ("sweep", {"method": ["node_ig", "eap"]}, "'eap' attributes no 'rois'"),
        ("sweep", {"build_patch": "noise"}, "sweep.build_patch: 'noise' stands in for no unit"),
        ("evaluate", {"eval_patch": "noise"}, "evaluate.eval_patch: 'noise' stands in for no unit"),
        ("sweep", {"rule": "trapezoid", "steps": 1}, "sweep.steps: 1 is too few for rule"),
        (
            "sweep",
            {"model": "tiny-random", "task": "ioi"},
            "'tiny-random' reads tokens, and 'rois'",
        ),
        ("rois", {"sites": "conv7"}, "rois.sites: 'conv7' is no site; sites are input, conv0"),
        ("rois", {"sites": "hidden0", "unit": "channel"}, "'hidden0' has no channels"),
        ("rois", {"max_units": 50}, "rois.sites: 64 units are more than 50: .*0.0 GiB; take chann"),
        ("rois", {"partition": ["sbm", "x"]}, "rois.partition: 'x' is not known; allowed: sbm"),
        ("rois", {"blocks": [500]}, "rois.blocks: 500 of 64 units at 'conv0'; allowed: 1 to 64"),
        ("rois", {"blocks": ["five"]}, "rois.blocks: .*has 'five'; allowed: auto, or numbers"),
        ("rois", {"tau": [0, 2]}, r"rois.tau: \[0, 2\] has 2; allowed: 0 to 1"),
        ("rois", {"dead": "x"}, "rois.dead: 'x' is no variance; allowed: relative, or a number"),
        ("rois", {"fit": "nested"}, "rois: .*fit 'nested' has model 'nix'; allowed with it: micro"),
        (
            "rois",
            {"layers": "class", "fit": "nested", "model": "microcanonical"},
            "rois: .*layers 'class' has fit 'nested'; allowed with it: flat",
        ),
        (
            "rois",
            {"layers": "class", "partition": ["ward"]},
            "rois: .*layers 'class' are of the block model, and partition has no 'sbm'; allowed: ",
        ),
        ("rois", {"layers": "task"}, "rois.layers: 'task' is not known; allowed: none, class"),
        ("rois", {"level": -1}, "rois.level: .*is -1; allowed: auto, or a level, 0 or more"),
        ("rois", {"chain": 2}, "unknown key 'rois.chain'; did you mean 'chains'"),
        ("data", {"n_build": 12}, "data.n_build: none of 12 examples of 'digits' is of class"),
    ],
)
def test_what_cannot_be_is_refused(model, section, change, message):
    with pytest.raises(ConfigError, match=message):
        resolve(parse_config(config(model, **{section: change})))


def test_more_blocks_than_units_that_live_end_the_run_in_one_line(model, tmp_path, capsys):
    """Corners of the images are never lit: so much is known once the images have been seen."""
    raw = config(model, rois={"sites": "input", "blocks": [64], "partition": ["ward"]})
    assert drive_and_tell(start(parse_config(raw), tmp_path / "run"), page=None) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"error: rois.blocks: 64 of (\d+) live units at 'input' of '\S+' on 'digits' \(\d+ of 64 "
        r"do not vary\); allowed: 1 to \1",
        said,
    )
    assert [stage for stage, keys in committed(tmp_path / "run").items() if keys] == [
        *("unit_means", "unit_moments")
    ]


def test_what_graph_tool_alone_fits_is_left_out_without_it(model, monkeypatch):
    monkeypatch.setattr(blocks, "find_interpreter", lambda setting: None)
    published = {"model": "microcanonical", "fit": "nested", "encoding": "published", "level": 1}
    for rois, wanted in (
        ({"layers": "class"}, {"region_chains", "partitions", "region_ablation", "region_views"}),
        (published, {"region_chains", "partitions", "region_ablation", "region_views"}),
        ({"judge": True}, {"region_judge"}),
        ({}, set()),
    ):
        plan = make_plan(resolve(parse_config(config(model, rois=rois))))
        planned = (name for name, shards in plan.stages.items() if shards)
        assert {name for name in planned if plan.stage(name).lacks(plan)} == wanted
