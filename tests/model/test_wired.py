"""Models wired by hand: every edge by itself, and what their docstring says of them."""

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.graph.known import known_circuit
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model import list_models, load_model, resolve_model
from edgesweep.engine.model.wired import N_PROMPTS, N_TOKENS, WIRED
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import make_patch
from edgesweep.tasks import build_task

every_model = pytest.mark.parametrize("name", WIRED)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def model_and_batch(name, n=24, dtype="float64"):
    source = resolve_model(name)
    data = build_task("own", None, n, n, seed=0, own=source.path, n_vocab=N_TOKENS)
    return load_model(source, dtype=dtype), PromptBatch.make(data.build), source


def logit_differences(model, batch, masks):
    inputs = model.prepare(batch.clean, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    logits = ablated_logits(model, inputs, values, np.stack(masks))
    rows = torch.arange(len(batch))
    return logits[:, rows, batch.good[:, 0]] - logits[:, rows, batch.bad[:, 0]]


@every_model
def test_dropping_an_edge_matters_if_it_is_true_and_only_then(name):
    model, batch, source = model_and_batch(name)
    n_edges = model.graph.n_edges
    masks = [np.ones(n_edges, bool), *~np.eye(n_edges, dtype=bool)]
    differences = logit_differences(model, batch, masks)
    effect = (differences[1:] - differences[0]).abs().amax(1).numpy()
    truth = known_circuit(source, "own").mask(model.graph)
    assert n_edges == 262
    assert truth.sum() == 5
    assert (effect[truth] > 1e-3 * float(differences[0].abs().max())).all()
    assert (effect[~truth] <= 1e-6).all()


@every_model
def test_the_true_edges_are_enough(name):
    """The circuit alone gives the model's own logit differences."""
    model, batch, source = model_and_batch(name)
    truth = known_circuit(source, "own").mask(model.graph)
    circuit, full, empty = logit_differences(
        model, batch, [truth, np.ones_like(truth), np.zeros_like(truth)]
    )
    assert torch.allclose(circuit, full, atol=1e-9)
    assert float((full - empty).min()) > 1


@every_model
@pytest.mark.parametrize("prompts", ["clean", "patch"])
def test_the_model_does_its_task(name, prompts):
    model, batch, _ = model_and_batch(name, n=N_PROMPTS // 2)
    answers = batch.good if prompts == "clean" else batch.bad
    logits = model.run(model.prepare(getattr(batch, prompts), batch.real)).logits
    assert torch.equal(logits.argmax(-1), answers[:, 0])


@every_model
def test_prompts_are_aligned_and_many(name):
    source = resolve_model(name)
    data = build_task("own", None, N_PROMPTS // 2, N_PROMPTS // 2, seed=0, own=source.path)
    prompts = (*data.build, *data.evaluation)
    assert len({p.clean for p in prompts}) == N_PROMPTS >= 128
    assert len({len(p) for p in prompts}) >= 3
    places = {}
    for prompt in prompts:
        layout = (len(prompt), dict(prompt.labels))
        assert places.setdefault(prompt.template, layout) == layout
        if "A" in prompt.labels:
            first = prompt.labels["A"]
            assert prompt.clean[first] == prompt.clean[-1] != prompt.patch[-1]
            assert (prompt.clean[first + 1],) == prompt.good
            assert prompt.clean.count(prompt.clean[-1]) == 2
        else:
            assert (prompt.clean[-2],) == prompt.good


@every_model
def test_idle_nodes_move_with_the_prompt(name):
    """Else an edge would be false for want of a difference, and every method would know."""
    model, batch, _ = model_and_batch(name)
    runs = [model.run(model.prepare(tokens, batch.real)) for tokens in (batch.clean, batch.patch)]
    for layer in range(3):
        heads = [model.layers[layer].head_writes(run.z[layer], None) for run in runs]
        moved = (heads[0] - heads[1]).abs().amax((1, 2, 3))
        still = torch.tensor([layer == 2 and head == 3 for head in range(4)])
        assert torch.equal(moved < 1e-3, still)
        assert float((runs[0].mlps[layer] - runs[1].mlps[layer]).abs().max()) > 0.1


def test_decoys_deceive_a_gradient_at_the_clean_end_and_nothing_that_exchanges_values():
    model, batch, source = model_and_batch("wired-decoy")
    truth = known_circuit(source, "own").mask(model.graph)
    decoys = [model.graph.edge_index(e) for e in ("embed->a0.kv3.v", "a0.h3->m1")]

    def scores(method, **settings):
        return METHODS[method].attribute(
            model, batch, make_patch("counterfactual"), "logit_diff", Settings(**settings)
        )

    mean = scores("eap").scores.mean(0).numpy()
    assert (mean[decoys] > mean[truth].min() * 1.5).all()
    along = scores("ig_inputs", steps=4).scores.mean(0).numpy()
    assert np.abs(along[decoys]).max() < 1e-6
    assert mean[truth].min() > 0.1


def test_decoys_carry_the_answer_and_shift_all_logits():
    model, batch, _ = model_and_batch("wired-decoy")
    clean = model.run(model.prepare(batch.clean, batch.real))
    inputs = model.prepare(batch.patch, batch.real)
    patch = model.run(inputs)
    assert torch.equal(clean.z[1][:, :, 0], clean.z[1][:, :, 2])  # it found what the head found
    copied = inputs.at_read(model.layers[1].head_writes(clean.z[1] - patch.z[1], None)[0])
    assert float(copied.abs().amax(1).min()) > 0.1
    assert not model.unembed(copied).any()
    shift = inputs.at_read(model.layers[2].head_writes(clean.z[2] - patch.z[2], None)[1])
    logits = model.unembed(shift)
    assert float(logits.abs().max()) > 0.1
    assert torch.allclose(logits, logits[:, :1].expand_as(logits), atol=1e-12)


def test_aliases_are_in_the_list_and_written_once():
    assert set(WIRED) <= {info.name for info in list_models()}
    first, second = resolve_model("wired-copy"), resolve_model("wired-copy")
    assert first == second
