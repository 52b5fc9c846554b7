"""Resample and noise patches: what they give, that it depends on no batch, and that ablation and
attribution under them equal `SlowModel`."""

import dataclasses

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.graph import prune
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.metrics import oriented
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.values import stack_sources
from edgesweep.engine.patches import ONE_RUN, PATCHES, PatchError, make_patch, resample_partners
from tests.oracles.slow_model import SlowModel
from tests.tiny import FAMILIES, assert_agree, model_and_batch, prompts

SEED = 7
NEW = ("resample", "noise")
FEW = ("gpt2", "llama", "gemma2")
#: twelve prompts, of which 0, 6 and 3, 9 and so on are alike in template and length
SPLIT = prompts(12)


def patch_of(kind, split=SPLIT, seed=SEED, **settings):
    partners = resample_partners(split, seed) if kind == "resample" else None
    return make_patch(kind, {}, partners=partners, seed=seed, **settings)


def values_of(patch, model, batch):
    """`[inputs, sources, positions, d_model]`."""
    values = patch.values(model, batch, model.prepare(batch.clean, batch.real))
    return stack_sources(model, values).transpose(0, 1)


def real_values(patch, model, batch):
    """What the patch gives each prompt at its real positions."""
    rows = zip(values_of(patch, model, batch), batch.real, strict=True)
    return [table[:, real] for table, real in rows]


def partner_batch(batch, split=SPLIT):
    """The same batch with each prompt's partner as its patch prompt."""
    partners = resample_partners(split, SEED)
    return PromptBatch.make(
        [dataclasses.replace(p, patch=partners[p.clean]) for p in batch.prompts]
    )


# --- resample ----------------------------------------------------------------------------------
def test_a_partner_is_another_prompt_of_equal_task_template_and_length():
    by_tokens = {p.clean: p for p in SPLIT}
    partners = resample_partners(SPLIT, SEED)
    assert set(partners) == set(by_tokens)
    assert sorted(partners.values()) == sorted(partners)  # everybody is one partner
    for prompt in SPLIT:
        other = by_tokens[partners[prompt.clean]]
        assert other.clean != prompt.clean
        assert (other.task, other.template) == (prompt.task, prompt.template)
        assert len(other.clean) == len(prompt.clean)


def test_partners_depend_on_the_seed_and_not_on_the_order_of_the_split():
    split = prompts(30, lengths=(6,))
    assert resample_partners(split, 1) == resample_partners(split[::-1], 1)
    assert resample_partners(split, 1) != resample_partners(split, 2)


def test_every_other_prompt_of_the_group_is_as_likely_a_partner():
    split = [dataclasses.replace(p, template="t") for p in prompts(5, lengths=(6,))]
    first, others = split[0].clean, {p.clean for p in split[1:]}
    drawn = [resample_partners(split, seed)[first] for seed in range(400)]
    counts = [drawn.count(other) for other in others]
    assert sum(counts) == 400
    assert min(counts) > 70  # 100 expected, 3.5 standard deviations below


def test_prompts_of_equal_tokens_are_no_partners():
    split = [dataclasses.replace(p, template="t") for p in prompts(3, lengths=(6,))]
    partners = resample_partners([split[0], *split], SEED)
    assert all(own != other for own, other in partners.items())


@pytest.mark.parametrize("copies", [1, 2])
def test_a_prompt_without_another_of_its_group_is_refused(copies):
    message = r"needs two different prompts of group 'random/t0/7' .* has one; raise data\.n_build"
    with pytest.raises(PatchError, match=message):
        resample_partners(prompts(1) * copies, SEED)


