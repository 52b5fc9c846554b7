"""What a run is scored by. All are per input; means over inputs are taken once, at the end.

Attribution scores an *oriented* metric, for which more is better; results keep `measure`, which is
not oriented. G is the run at hand, M the clean full model, good and bad the answer ids.

    logit_diff   mean logit over good − mean logit over bad
    prob_diff    probability of good − probability of bad, each summed over its ids
    kl           KL[G‖M], nats (Dhimoïla section 5.1)
    kl_reverse   KL[M‖G], nats
    js           Jensen–Shannon divergence of G and M, nats
    stat_dist    ½ Σ |G_i − M_i| over probabilities
    nll          −log of the summed probability of good, nats
    accuracy     1 if the best-ranked of good ∪ bad is good
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.network import PromptBatch

Logits = Float[Tensor, "*rows inputs vocab"]
#: of the full model: a row an input, or one for each row of logits
Clean = Float[Tensor, "... inputs vocab"]
Values = Float[Tensor, "... inputs"]


def logit_diff(logits: Logits, batch: PromptBatch, clean: Clean | None = None) -> Values:
    """Mean logit over good ids minus mean logit over bad ids."""
    return _answer_mean(logits, batch.good) - _answer_mean(logits, batch.bad)


def kl(logits: Logits, batch: PromptBatch, clean: Clean) -> Values:
    """KL[G‖M] in nats."""
    ours, model = logits.log_softmax(-1), clean.log_softmax(-1)
    return (ours.exp() * (ours - model)).sum(-1)


def kl_reverse(logits: Logits, batch: PromptBatch, clean: Clean) -> Values:
    """KL[M‖G] in nats."""
    return kl(clean, batch, logits)


def prob_diff(logits: Logits, batch: PromptBatch, clean: Clean | None = None) -> Values:
    """Summed probability of good ids less that of bad ids, in [−1, 1]."""
    given = logits.log_softmax(-1)
    return _answers(given, batch.good).exp().sum(-1) - _answers(given, batch.bad).exp().sum(-1)


def nll(logits: Logits, batch: PromptBatch, clean: Clean | None = None) -> Values:
    """Negative log of the summed probability of good ids, nats."""
    return -_answers(logits.log_softmax(-1), batch.good).logsumexp(-1)


def js(logits: Logits, batch: PromptBatch, clean: Clean) -> Values:
    """Jensen–Shannon divergence, the mean KL of G and M to their midpoint, in [0, log 2]."""
    ours, model = torch.broadcast_tensors(logits.log_softmax(-1), clean.log_softmax(-1))
    middle = torch.logaddexp(ours, model) - math.log(2)
    return 0.5 * sum((p.exp() * (p - middle)).sum(-1) for p in (ours, model))


def stat_dist(logits: Logits, batch: PromptBatch, clean: Clean) -> Values:
    """Half the L1 distance of the two distributions, in [0, 1]."""
    return 0.5 * (logits.softmax(-1) - clean.softmax(-1)).abs().sum(-1)


def accuracy(logits: Logits, batch: PromptBatch, clean: Clean | None = None) -> Values:
    """1 where the best-ranked answer is a good one, else 0."""
    good, bad = _answers(logits, batch.good), _answers(logits, batch.bad)
    return (good.amax(-1) > bad.amax(-1)).to(logits.dtype)


def _answers(logits: Logits, ids: Tensor) -> Float[Tensor, "*rows inputs answers"]:
    """Logits at the answer ids; -inf where an input has fewer answers than the widest."""
    ids = ids.to(logits.device)
    index = ids.clamp(min=0).expand(*logits.shape[:-1], ids.shape[-1])
    return logits.gather(-1, index).masked_fill(ids < 0, -torch.inf)


def _answer_mean(logits: Logits, ids: Tensor) -> Values:
    real = (ids >= 0).to(logits.device)
    return _answers(logits, ids).masked_fill(~real, 0.0).sum(-1) / real.sum(-1)


Metric = Callable[[Logits, PromptBatch, Logits], Values]

#: name -> function, in the order in which results list them
METRICS: dict[str, Metric] = {
    "logit_diff": logit_diff,
    "prob_diff": prob_diff,
    "kl": kl,
    "kl_reverse": kl_reverse,
    "js": js,
    "stat_dist": stat_dist,
    "nll": nll,
    "accuracy": accuracy,
}

#: metrics with a gradient somewhere on the path from patch to clean, by the sign that orients them
ORIENTATION: dict[str, float] = {
    "logit_diff": 1.0,
    "prob_diff": 1.0,
    "kl": -1.0,
    "kl_reverse": -1.0,
    "js": -1.0,
    "stat_dist": -1.0,
    "nll": -1.0,
}

#: metrics that compare with the full model, whose gradient at the clean point is therefore zero
FLAT_AT_CLEAN = frozenset({"kl", "kl_reverse", "js", "stat_dist"})


def oriented(metric: str, logits: Logits, batch: PromptBatch, clean: Clean) -> Values:
    """The metric with the sign for which more is better; differentiable in `logits`. In float32 at
    least, for the sums over the vocabulary are long."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return ORIENTATION[metric] * METRICS[metric](logits.to(wide), batch, clean.to(wide))


@torch.no_grad()
def measure(metric: str, logits: Logits, batch: PromptBatch, clean: Clean) -> Values:
    """The metric as results keep it, in float64; leading rows (circuits) one at a time."""
    if logits.ndim > 2:
        return torch.stack([measure(metric, row, batch, clean) for row in logits])
    return METRICS[metric](logits.double(), batch, clean.double())
