"""What published evaluation code got wrong, as tests of ours (field notes, section 7)."""

import itertools
import math

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.curves.areas import mean_over_log_size, of_whole
from edgesweep.engine.evaluation import evaluate_circuits, evaluate_reference, faithfulness
from edgesweep.engine.graph import circuit_stats, prune, select
from edgesweep.engine.measures import faithfulness_samples, roc, score_intervals
from edgesweep.engine.metrics import METRICS, ORIENTATION, measure, oriented
from edgesweep.engine.network import PromptBatch, RunValues
from edgesweep.engine.network.values import stack_sources
from edgesweep.engine.patches import Mean, make_patch, mean_groups, mean_partials, resample_partners
from edgesweep.storage.fold import STATS, partial
from edgesweep.tasks import Prompt, TaskError
from tests.oracles.slow_model import SlowModel
from tests.tiny import assert_agree, model_and_batch, prompts

SPLIT = prompts(12)


def tables_of(model, *, pooled, micro_batch=5):
    partials = mean_partials(model, SPLIT, pooled=pooled, over="patch", micro_batch=micro_batch)
    return {group: part.mean() for group, part in partials.items()}


def patches(model):
    """One patch of every kind, for prompts of `SPLIT`."""
    yield make_patch("counterfactual")
    yield make_patch("resample", partners=resample_partners(SPLIT, 0))
    yield Mean(tables_of(model, pooled=True), pooled=True)
    yield Mean(tables_of(model, pooled=False), pooled=False)
    yield make_patch("zero")
    yield make_patch("noise")


def random_masks(graph, densities=(0.1, 0.5, 0.9), seed=0):
    draw = np.random.default_rng(seed)
    return np.stack([draw.random(graph.n_edges) < density for density in densities])


# --- 1: mean ablation with one mean for all nodes, of the last position alone ---------------------
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_every_node_has_its_own_mean_over_all_real_positions(family, pooled):
    model, _ = model_and_batch(family, dtype=torch.float64)
    written: dict[str, list[torch.Tensor]] = {}
    for prompt, group in zip(SPLIT, mean_groups(SPLIT, pooled=pooled), strict=True):
        tokens = torch.tensor([prompt.patch])
        slow = SlowModel(model.hf, model.graph, tokens, torch.ones_like(tokens).bool())
        with torch.no_grad():
            by_name = slow.forward(slow.plain)[1]
        one = torch.stack([by_name[name][0] for name in model.graph.sources])
        written.setdefault(group, []).append(one)
    tables = tables_of(model, pooled=pooled)
    assert set(tables) == set(written)
    for group, parts in written.items():
        every = torch.cat(parts, dim=1) if pooled else torch.stack(parts)
        mean = every.mean(1, keepdim=True) if pooled else every.mean(0)
        tolerance = 1e-5 if family == "gemma2" else 1e-9  # Gemma's norms are float32
        assert_agree(torch.as_tensor(tables[group]).flatten(1), mean.flatten(1), tolerance)


def test_each_node_is_given_its_own_mean():
    model, batch = model_and_batch("llama")
    (table,) = tables_of(model, pooled=True).values()
    patch = Mean({"random": table}, pooled=True)
    values = patch.values(model, batch, model.prepare(batch.clean, batch.real))
    given = stack_sources(model, values)
    for source, mean in enumerate(torch.as_tensor(table, dtype=torch.float32)):
        for row, real in enumerate(batch.real):
            assert torch.equal(given[source, row, real], mean.expand(int(real.sum()), -1))
            assert not given[source, row, ~real].any()  # no mean at padding
    assert float(np.abs(table - table.mean(0)).max()) > 0.1  # the nodes' means do differ


# --- 9: padding and positions ------------------------------------------------------------------
def test_prompts_of_unequal_lengths_are_no_pair():
    with pytest.raises(TaskError, match="clean has 3 tokens and patch has 2"):
        Prompt((1, 2, 3), (1, 2), (4,), (5,), task="t", template="t", labels={"end": 2})


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_circuit_scores_the_same_alone_in_a_batch_and_padded_on_either_side(family):
    model, _ = model_and_batch(family)
    masks = random_masks(model.graph)
    for patch in patches(model):
        alone = [
            evaluate_circuits(model, PromptBatch.make([p]), masks, patch, list(METRICS))
            for p in SPLIT[:4]
        ]
        for side in ("right", "left"):
            batch = PromptBatch.make(SPLIT[:4], side=side)
            found = evaluate_circuits(model, batch, masks, patch, list(METRICS))
            for metric, values in found.items():
                one_by_one = np.concatenate([one[metric] for one in alone], axis=1)
                assert np.allclose(values, one_by_one, rtol=1e-4, atol=1e-5), (metric, side)


