"""Training the modular-addition transformer: which is x + y mod p, after the tokens `x y =`?

The network of Nanda et al. 2023 and of *The Local Interaction Basis* (2024), in TransformerLens's
names: one causal layer, ReLU, biases, no norms. Trained on a share of all p² pairs by full-batch
AdamW until it groks: it first knows the pairs by heart and tells the others by chance, and weight
decay then brings the rule. The published networks had 30% of 113² pairs; of 29² that is too few for
any rule within 4,000 steps, and half of them is the default. The loss is taken in float64, whose
rounding does not end the training of pairs that are known by heart. One thread, so that a seed
gives the same bytes.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgesweep.engine.model.transformerlens import TRAINED_ON, WEIGHTS
from edgesweep.engine.training.networks import accuracy, one_thread
from edgesweep.engine.training.unfinished import Unfinished
from edgesweep.tasks.modadd import TrainedOn
from edgesweep.tasks.sampling import BUILD, EVALUATION

#: tokens of a sequence
LENGTH = 3


@dataclass(frozen=True)
class Modadd:
    """What is trained, and how.

    Attributes:
        p: of the sums; the token `=` is number p.
        d_model, n_heads, d_mlp: sizes; heads are of d_model / n_heads.
        share: of all pairs that it is trained on, drawn with seed 0.
        steps: of AdamW, each on all of them.
        lr, weight_decay: of AdamW.
        seed: of the start.

    Raises:
        ValueError: a size or share that cannot be.
    """

    p: int = 29
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int = 256
    share: float = 0.5
    steps: int = 12_000
    lr: float = 1e-3
    weight_decay: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is no multiple of {self.n_heads} heads")
        if not 1 <= int(self.share * self.p**2) < self.p**2:
            raise ValueError(
                f"share is {self.share} of {self.p**2} pairs; some must be trained on, and some not"
            )


@dataclass(frozen=True)
class Sums:
    """Sequences `[pairs, 3]` and their sums `[pairs]`."""

    tokens: Int[Tensor, "pairs 3"]
    sums: Int[Tensor, " pairs"]


def splits(p: int, share: float) -> tuple[Sums, Sums]:
    """The pairs to train on, and the others, as the task `modadd` has them."""
    train, test = (_sums(TrainedOn(share).pairs(split, p), p) for split in (BUILD, EVALUATION))
    return train, test


def _sums(pairs: list[tuple[int, int]], p: int) -> Sums:
    xy = torch.tensor(pairs)
    return Sums(torch.cat([xy, torch.full((len(xy), 1), p)], 1), xy.sum(1) % p)


class _Embed(nn.Module):
    def __init__(self, how: Modadd) -> None:
        super().__init__()
        self.W_E = nn.Parameter(_normal(how, how.p + 1, how.d_model))


class _PosEmbed(nn.Module):
    def __init__(self, how: Modadd) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(_normal(how, LENGTH, how.d_model))


class _Unembed(nn.Module):
    def __init__(self, how: Modadd) -> None:
        super().__init__()
        self.W_U = nn.Parameter(_normal(how, how.d_model, how.p + 1))
        self.b_U = nn.Parameter(torch.zeros(how.p + 1))


class _Attention(nn.Module):
    mask: Tensor
    IGNORE: Tensor

    def __init__(self, how: Modadd) -> None:
        super().__init__()
        d_head = how.d_model // how.n_heads
        for port in "QKV":
            weight = _normal(how, how.n_heads, how.d_model, d_head)
            self.register_parameter(f"W_{port}", nn.Parameter(weight))
            self.register_parameter(f"b_{port}", nn.Parameter(torch.zeros(how.n_heads, d_head)))
        self.W_O = nn.Parameter(_normal(how, how.n_heads, d_head, how.d_model))
        self.b_O = nn.Parameter(torch.zeros(how.d_model))
        self.register_buffer("mask", torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril())
        self.register_buffer("IGNORE", torch.tensor(-torch.inf))

    def forward(self, x: Float[Tensor, "pairs seq d_model"]) -> Float[Tensor, "pairs seq d_model"]:
        q, k, v = (
            torch.einsum("bsd,hde->bhse", x, getattr(self, f"W_{port}"))
            + getattr(self, f"b_{port}")[:, None]
            for port in "QKV"
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        pattern = torch.where(self.mask, scores, self.IGNORE).softmax(-1)
        return torch.einsum("bhse,hed->bsd", pattern @ v, self.W_O) + self.b_O


class _Mlp(nn.Module):
    def __init__(self, how: Modadd) -> None:
        super().__init__()
        self.W_in = nn.Parameter(_normal(how, how.d_model, how.d_mlp))
        self.b_in = nn.Parameter(torch.zeros(how.d_mlp))
        self.W_out = nn.Parameter(_normal(how, how.d_mlp, how.d_model))
        self.b_out = nn.Parameter(torch.zeros(how.d_model))

    def forward(self, x: Float[Tensor, "pairs seq d_model"]) -> Float[Tensor, "pairs seq d_model"]:
        out: Tensor = (x @ self.W_in + self.b_in).relu() @ self.W_out + self.b_out
        return out


class _Block(nn.Module):
    def __init__(self, how: Modadd) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(how), _Mlp(how)

    def forward(self, x: Float[Tensor, "pairs seq d_model"]) -> Float[Tensor, "pairs seq d_model"]:
        x = x + self.attn(x)
        x = x[:, -1:]  # nothing reads the other positions
        out: Tensor = x + self.mlp(x)
        return out


class ModaddNet(nn.Module):
    """The network; its state is what a file of it holds."""

    def __init__(self, how: Modadd) -> None:
        super().__init__()
        self.embed, self.pos_embed = _Embed(how), _PosEmbed(how)
        self.blocks = nn.ModuleList([_Block(how)])
        self.unembed = _Unembed(how)

    def forward(self, tokens: Int[Tensor, "pairs 3"]) -> Float[Tensor, "pairs outputs"]:
        """Logits after the last token."""
        x = self.embed.W_E[tokens] + self.pos_embed.W_pos
        out: Tensor = self.blocks[0](x)[:, -1] @ self.unembed.W_U + self.unembed.b_U
        return out


def _normal(how: Modadd, *shape: int) -> Tensor:
    """A weight as TransformerLens draws it."""
    return torch.randn(shape) * 0.8 / math.sqrt(how.d_model)


#: told the network after so many steps, none at first, and the losses until then
SayStep = Callable[[ModaddNet, list[float]], None]


def train_modadd(
    how: Modadd, say: SayStep, unfinished: Unfinished
) -> tuple[ModaddNet, list[float]]:
    """The network, and its loss at each step, in nats."""
    train, _ = splits(how.p, how.share)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        net = ModaddNet(how)
        adam = torch.optim.AdamW(
            net.parameters(), how.lr, betas=(0.9, 0.98), weight_decay=how.weight_decay
        )
        losses = unfinished.restore(net, adam)
        if not losses:
            say(net, losses)
        while len(losses) < how.steps:
            loss = cross_entropy(net(train.tokens).double(), train.sums)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(float(loss.detach()))
            say(net, losses)
            unfinished.keep(losses, net, adam)
    return net, losses


def right(net: ModaddNet, of: Sums) -> float:
    """The share of sums that it tells."""
    return accuracy(net, of.tokens, of.sums)


def save_modadd(net: ModaddNet, how: Modadd, folder: Path) -> None:
    """Its weights in TransformerLens's names; the file's header says what it was trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.contiguous() for name, w in net.state_dict().items()}
    told = json.dumps(asdict(TrainedOn(how.share)))
    save_file(weights, folder / WEIGHTS, metadata={TRAINED_ON: told})