def test_a_prompt_of_no_split_is_refused():
    model, batch = model_and_batch("gpt2", n_layers=1)
    patch = make_patch("resample", partners={})
    with pytest.raises(PatchError, match="no partner for a prompt of group 'random/t0/7'; make "):
        values_of(patch, model, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_resample_is_the_counterfactual_of_the_partners(family):
    model, batch = model_and_batch(family)
    ours = values_of(patch_of("resample"), model, batch)
    assert torch.equal(ours, values_of(make_patch("counterfactual"), model, partner_batch(batch)))


# --- noise -------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_noise_has_the_size_of_the_value_it_disturbs(scale):
    model, batch = model_and_batch("llama", width=48)
    batch = PromptBatch.make(prompts(40, lengths=(9, 12)))
    clean = make_patch("noise", noise_scale=0.0)
    added = [
        (noisy - value, value)
        for noisy, value in zip(
            real_values(patch_of("noise", noise_scale=scale), model, batch),
            real_values(clean, model, batch),
            strict=True,
        )
    ]
    noise = torch.stack([d.square().mean((1, 2)).sqrt() for d, _ in added])
    unit = torch.stack([v.square().mean((1, 2)).sqrt() for _, v in added])
    ratio = noise / (scale * unit)
    assert bool(((ratio - 1).abs() < 0.15).all())  # 432 numbers or more each: sd 0.034 or less
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.01)


def test_noise_is_standard_normal_and_independent_between_sources():
    model, _ = model_and_batch("gpt2", width=48)
    batch = PromptBatch.make(prompts(40, lengths=(12,)))
    clean = values_of(make_patch("noise", noise_scale=0.0), model, batch)
    noise = values_of(patch_of("noise"), model, batch) - clean
    noise /= clean.square().mean((2, 3), keepdim=True).sqrt()
    flat = noise.transpose(0, 1).flatten(1)
    assert float(flat.mean().abs()) < 0.02
    assert float((flat.abs() < 1.96).float().mean()) == pytest.approx(0.95, abs=0.005)
    between = torch.corrcoef(flat) - torch.eye(len(flat))
    assert float(between.abs().max()) < 0.05  # 23,040 numbers each: sd 0.007


def test_no_noise_is_the_clean_run():
    model, batch = model_and_batch("gemma2")
    same = values_of(make_patch("noise", noise_scale=0.0), model, batch)
    run = values_of(
        make_patch("counterfactual"), model, dataclasses.replace(batch, patch=batch.clean)
    )
    assert torch.allclose(same, run)


def test_noise_depends_on_the_seed_and_the_prompt():
    model, batch = model_and_batch("gpt2")
    first, again, other = (values_of(patch_of("noise", seed=s), model, batch) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first[0], other[0])
    draws = values_of(patch_of("noise"), model, batch) - values_of(
        make_patch("noise", noise_scale=0.0), model, batch
    )
    assert abs(float(torch.corrcoef(draws[:2, :, :5].flatten(1))[0, 1])) < 0.1


def test_noise_is_the_same_whatever_the_precision():
    single, batch = model_and_batch("llama")
    double, _ = model_and_batch("llama", dtype=torch.float64)
    ours = [values_of(patch_of("noise"), m, batch).double() for m in (single, double)]
    assert_agree(ours[0], ours[1], 1e-5)


# --- both --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("family", FEW)
def test_neither_batch_nor_padding_matters(family, kind):
    model, right = model_and_batch(family)
    _, left = model_and_batch(family, side="left")
    patch = patch_of(kind)
    alone = [real_values(patch, model, PromptBatch.make([p]))[0] for p in right.prompts]
    backwards = PromptBatch.make(right.prompts[::-1], side="left")
    for batch in (right, left):
        for ours, one in zip(real_values(patch, model, batch), alone, strict=True):
            assert_agree(ours.flatten(0, 1), one.flatten(0, 1), 1e-5)
    for ours, one in zip(real_values(patch, model, backwards)[::-1], alone, strict=True):
        assert_agree(ours.flatten(0, 1), one.flatten(0, 1), 1e-5)


