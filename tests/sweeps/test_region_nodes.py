"""Regions of features as a kind of nodes: a sweep gives what the engine gives, and heads are one
partition."""

import numpy as np
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.engine.bases.moments import fold
from edgesweep.engine.dictionaries.base import Identity, NoDictionary
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_clean, attribute_nodes
from edgesweep.engine.features.values import make_feature_patch
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.regions.attribution import region_edges
from edgesweep.engine.regions.correlation import moments_of
from edgesweep.engine.regions.graph import Partitions
from edgesweep.engine.regions.samples import Wanted, parted, samples
from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.arrays import open_array
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.config.fields import ConfigError, UnfitError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.plan.estimates import describe
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.regions.parted.stages import found_in
from tests.sweeps.helpers import (
    DATA,
    FailsStages,
    Faulty,
    assert_ran_is_what_was_counted,
    contents,
    run_tiny,
    tiny,
    uncommit,
)

SITES = {"attn*.z": "identity", "mlp*": "none"}
STAGES = ("feature_moments", "feature_partitions")
FILES = (*DATA, "regions", "means.zarr")
N = 4


def a_set(partition, **regions):
    dictionaries = regions.pop("dictionaries", SITES)
    return {"dictionaries": dictionaries, "regions": {"partition": partition, **regions}}


SETS = {
    "of-heads": a_set("heads"),
    "ward": a_set("ward"),
    "at-clean": a_set("ward", steps=0),
    "random": a_set("random", seed=3),
}


def config(sets=SETS, **changes) -> dict:
    sections = {
        "sweep": {
            "nodes": ["heads", *sets],
            "task": "ioi",
            "method": ["eap", "node_ig"],
            "steps": 2,
        },
        "features": sets,
        "evaluate": {"threshold": [20, 60], "node_threshold": [5, 12], "metric": "logit_diff"},
        "data": {"n_build": N, "n_eval": N},
        "measures": {"bootstrap": 0},
        "execution": {"micro_batch": 4, "shard_inputs": 4},
    }
    names = {*sections, *changes}
    return tiny(**{s: {**sections.get(s, {}), **changes.get(s, {})} for s in names})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("regions") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def plan():
    return make_plan(resolve(parse_config(config())))


def cell_of(plan, nodes, method):
    return next(c for c in plan.cells if (c.nodes, c.method) == (nodes, method))


def partition(run, plan, name) -> dict[str, np.ndarray]:
    """The regions of every site that a run has found."""
    found, log = {}, CommitLog(run)
    for shard in plan.stages["feature_partitions"]:
        if shard.nodes == name:
            tensors = files.read_tensors(run, log, "feature_partitions", shard.key)
            found[shard.of.site] = tensors["regions"].numpy()
    return found


@pytest.fixture(scope="module")
def ends(plan):
    """Both ends of the build prompts."""
    model = load_model(resolve_model("tiny-random"))
    sites = {}
    for layer in range(model.spec.n_layers):
        z = Identity(model.sites.width(f"attn{layer}.z"))
        sites |= {f"attn{layer}.z": z, f"mlp{layer}": NoDictionary(model.d_model)}
    prompts = plan.dataset(plan.cells[0]).data.build
    batch = PromptBatch.make(list(prompts))
    return FeatureBatch.of(FeatureModel(model, sites), batch, make_feature_patch("counterfactual"))


