"""From `features` in a config to sites, dictionaries and numbers of nodes; what is refused."""

import pickle
import shutil

import numpy as np
import pytest

from edgesweep.engine.dictionaries.base import Identity, NoDictionary, Relu
from edgesweep.engine.dictionaries.files import save_dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.sweeps.actor.context import Context
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config, parse_config
from edgesweep.sweeps.granularity.featuresets import FeatureSet
from edgesweep.sweeps.launch import start, worker_settings
from edgesweep.sweeps.prepare import prepare
from edgesweep.sweeps.stages import dictionaries
from edgesweep.sweeps.stages.dictionaries import Dictionaries
from tests.sweeps.featuresets import TRAINED, WIDTH, chosen, config, relu
from tests.sweeps.test_run import write_own_task

# --- what is refused ---------------------------------------------------------------------------


def refused(raw: dict, tmp_path) -> str:
    """The one line with which a config is refused; nothing is written."""
    out = tmp_path / "run"
    with pytest.raises(ConfigError) as refusal:
        start(parse_config(raw), out)
    assert not out.exists()
    line = str(refusal.value)
    assert "\n" not in line
    return line


BAD_SITES = [
    (
        {},
        "features.dictionaries: is empty; nodes 'features' need the dictionary of one site at "
        "least, as in {resid3: ./dictionaries/resid3} or {resid*: {kind: topk}}",
    ),
    (
        {"resid9": "identity"},
        "features.dictionaries: 'resid9' is no site; sites are embed, and attn0, mlp0, resid0 to "
        "attn3, mlp3, resid3",
    ),
    ({"resid**": "identity"}, "features.dictionaries: 'resid**' is no site"),
    ({"logits": "identity"}, "features.dictionaries: 'logits' is no site"),
    ({"resid01": "identity"}, "features.dictionaries: 'resid01' is no site; write resid1"),
    (
        {"resid1": {**TRAINED, "k": 33}},
        "features.dictionaries.resid1: k is 33 of 32 features; allowed: 1 to 32",
    ),
    (
        {"attn1": {"kind": "lib"}},
        "features.dictionaries.attn1: kind 'lib' is of sites through which all of the network "
        "runs, such as embed and resid0; allowed here: pca, topk, relu",
    ),
    (
        {"resid1": "nowhere"},
        "features.dictionaries.resid1: dictionary 'nowhere': is not there; allowed: identity, "
        "none, an ae.pt or .safetensors file, ",
    ),
    ({"mlp*": "./no{layer}/ae.pt"}, "features.dictionaries.mlp0: dictionary './no0/ae.pt': "),
]

BAD_ENTRIES = [
    ({"resid1": {"kind": "sparse"}}, ".resid1.kind: 'sparse' is not known; allowed: topk, relu"),
    (
        {"resid1": {"kind": "topk", "featurs": 3}},
        "unknown key 'features.dictionaries.resid1.featurs'; did you mean 'features'?",
    ),
    ({"resid1": {"features": 3}}, "features.dictionaries.resid1.kind is missing; give it a value"),
    ({"resid*": {**TRAINED, "k": 0}}, "dictionaries.resid*.k: 0 is out of range; allowed: 1 or"),
    ({"resid1": {**TRAINED, "lr": 0}}, "dictionaries.resid1.lr: 0 is out of range"),
    ({"resid1": 3}, "features.dictionaries.resid1: 3 is not a text"),
    ({"resid1": None}, "features.dictionaries.resid1: None is not a text"),
    ({"resid1": ""}, "features.dictionaries.resid1: '' is empty; give a name"),
    ({3: "identity"}, "features.dictionaries: 3 is not a text"),
    (["resid1"], "features.dictionaries: ['resid1'] is not a mapping of keys"),
]


@pytest.mark.parametrize(("dictionaries", "message"), BAD_ENTRIES, ids=lambda v: str(v)[:40])
def test_bad_entries_are_refused(dictionaries, message, tmp_path):
    assert message in refused(config(dictionaries), tmp_path)


@pytest.mark.parametrize(("dictionaries", "message"), BAD_SITES, ids=lambda v: str(v)[:24])
def test_bad_sites_are_refused(dictionaries, message, tmp_path):
    assert message in refused(config(dictionaries), tmp_path)


def test_bad_files_are_refused(tmp_path):
    garbage, narrow, code = (tmp_path / f"{n}.pt" for n in ("garbage", "narrow", "code"))
    garbage.write_bytes(b"\x80\x04 not a pickle at all")
    code.write_bytes(pickle.dumps(pytest.raises))
    save_dictionary(relu(width=8), narrow.with_suffix(".safetensors"))
    for path in (garbage, code):
        line = refused(config({"resid1": str(path)}), tmp_path)
        assert line.startswith(f"features.dictionaries.resid1: dictionary '{path}': {path.name} ")
        assert "is no plain state dict" in line
    narrow = narrow.with_suffix(".safetensors")
    assert refused(config({"resid1": str(narrow)}), tmp_path) == (
        f"features.dictionaries.resid1: '{narrow}' is a dictionary of 8 numbers; "
        f"{resolve_model('tiny-random').path} has {WIDTH}"
    )


