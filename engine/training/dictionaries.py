"""Training dictionaries on the activations of a site.

With x the activations, n x d:

1. b is the coordinate-wise median of x and s the median of |x − b| / √d: a few positions (the first
   token's, often) are a hundred times as long as the others, and means would be theirs.
2. On y = (x − b) / s, with unit-norm d_j and e_j = d_j at first, minimise over batches with Adam

       topk   |y − D(E(y))|² / d                      (Gao et al. 2024)
       relu   |y − D(E(y))|² / d + l1 Σ_j f_j         (Bricken et al. 2023; Huben et al. 2024)

   where no position counts for more than the batch's `CLIP`-fold median; decoder rows are brought
   back to unit norm after each step.
3. Every so often features that were never on since are given new directions: what is left
   unexplained of positions drawn by how badly they are explained.
4. f is in the units of x again: h is multiplied by s, and nothing else.

`pca` is the mean and the first principal axes, orthogonal. The same seed gives the same
dictionary. Pinned by tests/model/test_training.py: planted features are found. How well one does is
said in `fits`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.dictionaries.base import (
    Dictionary,
    DictionaryError,
    Linear,
    NoDictionary,
    Relu,
    TopK,
)
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.network.base import Network

Activations = Float[Tensor, "places d_model"]
#: a text in tokens, or the numbers of an array
Side = tuple[Any, ...]
KINDS = ("topk", "relu", "pca")
#: how much longer than the median a position may be before it counts for less
CLIP = 4.0
#: dead features are looked for so often in a training
RESAMPLINGS = 8
#: tokens that the model reads at once; their logits are what takes memory
TOKENS = 4096


@dataclass(frozen=True)
class Training:
    """How a dictionary is trained.

    Attributes:
        kind: one of `KINDS`.
        features: how many; of pca at most, and at most as many as there are.
        k: features on at a position (topk).
        l1: price of a feature (relu).
        steps, batch, lr: of Adam; the rate falls to 0 over the last fifth.
        seed: of the start and of the batches.
    """

    kind: str
    features: int = 1024
    k: int = 16
    l1: float = 0.01
    steps: int = 1000
    batch: int = 256
    lr: float = 1e-3
    seed: int = 0


def train(
    x: Activations, how: Training, say: Callable[[int, float], None] = lambda step, loss: None
) -> Dictionary:
    """A dictionary of these activations.

    Args:
        say: told the step and its loss now and then.

    Raises:
        DictionaryError: what `how` asks for cannot be had of these activations.
    """
    check_training(how)
    if len(x) < 2:
        raise DictionaryError(f"{len(x)} positions are too few to train on")
    if how.kind == "pca":
        return _principal_axes(x, min(how.features, x.shape[1]))
    bias = x.median(0).values
    scale = (x - bias).norm(dim=1).median() / x.shape[1] ** 0.5
    if not scale > 0:
        raise DictionaryError("the activations do not vary")
    state = _Trainer((x - bias) / scale, how)
    for step in range(how.steps):
        loss = state.step(step)
        if step % max(1, how.steps // 20) == 0 or step + 1 == how.steps:
            say(step + 1, loss)
    parts = (state.encoder.detach(), state.shift.detach() * scale, state.decoder.detach(), bias)
    return TopK(*parts, how.k) if how.kind == "topk" else Relu(*parts)


def check_training(how: Training) -> None:
    """Refuse what no activations can make possible.

    Raises:
        DictionaryError: another kind, or another k than there are features for.
    """
    if how.kind not in KINDS:
        raise DictionaryError(f"kind {how.kind!r} cannot be trained; allowed: {', '.join(KINDS)}")
    if how.kind == "topk" and not 1 <= how.k <= how.features:
        raise DictionaryError(f"k is {how.k} of {how.features} features; allowed: 1 to all")


def _principal_axes(x: Activations, n: int) -> Linear:
    if len(x) < n:
        raise DictionaryError(f"{len(x)} positions have no {n} principal axes; give more prompts")
    wide = x.double()
    bias = wide.mean(0)
    centred = wide - bias
    _, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes.flip(1).T[:n].to(x)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return Linear(axes, axes.new_zeros(len(axes)), axes.clone(), bias.to(x))


class _Trainer:
    """The parameters and their optimiser.

    Attributes:
        encoder, shift, decoder: e, h and d.
    """

    def __init__(self, y: Activations, how: Training) -> None:
        self._y, self._how = y, how
        self._draw = torch.Generator().manual_seed(how.seed)
        self.decoder = _directions(y, how.features, self._draw).requires_grad_()
        self.encoder = self.decoder.detach().clone().requires_grad_()
        self.shift = y.new_zeros(how.features).requires_grad_()
        self._parameters = (self.encoder, self.shift, self.decoder)
        self._adam = torch.optim.Adam(self._parameters, lr=how.lr, betas=(0.9, 0.999))
        self._on = torch.zeros(how.features, dtype=torch.bool, device=y.device)
        self._every = max(1, how.steps // (RESAMPLINGS + 2))

    def step(self, number: int) -> float:
        """One step; returns its loss."""
        how = self._how
        rest = (how.steps - number) / max(1, how.steps // 5)
        for group in self._adam.param_groups:
            group["lr"] = how.lr * min(1.0, rest)
        rows = torch.randint(len(self._y), (how.batch,), generator=self._draw)
        y = self._y[rows.to(self._y.device)]
        features = self._features(y)
        missed = (y - features @ self.decoder).square().mean(1)
        loss = (missed * _clipped(y)).mean()
        if how.kind == "relu":
            loss = loss + how.l1 * features.sum(1).mean()
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        with torch.no_grad():
            self.decoder /= self.decoder.norm(dim=1, keepdim=True).clamp(min=1e-8)
            self._on |= (features > 0).any(0)
            if number and number % self._every == 0 and number < how.steps - 2 * self._every:
                self._resample(y, missed * _clipped(y))
        return float(loss.detach())

    def _features(self, y: Activations) -> Float[Tensor, "places features"]:
        before = y @ self.encoder.T + self.shift
        if self._how.kind == "relu":
            return before.relu()
        best = before.topk(self._how.k, dim=1)
        return torch.zeros_like(before).scatter(1, best.indices, best.values.relu())

    def _resample(self, y: Activations, missed: Float[Tensor, " places"]) -> None:
        """New directions for features that were never on since the last time."""
        dead = (~self._on).nonzero().flatten()
        self._on.zero_()
        if not len(dead) or not missed.sum() > 0:
            return
        rows = torch.multinomial(missed.cpu(), len(dead), replacement=True, generator=self._draw)
        left = y - self._features(y) @ self.decoder
        directions = left[rows.to(y.device)]
        directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-8)
        self.decoder[dead], self.encoder[dead], self.shift[dead] = directions, directions, 0.0
        for parameter in self._parameters:
            for name in ("exp_avg", "exp_avg_sq"):
                self._adam.state[parameter][name][dead] = 0.0


def _directions(y: Activations, n: int, draw: torch.Generator) -> Float[Tensor, "n d_model"]:
    """Directions of positions, with noise so that none come twice."""
    rows = torch.randint(len(y), (n,), generator=draw)
    noise = torch.randn(n, y.shape[1], generator=draw)
    found = y[rows.to(y.device)]
    found = found / found.norm(dim=1, keepdim=True).clamp(min=1e-8)
    found = found + 0.5 * noise.to(y) / y.shape[1] ** 0.5
    return found / found.norm(dim=1, keepdim=True)


def _clipped(y: Activations) -> Float[Tensor, " places"]:
    """What a position counts for: less, the more it exceeds `CLIP` times the median length."""
    size = y.square().mean(1)
    limit = CLIP**2 * size.median()
    return (limit / size.clamp(min=1e-12)).clamp(max=1.0)


@torch.no_grad()
def activations(
    model: Network, site: str, texts: Sequence[Side], micro_batch: int = 16
) -> Activations:
    """The value of a site at every position of texts in tokens, the shortest texts first; or of
    arrays, each as its numbers in one row.

    Raises:
        SiteError: no site of the model.
    """
    features = FeatureModel(model, {site: NoDictionary(model.sites.width(site))})
    parts = []
    for given, real in batches(model, texts, micro_batch):
        run = model.run(model.prepare(given, real))
        parts.append(features.site_values(run)[site][real.to(model.device)])
    return torch.cat(parts)


def batches(
    model: Network, texts: Sequence[Side], micro_batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and which of them are real, `[texts, positions]`, padded on the right; of long texts
    fewer at once. Of arrays, their numbers, at one position."""
    if model.shape is not None:
        for some in torch.tensor(texts, dtype=torch.float64).split(micro_batch):
            yield some, torch.ones(len(some), 1, dtype=torch.bool)
        return
    texts = sorted(texts, key=len)
    first = 0
    while first < len(texts):
        n = micro_batch
        while n > 1 and n * len(texts[min(first + n, len(texts)) - 1]) > TOKENS:
            n -= 1
        some = texts[first : first + n]
        first += n
        width = len(some[-1])
        tokens = torch.tensor([[*t, *[0] * (width - len(t))] for t in some])
        yield tokens, torch.arange(width) < torch.tensor([[len(t)] for t in some])