def test_kinds_say_whether_they_are_one_run():
    model, batch = model_and_batch("gpt2", n=12, n_layers=1)
    inputs = model.prepare(batch.clean, batch.real)
    for kind in PATCHES:
        if kind != "mean":  # its tables need a stage of their own
            patch = patch_of(kind)
            assert patch.kind == kind
            assert patch.n_forwards == int(kind != "zero")
            assert patch.values(model, batch, inputs).from_one_run == (kind in ONE_RUN)


@pytest.mark.parametrize("kind", ["resample", "mean", "median"])
def test_what_cannot_be_made_is_refused(kind):
    with pytest.raises(
        PatchError, match=f"patch '{kind}' is none of .*resample.*noise.*, or lacks"
    ):
        make_patch(kind)


# --- ablation and attribution under them ---------------------------------------------------------
def slow_patch(kind, model, batch):
    """Patch values by name: of the partners by the slow model; noise, which is given, as it is."""
    if kind == "resample":
        other = SlowModel(model.hf, model.graph, partner_batch(batch).patch, batch.real)
        return other.forward(other.plain)[1]
    table = values_of(patch_of(kind), model, batch)
    return dict(zip(model.graph.sources, table.unbind(1), strict=True))


def random_masks(graph):
    draw = np.random.default_rng(0)
    return np.stack([draw.random(graph.n_edges) < density for density in (0.0, 0.1, 0.5, 0.95)])


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("family", FEW)
def test_ablation_equals_one_port_at_a_time(family, kind):
    model, batch = model_and_batch(family)
    inputs, masks = model.prepare(batch.clean, batch.real), random_masks(model.graph)
    values = patch_of(kind).values(model, batch, inputs)
    ours = ablated_logits(model, inputs, values, masks)
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        given = slow_patch(kind, model, batch)
        for circuit, mask in enumerate(masks):
            assert_agree(ours[circuit], slow.forward(slow.ablated(mask, given))[0], 1e-4)
            smaller = prune(model.graph, mask, both_sides=kind in ONE_RUN)
            assert_agree(ours[circuit], slow.forward(slow.ablated(smaller, given))[0], 1e-4)


def slow_scores(model, batch, kind, metric, points):
    """⟨u_clean − u_patch, mean gradient over the points⟩, one edge and one backward at a time."""
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        logits, clean = slow.forward(slow.plain)
        patch = slow_patch(kind, model, batch)
    scores = torch.zeros(len(batch), model.graph.n_edges, dtype=torch.float64)
    for edge in range(model.graph.n_edges):
        name = model.graph.edge_name(edge)
        source = name.partition("->")[0]
        for t in points:
            start = torch.lerp(patch["embed"], clean["embed"], t)
            by = torch.zeros_like(start, requires_grad=True)
            out, _ = slow.forward(slow.disturbed(name, by), embed=start)
            (gradient,) = torch.autograd.grad(oriented(metric, out, batch, logits).sum(), by)
            product = (clean[source] - patch[source]) * gradient
            scores[:, edge] += product.sum((1, 2)).detach() / len(points)
    return scores


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize(
    ("method", "metric", "points"),
    [("eap", "prob_diff", (1.0,)), ("eap", "nll", (1.0,)), ("ig_inputs", "js", (0.25, 0.75))],
)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_attribution_equals_one_autograd_call_an_edge(family, method, metric, points, kind):
    model, batch = model_and_batch(family, n_layers=1, dtype=torch.float64)
    settings = Settings(steps=len(points), rule="midpoint")
    ours = METHODS[method].attribute(model, batch, patch_of(kind), metric, settings)
    # scores are kept in float32
    assert_agree(ours.scores, slow_scores(model, batch, kind, metric, points), 1e-6)


@pytest.mark.parametrize("kind", NEW)
def test_integrated_gradients_are_complete(kind):
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    result = METHODS["ig_inputs"].attribute(
        model, batch, patch_of(kind), "js", Settings(steps=64, rule="gauss_legendre")
    )
    size = (result.metric_clean - result.metric_baseline).abs().max()
    assert float(result.residual.abs().max()) < 1e-3 * float(size)