@pytest.mark.parametrize("pooled", [True, False])
def test_means_do_not_feel_padding(pooled):
    model, _ = model_and_batch("gpt2", dtype=torch.float64)
    padded = tables_of(model, pooled=pooled, micro_batch=12)
    alone = tables_of(model, pooled=pooled, micro_batch=1)
    for group, table in alone.items():
        assert np.allclose(padded[group], table, rtol=1e-9, atol=1e-12)


# --- 10: what a kept edge carries ----------------------------------------------------------------
def frozen(slow, mask, clean, patch):
    """Path patching: kept edges carry the clean run's values, whatever happened upstream."""
    kept = {slow.graph.edge_name(e) for e in mask.nonzero()[0]}

    def stream_of(target, values, constant):
        sides = [
            (clean if f"{source}->{target}" in kept else patch)[source]
            for source in slow.sources_of(target)
        ]
        return sum(sides) + constant

    return slow.forward(stream_of)[0]


def test_kept_edges_carry_this_run_and_not_the_clean_one():
    model, batch = model_and_batch("llama", dtype=torch.float64)
    inputs = model.prepare(batch.clean, batch.real)
    masks = random_masks(model.graph, densities=(0.3, 0.5, 0.8))
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    other = SlowModel(model.hf, model.graph, batch.patch, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    ours = ablated_logits(model, inputs, values, masks)
    with torch.no_grad():
        (_, clean), (_, patch) = slow.forward(slow.plain), other.forward(other.plain)
        for circuit, mask in enumerate(masks):
            live = slow.forward(slow.ablated(mask, patch))[0]
            apart = (frozen(slow, mask, clean, patch) - live).abs().max()
            assert_agree(ours[circuit], live, 1e-6)
            assert float(apart) > 0.1 * float(live.abs().max())


def test_a_kept_edge_is_clean_and_a_dropped_edge_is_patch():
    """One edge, embed to logits: its clean value there and nothing else; no other way round."""
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    inputs = model.prepare(batch.clean, batch.real)
    values = make_patch("counterfactual").values(model, batch, inputs)
    names = [model.graph.edge_name(e) for e in range(model.graph.n_edges)]
    only = np.array([[name == "embed->logits" for name in names]])
    ours = ablated_logits(model, inputs, values, only)[0]
    with torch.no_grad():
        run = values.run
        stream = run.embed + sum(run.attention) + sum(run.mlps)
        moved = inputs.at_read(stream + inputs.embed - run.embed)
        assert_agree(ours, model.unembed(moved), 1e-9)


# --- 11: faithfulness --------------------------------------------------------------------------
def test_one_input_without_an_effect_does_not_decide_faithfulness():
    full, empty = np.array([4.0, 3.0, 1e-9]), np.array([0.0, 1.0, 0.0])
    circuit = np.array([3.0, 2.0, 0.5])
    by_input = [faithfulness(*row) for row in zip(circuit, full, empty, strict=True)]
    assert max(by_input) > 1e8
    phi = faithfulness(circuit.mean(), full.mean(), empty.mean())
    assert phi == pytest.approx((5.5 - 1) / (7 - 1))
    samples = faithfulness_samples(circuit[:, None], full, empty, n=400, seed=0)
    regular = (samples > 0) & (samples < 1.5)
    assert regular.mean() > 0.9  # all but the draws of the third input alone


def test_faithfulness_is_undefined_where_the_model_is_its_empty_circuit():
    assert math.isnan(faithfulness(0.3, 2.0, 2.0 * (1 + 1e-7)))
    assert math.isnan(faithfulness(0.3, 0.0, 0.0))
    assert faithfulness(1e-9, 2e-9, 0.0) == pytest.approx(0.5)  # small is not equal


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_empty_circuit_still_has_its_logits_and_its_constants(family):
    """Under every patch: an ablated run without edges, neither the clean run nor zero logits."""
    model, batch = model_and_batch(family)
    inputs = model.prepare(batch.clean, batch.real)
    for patch in patches(model):
        values = patch.values(model, batch, inputs)
        stream = values.embed.clone()
        for layer in range(model.spec.n_layers):
            stream += values.attention(layer) + values.mlp(layer)
        logits = model.unembed(inputs.at_read(stream))
        _, empty = evaluate_reference(model, batch, patch, ["logit_diff"])
        slow = measure("logit_diff", logits, batch, logits)
        assert np.allclose(empty["logit_diff"], slow.numpy(), rtol=1e-4, atol=1e-5)


def test_a_size_counts_the_edges_that_are_left_after_pruning_and_an_area_those_selected():
    model, _ = model_and_batch("llama")
    scores = np.random.default_rng(0).normal(size=model.graph.n_edges)
    sizes = [int(n) for n in np.geomspace(5, model.graph.n_edges - 1, 6)]
    chosen = [select(scores, "topk_value", n) for n in sizes]
    assert [int(mask.sum()) for mask in chosen] == sizes
    run = [prune(model.graph, mask, both_sides=True) for mask in chosen]
    counts = [circuit_stats(model.graph, mask).n_edges for mask in run]
    assert counts == [int(mask.sum()) for mask in run]
    assert all(count <= n for count, n in zip(counts, sizes, strict=True))
    assert counts[0] < sizes[0]
    phi = np.where(np.array(counts) == 0, 0.0, np.linspace(0.1, 0.9, 6))
    by_size = mean_over_log_size(sizes, of_whole(counts, np.linspace(0.1, 0.9, 6)))
    assert by_size == mean_over_log_size(sizes, phi)


def test_ties_leave_a_top_k_circuit_of_k_edges():
    scores = np.array([1.0, 2.0, 2.0, 2.0, np.nan, 0.0])
    for k in range(6):
        assert select(scores, "topk_value", k).sum() == k
    assert select(scores, "topk_value", 2).tolist() == [False, True, True, False, False, False]
    assert select(scores, "topk_value", 6).sum() == 5  # what has no score is in no circuit
    assert select(scores, "value", 1.5).sum() == 3


# --- 12: ROC -----------------------------------------------------------------------------------
def test_true_edges_that_the_ranking_lacks_are_missed():
    scores = np.array([3.0, np.nan, 2.0, 1.0, np.nan])
    truth = np.array([True, True, False, False, False])
    found = roc(scores, truth)
    assert found.tpr[:-1].max() == 0.5  # found only when everything is
    assert found.roc_auc == pytest.approx(((1 + 1 + 1) + (0 + 0 + 0.5)) / 6)


def test_the_order_within_a_tie_does_not_matter():
    draw = np.random.default_rng(0)
    scores, truth = draw.integers(0, 3, 60).astype(float), draw.random(60) < 0.2
    first = roc(scores, truth)
    for _ in range(5):
        order = draw.permutation(60)
        again = roc(scores[order], truth[order])
        assert again.roc_auc == pytest.approx(first.roc_auc)
        assert again.average_precision == pytest.approx(first.average_precision)
    best_first = np.lexsort((~truth, -scores))  # what a lucky sort would be credited with
    lucky = roc(-np.argsort(best_first).astype(float), truth)
    assert lucky.roc_auc > first.roc_auc + 0.1


def test_the_area_is_that_of_the_full_ranking_and_not_of_ten_circuits():
    draw = np.random.default_rng(1)
    truth = np.arange(3000) < 20
    scores = draw.normal(size=3000) + 2.5 * truth
    pairs = (scores[truth][:, None] > scores[~truth]).mean()
    found = roc(scores, truth)
    assert found.roc_auc == pytest.approx(pairs)
    kept = [select(scores, "topk_value", n) for n in np.linspace(0, 3000, 11).round()]
    points = [((m & ~truth).sum() / 2980, (m & truth).sum() / 20) for m in kept]
    coarse = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    assert abs(coarse - pairs) > 0.02


def test_few_true_edges_show_in_the_average_precision():
    draw = np.random.default_rng(2)
    truth = np.arange(20_000) < 40
    found = roc(draw.normal(size=20_000) + 2.0 * truth, truth)
    assert found.roc_auc > 0.85
    assert found.average_precision < 0.15


# --- 13: sums in the model's own precision -------------------------------------------------------
def test_means_of_half_precision_runs_are_summed_in_float64():
    model, _ = model_and_batch("llama", dtype=torch.bfloat16)
    (table,) = tables_of(model, pooled=True, micro_batch=1).values()
    total, count = np.zeros_like(table), 0
    for prompt in SPLIT:
        batch = PromptBatch.make([prompt])
        with torch.no_grad():
            run = RunValues(model, model.run(model.prepare(batch.patch, batch.real)))
        written = stack_sources(model, run)[:, 0].double().numpy()
        total, count = total + written.sum(1, keepdims=True), count + written.shape[1]
    assert table.dtype == np.float64
    assert np.allclose(table, total / count, rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", ORIENTATION)
def test_half_precision_logits_are_scored_in_single(metric):
    _, batch = model_and_batch("llama", n_layers=1)
    draw = torch.Generator().manual_seed(0)
    logits, clean = (torch.randn(2, 3, 64, generator=draw) * 3).bfloat16()
    ours = oriented(metric, logits, batch, clean)
    assert ours.dtype == torch.float32
    exact = ORIENTATION[metric] * measure(metric, logits, batch, clean)
    assert torch.allclose(ours.double(), exact, rtol=1e-4, atol=1e-6)


def test_scores_are_added_in_float64():
    """Ten thousand small scores beside a large one: single precision would lose all of them."""
    scores = np.full((10_001, 2), 0.25, dtype=np.float32)
    scores[0] = 2.0**24
    total = 2.0**24 + 2500
    assert float(np.cumsum(scores[:, 0], dtype=np.float32)[-1]) == 2.0**24
    assert partial(scores)[STATS.index("sum")].tolist() == [total, total]
    ours = score_intervals(scores, n=20, level=0.9, seed=0)
    wide = score_intervals(scores.astype(np.float64), n=20, level=0.9, seed=0)
    assert np.array_equal(ours, wide)