FOR_HEADS = [
    (
        {"sweep": {"method": ["ig_activations", "exact"]}},
        "sweep.method: 'exact' is for nodes 'heads'; with nodes 'features' allowed: eap, "
        "ig_activations, node_ap, node_ig",
    ),
    (
        {"sweep": {"build_patch": "noise"}},
        "sweep.build_patch: 'noise' is not defined for nodes 'features'; allowed: "
        "counterfactual, resample, mean, zero",
    ),
    (
        {"evaluate": {"eval_patch": ["zero", "noise"]}},
        "evaluate.eval_patch: 'noise' is not defined for nodes 'features'",
    ),
    ({"evaluate": {"complement": True}}, "evaluate.complement: True is for nodes 'heads'"),
    ({"measures": {"minimality": 20}}, "measures.minimality: 20 is for nodes 'heads'"),
    ({"measures": {"interpolate": 2}}, "measures.interpolate: 2 is for nodes 'heads'"),
    (
        {"sweep": {"nodes": "heads"}},
        "features.dictionaries: are given and sweep.nodes has no 'features'; add it, or leave "
        "them out",
    ),
    (
        {"features": {"error": "gone"}},
        "features.error: 'gone' is not known; allowed: node, clean, patch, zero",
    ),
    ({"features": {"target": "logits"}}, "features.target: 'logits' is not known"),
    ({"features": {"keep": 0}}, "features.keep: 0 is out of range; allowed: 1 to 10000000"),
    ({"features": {"errors": "node"}}, "unknown key 'features.errors'; did you mean 'error'?"),
]


@pytest.mark.parametrize(("changes", "message"), FOR_HEADS, ids=lambda v: str(v)[:40])
def test_what_features_cannot_do_is_refused(changes, message, tmp_path):
    assert message in refused(config(**changes), tmp_path)


# --- sites -------------------------------------------------------------------------------------


def test_a_star_is_every_layer_that_has_no_entry_of_its_own(tmp_path):
    for layer in (0, 1, 3):
        save_dictionary(relu(layer, n=5 + layer), tmp_path / f"r{layer}.safetensors")
    found = chosen({"resid*": str(tmp_path / "r{layer}.safetensors"), "resid2": "identity"})
    assert found.sites == ("embed", "resid0", "resid1", "resid2", "resid3")
    assert [d.n_features for d in found.dictionaries] == [0, 5, 6, WIDTH, 8]
    assert found.dictionaries[1].source == str(tmp_path / "r0.safetensors")
    assert found.parents == {
        "embed": (),
        "resid0": ("embed",),
        "resid1": ("resid0",),
        "resid2": ("resid1",),
        "resid3": ("resid2",),
        "logits": ("resid3",),
    }


def test_dictionaries_are_what_the_worker_loads(saved, tmp_path):
    raw = config({"embed": "identity", "attn1": str(saved), "resid3": "none"})
    launch = start(parse_config(raw), tmp_path / "run")
    of_plan = launch.plan.resolved.nodes["tiny-random", "features"].chosen
    features = Context(worker_settings(launch.plan, launch.run)).feature_model(of_plan)
    kinds = {s.name: type(features.dictionary(s.name)) for s in features.sites}
    assert kinds == {"embed": Identity, "attn1": Relu, "resid3": NoDictionary}
    for dictionary in of_plan.dictionaries:
        assert dictionary.n_features == features.dictionary(dictionary.site).n_features
        assert dictionary.digest == features.dictionary(dictionary.site).digest


@pytest.mark.parametrize(
    ("given", "is_path"),
    [
        ("relu.safetensors", True),
        ("relu{layer}.safetensors", True),
        ("d/{layer}/ae.pt", True),
        ("all.zip/d/{layer}/ae.pt", True),
        ("./not/there", True),
        ("none{layer}.safetensors", False),
        ("identity", False),
        ("owner/name:d/{layer}", False),
        ("other.zip/d", False),
    ],
)
def test_a_file_is_found_from_the_config_s_folder(given, is_path, saved, tmp_path, monkeypatch):
    (tmp_path / "d" / "3").mkdir(parents=True)
    for name in ("relu3.safetensors", "d/3/ae.pt", "all.zip"):
        shutil.copy(saved, tmp_path / name)
    file = tmp_path / "c.yaml"
    file.write_text(
        f"name: x\nsweep: {{nodes: features}}\nfeatures: {{dictionaries: {{resid3: '{given}'}}}}"
    )
    monkeypatch.chdir("/")
    found = load_config(str(file)).features["features"].dictionaries
    assert found == {"resid3": str((tmp_path / given).resolve()) if is_path else given}


