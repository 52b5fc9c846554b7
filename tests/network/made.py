"""Small feed-forward networks, random, and examples for them."""

import random
from collections.abc import Iterable

import torch

from edgesweep.engine.dictionaries import Identity
from edgesweep.engine.features import FeatureModel
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.feedforward import FeedForward
from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet
from edgesweep.tasks import ArrayExample

SHAPE = (4, 4)
#: name -> what its configuration has of its own
KINDS = {
    "mlp": {"hidden": (6, 5)},
    "gelu": {"hidden": (6, 5), "activation": "gelu"},
    "linear": {"hidden": (6, 5), "activation": "linear"},
    "cnn": {"channels": (2,), "hidden": (5,)},
}


def network(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> FeedForward:
    """A random network of three outputs."""
    config = FeedForwardConfig(input_shape=SHAPE, n_output=3, **KINDS[kind])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FeedForward(FeedForwardNet(config).to(dtype), kind)


def neurons(net: FeedForward, sites: Iterable[str]) -> FeatureModel:
    """A network read in its neurons."""
    found = {site: Identity(net.sites.width(site)).to(None, net.dtype) for site in sites}
    return FeatureModel(net, found)


def examples(n: int, seed: int = 0) -> list[ArrayExample]:
    draw = random.Random(seed)

    def numbers() -> tuple[float, ...]:
        return tuple(draw.gauss(0, 1) for _ in range(16))

    def example(i: int) -> ArrayExample:
        return ArrayExample(
            numbers(), numbers(), (i % 3,), ((i + 1) % 3,), "random", "image", SHAPE
        )

    return [example(i) for i in range(n)]


def batch(n: int = 3) -> PromptBatch:
    return PromptBatch.make(examples(n))
