"""Models over several devices: which part lies where, and that all numbers are those of one device.

`tests.devices` stands in for the devices that a machine has not: it refuses whatever torch would
refuse to mix. Where there are two (the CPU and a GPU are), they are used as well.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.features.ablation.evaluation import (
    evaluate_feature_circuits,
    evaluate_feature_nodes,
)
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, attribute_edges
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_nodes, node_scores
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model.kinds import kind_of
from edgesweep.engine.model.loading import load_model, resolve_model
from edgesweep.engine.model.placement import Part, place, spans
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.network.base import moved
from edgesweep.engine.network.layers import Layer
from edgesweep.engine.patches import Mean, make_patch, mean_partials, resample_partners
from tests.devices import FIRST, HOST, SECOND, THIRD, Devices, MixedDevices
from tests.evaluation.test_ablation import random_masks
from tests.features.made import MIXED, feature_patch, random_dictionary
from tests.tiny import FAMILIES, assert_agree, prompts

#: with its layers one after the other, side by side, and with norms after them and one matrix that
#: embeds and unembeds
SOME = ("llama", "gpt_neox", "gemma2")
EVERY = [pytest.param(f, marks=[] if f in SOME else pytest.mark.slow) for f in FAMILIES]
TWO, THREE = (FIRST, SECOND), (FIRST, SECOND, THIRD)
PATCHES = ("counterfactual", "resample", "mean", "zero", "noise")


def spread(family: str, devices=TWO, **sizes) -> Model:
    """A tiny model over some devices."""
    hf = tiny_model(family, **sizes).hf
    place(hf, spans(kind_of(hf.config).parts(hf.config), [str(device) for device in devices]))
    return Model(hf, f"tiny-{family}")


def patch_of(model: Model, kind: str):
    if kind == "resample":
        return make_patch(kind, partners=resample_partners(prompts(12), seed=0))
    if kind == "mean":
        parts = mean_partials(model, prompts(6), pooled=True, over="patch", micro_batch=4)
        return Mean({group: part.mean() for group, part in parts.items()}, pooled=True)
    return make_patch(kind)


def scores(model: Model, method: str, kind: str = "counterfactual") -> torch.Tensor:
    """Of every edge or node, and what the method says beside them."""
    batch = PromptBatch.make(prompts(2))
    candidates = np.random.default_rng(0).random(model.graph.n_edges) < 0.2
    settings = Settings(steps=2, tau=0.01, candidates=candidates, rows=8)
    found = METHODS[method].attribute(model, batch, patch_of(model, kind), "logit_diff", settings)
    told = [found.residual, found.metric_clean, found.metric_baseline]
    return torch.cat([found.scores, torch.stack(told, 1).to(found.scores)], 1)


def agree(of, family: str, *given, devices=TWO) -> Devices:
    """That a function of a model gives on several devices what it gives on one."""
    alone = of(tiny_model(family), *given)
    with Devices() as used:
        found = of(spread(family, devices), *given)
    assert_agree(found.nan_to_num(), alone.nan_to_num(), 1e-5)
    return used


# --- spans ---------------------------------------------------------------------------------------
def parts(*sizes: int) -> list[Part]:
    return [Part(f"part {i}", (f"m{i}",), size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "n_devices", "largest", "cut"),
    [
        ((4, 1, 1, 1, 1, 4), 2, 6, [(0, 2), (3, 5)]),
        ((9, 1, 1, 1), 2, 9, [(0, 0), (1, 3)]),
        ((1, 1, 1, 9), 3, 9, [(0, 0), (1, 2), (3, 3)]),
        ((5,), 4, 5, [(0, 0)]),
        ((2, 2), 3, 2, [(0, 0), (1, 1)]),
    ],
)
def test_the_largest_span_is_as_small_as_can_be(sizes, n_devices, largest, cut):
    given = parts(*sizes)
    found = spans(given, [f"d{i}" for i in range(n_devices)])
    assert max(span.n_params for span in found) == largest
    assert [part for span in found for part in span.parts] == given
    ends = [(given.index(s.parts[0]), given.index(s.parts[-1])) for s in found]
    assert len(ends) == len(cut)
    assert [s.device for s in found] == sorted(s.device for s in found)


def test_no_cut_is_better_than_the_one_chosen():
    draw = np.random.default_rng(0)
    for _ in range(20):
        sizes = draw.integers(1, 20, size=7).tolist()
        ways = [
            max(sum(sizes[:a]), sum(sizes[a:b]), sum(sizes[b:]))
            for a in range(8)
            for b in range(a, 8)
        ]
        assert max(s.n_params for s in spans(parts(*sizes), ["a", "b", "c"])) == min(ways)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_all_of_a_model(family):
    hf = tiny_model(family).hf
    found = kind_of(hf.config).parts(hf.config)
    assert sum(part.n_params for part in found) == sum(p.numel() for p in hf.parameters())
    tied = hf.get_output_embeddings().weight is hf.get_input_embeddings().weight
    assert len(found) == hf.config.num_hidden_layers + 2 - tied


def test_a_model_is_loaded_over_devices():
    source = resolve_model("tiny-random")
    model = load_model(source, ["cpu", "meta"])
    where = {name: weight.device.type for name, weight in model.hf.named_parameters()}
    placed = source.spans(["cpu", "meta"])
    assert [str(span) for span in placed] == ["embed to layer 1", "layer 2 to unembed"]
    assert where["model.layers.1.mlp.up_proj.weight"] == "cpu"
    assert where["model.layers.2.mlp.up_proj.weight"] == where["lm_head.weight"] == "meta"
    alone = load_model(source)
    for name, weight in model.hf.named_parameters():
        if weight.device.type == "cpu":
            assert torch.equal(weight, alone.hf.get_parameter(name))


def test_weights_that_are_one_stay_one():
    with Devices():
        hf = spread("gemma2").hf
        assert hf.get_output_embeddings().weight is hf.get_input_embeddings().weight


def test_shapes_over_a_border():
    """The stream of a real run over the CPU and a device that has shapes alone."""

    class EndsThere(Model):
        device = torch.device("meta")

    batch = PromptBatch.make(prompts(2))
    hf = tiny_model("llama").hf
    inputs = Model(hf, "m").prepare(batch.clean, batch.real)
    place(hf, spans(kind_of(hf.config).parts(hf.config), ["cpu", "meta"]))
    model = EndsThere(hf, "m")
    given = zip(model.layers, inputs.contexts, strict=True)
    contexts = [moved(context, layer.device) for layer, context in given]
    run = model.run(replace(inputs, contexts=contexts))
    assert [z.device.type for z in run.z] == ["cpu", "cpu", "meta"]
    assert {m.shape for m in run.mlps} == {inputs.embed.shape}
    assert run.logits.shape == (2, 64)


# --- heads ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", sorted(METHODS))
def test_scores_of_every_method(method):
    used = agree(scores, "llama", method, devices=THREE)
    runs = method not in ("given", "random")
    assert ({(FIRST, SECOND), (SECOND, THIRD)} <= set(used.moves)) == runs


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_every_family(family, method):
    agree(scores, family, method)


@pytest.mark.parametrize("kind", PATCHES)
@pytest.mark.parametrize("family", EVERY)
def test_ablated_runs_and_scores_under_every_patch(family, kind):
    def numbers(model: Model) -> torch.Tensor:
        batch = PromptBatch.make(prompts(3))
        inputs = model.prepare(batch.clean, batch.real)
        values = patch_of(model, kind).values(model, batch, inputs)
        found = ablated_logits(model, inputs, values, random_masks(model.graph)).flatten(0, 1)
        return torch.cat([found.flatten(1).flatten(), scores(model, "eap", kind).flatten()])[None]

    agree(numbers, family)


def test_embeddings_on_a_device_of_their_own():
    """As where the vocabulary is large beside a layer."""
    used = agree(scores, "llama", "eap", devices=(FIRST, SECOND, THIRD, HOST, HOST))
    assert (FIRST, SECOND) in used.moves


def test_what_is_not_moved_is_found(monkeypatch):
    monkeypatch.setattr(Layer, "here", lambda self, value: value)
    with Devices(), pytest.raises(MixedDevices, match="cpu:1, cpu:2"):
        scores(spread("llama"), "eap")


# --- features ------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", EVERY)
def test_features(family):
    """Scores of nodes and edges, and runs of circuits, one number after another."""

    def numbers(model: Model) -> torch.Tensor:
        draw = {s: random_dictionary("relu", 32, torch.float32, i) for i, s in enumerate(MIXED)}
        found = {site: d.to(model.device, model.dtype) for site, d in draw.items()}
        features, batch = FeatureModel(model, found), PromptBatch.make(prompts(2))
        ends = FeatureBatch.of(features, batch, feature_patch(features, "counterfactual"))
        nodes = attribute_nodes(ends, "logit_diff", steps=2, rule="midpoint")
        edges = attribute_edges(ends, nodes, "logit_diff", EdgeSettings(steps=2))
        active = {
            site: values.feature.unique().tolist()[:6] for site, values in ends.clean.sites.items()
        }
        graph = FeatureGraph.complete(features.all_parents(), active)
        masks = np.random.default_rng(0).random((3, graph.n_edges)) < 0.5
        ran, _ = evaluate_feature_circuits(ends, graph, masks, ["logit_diff"])
        kept = np.random.default_rng(0).random((3, len(graph.nodes))) < 0.5
        alone = evaluate_feature_nodes(ends, graph, kept, ["logit_diff"])
        lists = [
            *(s.score for s in node_scores(ends, nodes, contracted=True)),
            *(e.weight for e in edges.inputs),
            ran["logit_diff"].ravel(),
            alone["logit_diff"].ravel(),
        ]
        return torch.as_tensor(np.concatenate(lists))[None]

    agree(numbers, family)


# --- two real devices ----------------------------------------------------------------------------
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device: no GPU here")
@pytest.mark.parametrize("method", ["eap", "ig_inputs", "ig_activations", "exact"])
@pytest.mark.parametrize("family", SOME)
def test_two_real_devices(family, method):
    n = torch.cuda.device_count()
    ours = scores(spread(family, ["cuda:0", "cuda:1"] if n > 1 else ["cpu", "cuda:0"]), method)
    assert_agree(ours.cpu().nan_to_num(), scores(tiny_model(family), method).nan_to_num(), 1e-4)