def test_heads_as_regions_score_and_run_as_heads(run, plan):
    heads, regions = (cell_of(plan, nodes, "node_ig") for nodes in ("heads", "of-heads"))
    theirs = np.asarray(open_array(run.attributions, layout.scores(heads.key))[...])
    mine = np.asarray(open_array(run.attributions, layout.scores(regions.key))[...])
    chosen = plan.nodes(regions).chosen
    width = Identity(32).n_features
    of = {d.site: np.arange(width) // 8 for d in chosen.parted()}
    model = FeatureModel(load_model(resolve_model("tiny-random")), _sites(chosen))
    numbers = chosen.numbers.of(Partitions(model, of).complete())
    assert np.abs(mine[:, numbers] - theirs).max() <= 1e-5 * np.abs(theirs).max()
    table = read_table(run, RESULTS)
    table = table[(table["method"] == "node_ig") & (table["ablation"] == "node")]
    keys = ["threshold", "blocks", "subset"] if "subset" in table else ["threshold", "blocks"]
    by = {n: t.set_index(keys)["value"].sort_index() for n, t in table.groupby("nodes")}
    assert len(by["heads"]) > 1
    np.testing.assert_allclose(by["of-heads"], by["heads"], rtol=1e-5, atol=1e-6)


def _sites(chosen):
    return {
        d.site: Identity(d.width) if d.source == "identity" else NoDictionary(d.width)
        for d in chosen.dictionaries
    }


def test_partitions_are_the_engine_s(run, plan, ends):
    gradients = {
        "ward": attribute_nodes(ends, "logit_diff", steps=1),
        "at-clean": attribute_clean(ends, "logit_diff"),
    }
    found = {name: partition(run, plan, name) for name in gradients}
    sites = [(name, site) for name, of in found.items() for site in of]
    assert len(sites) == 2 * ends.features.model.spec.n_layers
    for name, site in sites:
        nodes, regions = gradients[name], found[name][site]
        seen = samples(ends, nodes, [site], over="positions")
        expected = parted(Wanted("ward", 4), seen.shape[1], fold([moments_of(seen)]))
        assert regions.tolist() == expected.tolist()
        assert regions.max() == 3
    drawn = partition(run, plan, "random")["attn0.z"]
    assert np.bincount(drawn).tolist() == [8] * 4
    assert (np.diff(drawn) != 0).sum() > 3


def test_scores_are_the_engine_s(run, plan, ends):
    cell = cell_of(plan, "ward", "eap")
    regions = Partitions(ends.features, partition(run, plan, "ward"))
    graph, settings = regions.complete(), EdgeSettings(steps=1, rule="right")
    nodes = attribute_clean(ends, "logit_diff")
    expected = region_edges(regions, graph, ends, nodes, "logit_diff", settings).weights
    numbers = plan.nodes(cell).chosen.numbers
    every = np.append(numbers.of(graph), numbers.logits)
    codes = every[graph.edge_target + graph.n_roots] * 1000 + every[graph.edge_source]
    stored = {
        name: np.asarray(open_array(run.attributions, layout.listed(cell.key, name))[...])
        for name in ("source", "target", "weight")
    }
    for row in range(N):
        there = stored["target"][row] >= 0
        assert there.sum() == (expected[row].astype(np.float32) != 0).sum()
        mine = stored["target"][row][there] * 1000 + stored["source"][row][there]
        place = np.searchsorted(codes, mine)
        assert (codes[place] == mine).all()
        gap = np.abs(expected[row][place] - stored["weight"][row][there]).max()
        assert gap <= 1e-5 * np.abs(expected[row]).max()


def test_more_regions_than_features_that_vary_end_the_run(plan):
    shard = next(s for s in plan.stages["feature_partitions"] if s.nodes == "ward")
    seen = np.zeros((20, shard.of.n_features))
    seen[:, :3] = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(UnfitError) as caught:
        found_in(Wanted("ward", 4), shard, moments_of(seen))
    assert caught.value.is_refusal
    assert str(caught.value) == (
        "features.ward.regions.blocks: 4 of 3 features that vary (29 of 32 do not); allowed: 1 to "
        "3 at 'attn0.z' of 'tiny-random'"
    )


def test_density_is_of_the_regions_that_there_are(ends, tmp_path):
    """A block model finds fewer than there are places for."""
    raw = config(
        {"found": a_set("sbm", blocks="auto")}, sweep={"nodes": "found", "method": "node_ig"}
    )
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run, plan = RunDirectory.open(tmp_path / "run"), make_plan(resolve(parse_config(raw)))
    n = Partitions(ends.features, partition(run, plan, "found")).complete().n_edges
    table = read_table(run, RESULTS)
    assert set(table["n_edges_possible"]) == {n}
    assert n < plan.nodes(plan.cells[0]).chosen.n_edges_possible
    np.testing.assert_allclose(table["density"], table["n_edges"] / n)


def test_circuits_are_counted_named_and_drawn(run):
    assert_ran_is_what_was_counted(run)
    edges, table = read_table(run, CIRCUITS), read_table(run, RESULTS)
    mine = edges[edges["circuit"].isin(table.query("nodes == 'ward'")["circuit"])]
    assert mine["target"].str.contains(r"^(?:attn\d\.z/(?:roi\d|err)|mlp\d/err|logits)$").all()
    by_edges = table.query("nodes == 'of-heads' and method == 'eap' and ablation == 'edge'")
    sizes = by_edges.groupby("threshold")["n_edges"].max()
    assert (sizes <= sizes.index).all()
    assert (sizes > 0).all()
    page = render(load_run(run.path))
    assert "Nodes are regions of the features of each site" in page
    assert "is found once, for the first build metric and patch" in page


def test_what_failed_or_was_lost_has_the_same_bytes(run, tmp_path):
    """A run whose moments fail at first, and then its partitions; then all shards of both are
    lost."""
    again = tmp_path / "run"
    for stage in STAGES:
        failing = Faulty(before=FailsStages((stage,)))
        assert run_tiny(again, config(), failing).exit_code == 3
    assert run_tiny(again, config()).exit_code == 0
    assert contents(again, *FILES) == contents(run.path, *FILES)
    for stage in STAGES:
        uncommit(again, stage, lambda _: True)
    assert run_tiny(again, config()).exit_code == 0
    assert contents(again, *FILES) == contents(run.path, *FILES)


@pytest.mark.slow
def test_ray_has_the_same_bytes(run, tmp_path):
    raw = config(execution={"executor": "ray", "actors": 2, "micro_batch": 4, "shard_inputs": 4})
    assert run_tiny(tmp_path / "ray", raw).exit_code == 0
    assert contents(tmp_path / "ray", *FILES) == contents(run.path, *FILES)


def test_a_dry_run_counts_it(plan):
    told = describe(plan)
    assert "feature_moments 8, feature_partitions 16" in told
    shards = plan.stages["feature_moments"]
    assert all(plan.stage("feature_moments").passes(plan, s).forwards >= 2 for s in shards)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            a_set("heads", dictionaries={"mlp1.hidden": "identity"}),
            "features.r.regions.blocks: 'heads' are of sites such as attn0.z, and 'mlp1.hidden' "
            "has none; give a number",
        ),
        (
            a_set("heads", dictionaries={"attn0.z": {"kind": "pca"}}),
            "features.r.regions.partition: heads of 'attn0.z' are of its coordinates",
        ),
        (
            a_set("ward", blocks=99),
            "features.r.regions.blocks: 99 of 32 features at 'attn0.z'; allowed: 1 to 32",
        ),
        (
            a_set("ward", dictionaries={"mlp0": "none"}),
            "features.r.regions: no site of the set has features",
        ),
        (
            {**a_set("ward"), "target": "value"},
            "features.r.target: 'value' is of single features, and a region of them has none; "
            "allowed with regions: attribution",
        ),
        (
            {**a_set("ward"), "error": "zero"},
            "features.r.error: 'zero' is of single features",
        ),
        ({**a_set("ward"), "position_shards": 2}, "features.r.position_shards: 2 is of single"),
        (a_set("ward", blocks="auto"), "has blocks 'auto', which only partition 'sbm' finds"),
        (a_set("heads", blocks=3), "has blocks 3 and heads are as many as there are"),
        (
            a_set("ward", blocks=0),
            "features.r.regions.blocks: 0 is no number of regions; allowed: heads",
        ),
        (a_set("wrad"), "features.r.regions.partition: 'wrad' is not known; allowed: heads, "),
        (a_set("ward", chain=3), "unknown key 'features.r.regions.chain'; did you mean 'chains'?"),
        (a_set("ward", over="tokens"), "features.r.regions.over: 'tokens' is not known"),
        ({"dictionaries": SITES, "regions": {}}, "features.r.regions.partition is missing"),
    ],
)
def test_what_cannot_be_is_one_line(given, message):
    with pytest.raises(ConfigError) as caught:
        resolve(parse_config(config({"r": given}, sweep={"nodes": "r"})))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
