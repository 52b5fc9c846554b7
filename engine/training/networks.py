"""Training feed-forward networks: cross-entropy of labels, Adam, batches shuffled with the seed.

The learning rate falls linearly to 0. One thread, so that a seed gives the same bytes whatever the
machine has; tests/network/test_train_network.py pins that, and that digits are learnt.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from edgesweep.engine.model.cache import quiet
from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet

Arrays = Float[Tensor, "inputs ..."]
Labels = Int[Tensor, " inputs"]


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
    say: Callable[[int, float], None] = lambda epoch, loss: None,
) -> FeedForwardNet:
    """A network of these sizes, trained to tell these labels.

    Args:
        say: told each epoch and its mean loss, in nats.

    Raises:
        ValueError: sizes that no network has.
    """
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        net = FeedForwardNet(config).train()
        adam = torch.optim.Adam(net.parameters(), lr=how.lr)
        rate = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, how.epochs)
        for epoch in range(how.epochs):
            total = 0.0
            for rows in torch.randperm(len(x)).split(how.batch):
                loss = cross_entropy(net(x[rows]), labels[rows])
                adam.zero_grad()
                loss.backward()
                adam.step()
                total += float(loss.detach()) * len(rows)
            rate.step()
            say(epoch + 1, total / len(x))
    return net.eval()


@torch.no_grad()
def accuracy(net: FeedForwardNet, x: Arrays, labels: Labels) -> float:
    """The share of inputs whose largest output is their label's."""
    with _one_thread():
        return float((net(x).argmax(-1) == labels).double().mean())


def save_network(net: FeedForwardNet, folder: Path) -> None:
    """Its safetensors and config.json, as `engine.model.resolve_model` reads them."""
    with quiet():
        net.save_pretrained(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
