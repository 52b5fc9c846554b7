"""Every metric against its formula by numpy and scipy, one input at a time, and its gradient."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from edgesweep.engine.metrics import FLAT_AT_CLEAN, METRICS, ORIENTATION, measure, oriented
from edgesweep.engine.network import PromptBatch
from edgesweep.tasks import Prompt

VOCAB = 12
#: (good, bad) ids: rows of the batch are as wide as the widest
ANSWERS = [((1,), (2, 3)), ((4, 5, 6), (7,)), ((8, 0), (9, 10, 11))]


def batch_of(answers=ANSWERS):
    made = [
        Prompt((1, 2), (1, 3), good, bad, task="t", template="t", labels={"end": 1})
        for good, bad in answers
    ]
    return PromptBatch.make(made)


def random_logits(*shape, seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, VOCAB, generator=draw, dtype=torch.float64) * scale


#: name -> value of one input, from plain probabilities or logits
FORMULAS = {
    "logit_diff": lambda x, m, good, bad: x[good].mean() - x[bad].mean(),
    "prob_diff": lambda x, m, good, bad: softmax(x)[good].sum() - softmax(x)[bad].sum(),
    "kl": lambda x, m, good, bad: rel_entr(softmax(x), softmax(m)).sum(),
    "kl_reverse": lambda x, m, good, bad: rel_entr(softmax(m), softmax(x)).sum(),
    "js": lambda x, m, good, bad: jensenshannon(softmax(x), softmax(m)) ** 2,
    "stat_dist": lambda x, m, good, bad: np.abs(softmax(x) - softmax(m)).sum() / 2,
    "nll": lambda x, m, good, bad: -np.log(softmax(x)[good].sum()),
    "accuracy": lambda x, m, good, bad: float(x[good].max() > x[bad].max()),
}


def by_hand(metric, logits, clean):
    rows = zip(logits.numpy(), clean.numpy(), ANSWERS, strict=True)
    return [FORMULAS[metric](x, m, list(good), list(bad)) for x, m, (good, bad) in rows]


def test_every_metric_has_a_formula():
    assert set(FORMULAS) == set(METRICS)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_equal_their_formulas(metric):
    logits, clean = random_logits(3), random_logits(3, seed=1)
    ours = measure(metric, logits, batch_of(), clean)
    assert ours.dtype == torch.float64
    assert ours.tolist() == pytest.approx(by_hand(metric, logits, clean), rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_an_input_does_not_feel_how_many_answers_its_neighbours_have(metric):
    logits, clean = random_logits(3), random_logits(3, seed=1)
    alone = [
        measure(metric, logits[i : i + 1], batch_of(ANSWERS[i : i + 1]), clean[i : i + 1])
        for i in range(3)
    ]
    together = measure(metric, logits, batch_of(), clean)
    assert together.tolist() == pytest.approx(torch.cat(alone).tolist(), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_circuits_are_leading_rows(metric):
    logits, clean = random_logits(4, 3), random_logits(3, seed=1)
    rows = [measure(metric, row, batch_of(), clean) for row in logits]
    assert torch.equal(measure(metric, logits, batch_of(), clean), torch.stack(rows))
    whole = METRICS[metric](logits, batch_of(), clean)
    assert torch.allclose(whole, torch.stack(rows), rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_results_are_computed_in_float64(metric):
    logits, clean = random_logits(3).float(), random_logits(3, seed=1).float()
    ours = measure(metric, logits, batch_of(), clean)
    assert torch.equal(ours, measure(metric, logits.double(), batch_of(), clean.double()))


def test_divergences_have_their_bounds():
    far = torch.full((3, VOCAB), -800.0, dtype=torch.float64)
    ours, model = far.clone(), far.clone()
    ours[:, 0], model[:, 1] = 0.0, 0.0
    assert measure("js", ours, batch_of(), model).tolist() == pytest.approx([np.log(2)] * 3)
    assert measure("stat_dist", ours, batch_of(), model).tolist() == pytest.approx([1.0] * 3)
    for metric in ("js", "stat_dist", "kl", "kl_reverse"):
        assert measure(metric, model, batch_of(), model).tolist() == pytest.approx([0.0] * 3)


def test_jensen_shannon_is_symmetric():
    ours, model = random_logits(3), random_logits(3, seed=1)
    there, back = (measure("js", a, batch_of(), b) for a, b in ((ours, model), (model, ours)))
    assert torch.allclose(there, back, rtol=1e-12, atol=0)


def test_only_accuracy_has_no_gradient():
    assert set(METRICS) - set(ORIENTATION) == {"accuracy"}


@pytest.mark.parametrize("metric", ORIENTATION)
def test_more_is_better_once_oriented(metric):
    """λ rises on the way from some other logits to those of a model that knows the answer."""
    knows = torch.zeros(3, VOCAB, dtype=torch.float64)
    for row, (good, _) in enumerate(ANSWERS):
        knows[row, list(good)] = 8.0
    other = random_logits(3, seed=2)
    values = [oriented(metric, torch.lerp(other, knows, t), batch_of(), knows) for t in (0, 0.5, 1)]
    assert bool((values[0] < values[1]).all())
    assert bool((values[1] < values[2]).all())


@pytest.mark.parametrize("metric", ORIENTATION)
def test_gradients_equal_finite_differences(metric):
    clean = random_logits(3, seed=1)
    logits = random_logits(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: oriented(metric, x, batch_of(), clean), logits)


@pytest.mark.parametrize("metric", ORIENTATION)
def test_flat_at_clean_is_what_the_gradient_says(metric):
    logits = random_logits(3).requires_grad_()
    value = oriented(metric, logits, batch_of(), logits.detach()).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    assert (metric in FLAT_AT_CLEAN) == bool(gradient.abs().max() < 1e-12)


@pytest.mark.parametrize("metric", ORIENTATION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_probabilities_underflow(metric, dtype):
    logits = torch.full((3, VOCAB), -2000.0, dtype=dtype)
    logits[:, 0] = 2000.0
    clean = logits.flip(-1)
    logits.requires_grad_()
    value = oriented(metric, logits, batch_of(), clean)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())