@pytest.mark.parametrize(("prompts", "n_texts"), [(8, 16), (100, 8)])
def test_dictionaries_are_not_trained_on_evaluation_prompts(
    prompts, n_texts, tmp_path, monkeypatch
):
    """A file's prompts beside those of the evaluation split; too few of them: the build split. How
    well they do is measured on what was held out."""
    own, seen = tmp_path / "mine.jsonl", []
    write_own_task(own, 12)
    real = dictionaries.activations

    def watched(model, site, texts, micro_batch):
        seen.append(list(texts))
        return real(model, site, texts, micro_batch)

    monkeypatch.setattr(dictionaries, "activations", watched)
    raw = config({"resid1": {**TRAINED, "prompts": prompts}}, sweep={"task": str(own)})
    launch = start(parse_config(raw), tmp_path / "run")
    prepare(launch.run, launch.plan)
    context = Context(worker_settings(launch.plan, launch.run))
    (shard,) = launch.plan.stages["dictionaries"]
    fit = Dictionaries().run(context, shard)[1]["fit"]
    (dataset,) = launch.plan.resolved.datasets.values()
    evaluated = {p.clean for p in dataset.data.evaluation}
    assert len(evaluated) == 4
    trained_on, held_out = seen
    assert len(trained_on) == n_texts
    assert not evaluated & set(trained_on)
    of_evaluation = {t for p in dataset.data.evaluation for t in (p.clean, p.patch)}
    assert set(held_out) == of_evaluation - set(trained_on) >= evaluated
    assert fit["positions"] + fit["sinks"] == sum(map(len, held_out))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dictionaries_are_trained_and_spliced_whatever_the_model_s_precision(dtype, tmp_path):
    raw = config({"resid1": TRAINED}, execution={"dtype": dtype})
    launch = start(parse_config(raw), tmp_path / "run")
    prepare(launch.run, launch.plan)
    context = Context(worker_settings(launch.plan, launch.run))
    (shard,) = launch.plan.stages["dictionaries"]
    fit = Dictionaries().run(context, shard)[1]["fit"]
    assert 0 < fit["loss_clean"] < 20
    assert np.isfinite(fit["loss_spliced"])


# --- numbers -----------------------------------------------------------------------------------


@pytest.fixture
def three(saved) -> FeatureSet:
    return chosen({"embed": "none", "mlp1": str(saved), "resid2": "identity"})


def test_numbers_are_the_engine_s(three, saved):
    model = load_model(resolve_model("tiny-random"))
    given = {"embed": NoDictionary(WIDTH), "mlp1": relu(), "resid2": Identity(WIDTH)}
    numbers = FeatureModel(model, given).numbers
    assert [*three.numbers.first.values(), three.n_nodes] == [
        *numbers.first.values(),
        numbers.logits,
    ]
    assert three.n_nodes == numbers.logits == 0 + 1 + 5 + 1 + WIDTH + 1
    everything = three.complete_graph(np.arange(three.n_nodes))
    assert list(everything.nodes) == [numbers.name(i) for i in range(numbers.logits + 1)]
    assert three.numbers.of(everything).tolist() == list(range(three.n_nodes))
    assert everything.n_edges == 1 * 6 + (1 + 6) * (WIDTH + 1) + WIDTH + 1


def test_a_graph_has_the_edges_between_its_numbers(three):
    # embed/err 0; mlp1/f0..f4 1..5, err 6; resid2/f0.. 7.., err 39; logits 40
    ends = np.array([(0, 3), (0, 6), (6, 7), (3, 39), (0, 39), (7, 40), (39, 40)])
    graph = three.graph(*ends[[5, 0, 3, 1, 6, 2, 4]].T)
    assert graph.nodes == (
        "embed/err", "mlp1/f2", "mlp1/err", "resid2/f0", "resid2/err", "logits",
    )  # fmt: skip
    assert three.numbers.of(graph).tolist() == [0, 3, 6, 7, 39]
    in_order = ends[np.lexsort((ends[:, 0], ends[:, 1]))]
    everything = np.append(three.numbers.of(graph), three.n_nodes)
    targets = everything[graph.edge_target + graph.n_roots]
    assert everything[graph.edge_source].tolist() == in_order[:, 0].tolist()
    assert targets.tolist() == in_order[:, 1].tolist()


def test_a_complete_graph_is_that_of_its_names(three):
    graph = three.complete_graph(np.array([39, 0, 5, 5]))
    nodes = {"embed": [-1], "mlp1": [4], "resid2": [-1]}
    by_name = FeatureGraph.complete(three.parents, nodes)
    assert graph.nodes == by_name.nodes == ("embed/err", "mlp1/f4", "resid2/err", "logits")
    assert graph.n_edges == by_name.n_edges == 4


def test_nothing_was_found(three):
    none = np.zeros(0, dtype=np.int64)
    assert three.graph(none, none).nodes == ("logits",)
    assert three.graph(none, none).n_edges == three.complete_graph(none).n_edges == 0


def test_edges_past_a_site_are_refused(three):
    with pytest.raises(ValueError, match="embed/err->logits: logits does not read its site"):
        three.graph(np.array([0]), np.array([40]))
