"""How well a dictionary does on texts that it was not trained on.

Of the activations that it was trained on, b is the coordinate-wise median and ℓ the median norm. A
position whose norm is beyond `SINK` ℓ is a *sink*: the first token's, often, a hundred times as
long as others and much the same in every text. Sinks are left as they are and counted. Over the
others

    variance explained   1 − Σ|x − D(E(x))|² / Σ|x − b|²
    loss recovered       (L_median − L_spliced) / (L_median − L_clean)

with L the next-token cross-entropy where the site has its value, D(E(x)) in its place, or b. So the
constant b explains nothing and recovers nothing. A mean would be the sinks', far from everything
else, and beside it the constant b would recover much. Pinned by tests/model/test_training.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edgesweep.engine.dictionaries.base import Dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import Downstream
from edgesweep.engine.network.base import Network
from edgesweep.engine.training.dictionaries import Activations, Side, batches

#: norm of a sink, in median norms
SINK = 20.0


@dataclass(frozen=True)
class Baseline:
    """What a dictionary is compared with, from the activations that it was trained on.

    Attributes:
        median: b, by coordinates.
        limit: the norm beyond which a position is a sink.
    """

    median: Float[Tensor, " d_model"]
    limit: float

    @classmethod
    def of(cls, x: Activations) -> "Baseline":
        """Where the median norm is 0 no position is a sink."""
        median_norm = float(x.norm(dim=1).median())
        return cls(x.median(0).values, SINK * median_norm if median_norm > 0 else float("inf"))

    def is_sink(self, x: Float[Tensor, "*places d_model"]) -> Bool[Tensor, "*places"]:
        return x.float().norm(dim=-1) > self.limit


@dataclass(frozen=True)
class Fit:
    """How well a dictionary does on activations.

    Attributes:
        variance_explained: see the module's docstring; None if x is b throughout, or nowhere.
        l0: features on at a position, in the mean; None if there is no position.
        dead_share: share of features that are never on.
        positions: that all this is of.
        sinks: positions that were left out.
    """

    variance_explained: float | None
    l0: float | None
    dead_share: float
    positions: int
    sinks: int


@torch.no_grad()
def fit_of(dictionary: Dictionary, x: Activations, baseline: Baseline, batch: int = 1024) -> Fit:
    """How well a dictionary does on activations that are no sinks."""
    sinks = baseline.is_sink(x)
    x, n = x[~sinks], len(x)
    total = missed = on = 0.0
    alive = torch.zeros(dictionary.n_features, dtype=torch.bool)
    for some in x.split(batch):
        f = dictionary.encode(some)
        total += float((some - baseline.median).square().sum())
        missed += float((some - dictionary.decode(f)).square().sum())
        on += float((f != 0).sum())
        alive |= (f != 0).any(0).cpu()
    explained = 1.0 - missed / total if total > 0 else None
    l0 = on / len(x) if len(x) else None
    return Fit(explained, l0, 1.0 - float(alive.float().mean()), len(x), n - len(x))


@torch.no_grad()
def spliced_losses(
    model: Network,
    site: str,
    dictionary: Dictionary,
    texts: Sequence[Side],
    baseline: Baseline,
    micro_batch: int = 16,
) -> dict[str, float | None]:
    """Next-token cross-entropy in nats (of arrays, that of the output which the network itself
    ranks first): of the model (`loss_clean`), with the site's value replaced where it is no sink
    by D(E(x)) (`loss_spliced`) or by b (`loss_median`), and the share of what b loses that the
    dictionary keeps (`loss_recovered`; None unless b loses something)."""
    device, dtype = model.device, model.dtype
    dictionary, median = dictionary.to(device, dtype), baseline.median.to(device, dtype)
    features = FeatureModel(model, {site: dictionary})
    place = features.sites[-1]
    total, n = torch.zeros(3, dtype=torch.float64), 0
    for given, real in batches(model, texts, micro_batch):
        inputs = model.prepare(given, real)
        run = model.run(inputs)
        x = features.site_values(run)[site]
        downstream, rows = Downstream(model, inputs, run), torch.arange(len(x), device=x.device)
        asked, answers = _asked(model, given, real, run)
        sinks = baseline.is_sink(x)[..., None]
        for i, value in enumerate((x, dictionary.decode(dictionary.encode(x)), median)):
            spliced = torch.where(sinks, x, value)
            logits = model.unembed(downstream.final(place, spliced, rows)[asked])
            nll = torch.nn.functional.cross_entropy(logits.float(), answers, reduction="sum")
            total[i] += nll.double().cpu()
        n += len(answers)
    clean, spliced_loss, lost = (total / max(n, 1)).tolist()
    recovered = (lost - spliced_loss) / (lost - clean) if lost > clean else None
    return {
        "loss_clean": clean,
        "loss_spliced": spliced_loss,
        "loss_median": lost,
        "loss_recovered": recovered,
    }


def _asked(model: Network, given: Tensor, real: Tensor, run: Any) -> tuple[Tensor, Tensor]:
    """The positions that an output is asked for, and which output."""
    real = real.to(model.device)
    if model.shape is not None:
        return real, run.logits.argmax(-1)
    asked = real.clone()
    asked[:, :-1], asked[:, -1] = real[:, 1:], False
    return asked, given.to(model.device)[:, 1:][real[:, 1:]]
