"""Training feed-forward networks: cross-entropy of labels, Adam, batches shuffled with the seed.

The learning rate falls linearly to 0. One thread, so that a seed gives the same bytes whatever the
machine has, also if it was stopped in between and goes on from what it kept (`engine.training.
unfinished`); tests/network/test_train_network.py pins that, and that digits are learnt.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgesweep.engine.model.cache import quiet
from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet
from edgesweep.engine.training.unfinished import Unfinished

Arrays = Float[Tensor, "inputs ..."]
Labels = Int[Tensor, " inputs"]
#: told the net and the mean loss of each epoch so far, in nats; first before any
Say = Callable[[FeedForwardNet, list[float]], None]


@dataclass(frozen=True)
class NetworkTraining:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        batch, lr: of Adam.
        seed: of the start and of the batches.
    """

    epochs: int = 100
    batch: int = 64
    lr: float = 3e-3
    seed: int = 0


def train_network(
    config: FeedForwardConfig,
    x: Arrays,
    labels: Labels,
    how: NetworkTraining,
    say: Say = lambda net, losses: None,
    unfinished: Unfinished | None = None,
) -> tuple[FeedForwardNet, list[float]]:
    """A network of these sizes, trained to tell these labels, and its mean loss in each epoch.

    Args:
        unfinished: where it is kept between epochs, and goes on from.

    Raises:
        ValueError: sizes that no network has.
    """
    unfinished = unfinished or Unfinished(None)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        net = FeedForwardNet(config).train()
        adam = torch.optim.Adam(net.parameters(), lr=how.lr)
        rate = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, how.epochs)
        losses = unfinished.restore(net, adam, rate)
        if not losses:
            say(net, losses)
        while len(losses) < how.epochs:
            losses.append(_epoch(net, adam, x, labels, how.batch))
            rate.step()
            say(net, losses)
            unfinished.keep(losses, net, adam, rate)
    return net.eval(), losses


def _epoch(
    net: nn.Module, adam: torch.optim.Optimizer, x: Arrays, labels: Labels, batch: int
) -> float:
    """One pass over the data; its mean loss."""
    total = 0.0
    for rows in torch.randperm(len(x)).split(batch):
        loss = cross_entropy(net(x[rows]), labels[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += float(loss.detach()) * len(rows)
    return total / len(x)


@torch.no_grad()
def accuracy(net: nn.Module, x: Arrays, labels: Labels, batch: int = 1024) -> float:
    """The share of inputs whose largest output is their label's."""
    with one_thread():
        pairs = zip(x.split(batch), labels.split(batch), strict=True)
        return sum(int((net(some).argmax(-1) == of).sum()) for some, of in pairs) / len(x)


def save_network(net: FeedForwardNet, folder: Path) -> None:
    """Its safetensors and config.json, as `engine.model.resolve_model` reads them."""
    with quiet():
        net.save_pretrained(folder)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
