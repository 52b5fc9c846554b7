"""``modadd``: modular addition. The prompt is ``x y =``, the answer (x + y) mod p.

Token p is ``=``, so p is one less than the network's outputs or tokens. There are p² prompts, which
a network has all been trained or tested on: in a random order, the first int(share p²) are the
build split and all others the evaluation split. Which, a network's ``config.json`` says
(``trained_on``, as ``edgesweep train model`` writes it); else it is the split of the networks that
Bushnaq et al. 2024 published. Fewer prompts are the first of each. The patch is another prompt of
the split with another answer, drawn with the seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import Prompt, TaskInfo, TokenTask
from edgesweep.tasks.sampling import BUILD

_LEAST = 5


@dataclass(frozen=True)
class TrainedOn:
    """The pairs that a network was trained on: the first int(share p²) of torch's permutation with
    the seed."""

    share: float = 0.3
    seed: int = 0

    @classmethod
    def of(cls, folder: Path | None) -> TrainedOn:
        """What the network in a folder says of itself.

        Raises:
            TaskError: it says what no training is of.
        """
        config = None if folder is None else folder / "config.json"
        if config is None or not config.is_file():
            return cls()
        told = json.loads(config.read_text(encoding="utf-8")).get("trained_on")
        if told is None:
            return cls()
        try:
            found = cls(float(told["share"]), int(told["seed"]))
        except (KeyError, TypeError, ValueError):
            found = cls(0.0)
        if not 0 < found.share < 1:
            raise TaskError(
                f"task modadd: {config} has trained_on {told!r}; allowed: "
                '{"share": more than 0 and less than 1, "seed": a whole number}, or none'
            )
        return found

    def pairs(self, split: str, p: int) -> list[tuple[int, int]]:
        """The (x, y) of a split, in its order."""
        import torch  # the published order is torch's own

        drawn = torch.randperm(p * p, generator=torch.Generator().manual_seed(self.seed)).tolist()
        n = int(self.share * p * p)
        mine = drawn[:n] if split == BUILD else drawn[n:]
        return [divmod(number, p) for number in mine]


def draw(
    split: str, n: int | None, seed: int, n_vocab: int, folder: Path | None = None
) -> Sequence[Prompt]:
    """n prompts of a split of the network in a folder; None: all of it.

    Raises:
        TaskError: where the split has fewer, or a network has too few tokens.
    """
    p = n_vocab - 1
    if p < _LEAST:
        raise TaskError(f"task modadd needs {_LEAST + 1} tokens or more; this model has {n_vocab}")
    pool = TrainedOn.of(folder).pairs(split, p)
    n = len(pool) if n is None else n
    if n > len(pool):
        key = "n_build" if split == BUILD else "n_eval"
        raise TaskError(
            f"task modadd has {len(pool)} prompts for {key} = {n} (p = {p}, after the model); "
            "lower it"
        )
    told = hashlib.sha256(f"modadd\x1f{seed}\x1f{split}\x1f{p}".encode()).digest()
    rng = random.Random(int.from_bytes(told[:8], "big"))
    return [_prompt(pair, pool, p, rng) for pair in pool[:n]]


def _prompt(
    pair: tuple[int, int], pool: list[tuple[int, int]], p: int, rng: random.Random
) -> Prompt:
    good, other = sum(pair) % p, rng.choice(pool)
    while sum(other) % p == good:
        other = rng.choice(pool)
    labels = {"x": 0, "y": 1, "end": 2}
    bad = (sum(other) % p,)
    return Prompt((*pair, p), (*other, p), (good,), bad, "modadd", "sum", labels)


MODADD = TokenTask(
    info=TaskInfo(
        name="modadd",
        description="the sum of two numbers modulo p; for networks of p + 1 tokens (`x y =`)",
        clean="40 99 =",
        patch="7 31 =",
        good="26 (p = 113)",
        bad="38",
    ),
    draw=draw,
)
