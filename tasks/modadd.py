"""``modadd``: modular addition. The prompt is ``x y =``, the answer (x + y) mod p.

Token p is ``=``, so p is one less than the network's outputs or tokens. There are p² prompts, which
a network has all been trained or tested on: their order is a random one, always the same, of which
the first int(0.3 p²) are the build split and all others the evaluation split (the split of the
networks that Bushnaq et al. 2024 published, whose training it was). Fewer are the first of each.
The patch is another prompt of the split with another answer, drawn with the seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import Prompt, TaskInfo, TokenTask
from edgesweep.tasks.sampling import BUILD

#: share of all prompts that are the build split
SHARE = 0.3
_LEAST = 5


def pairs(split: str, p: int) -> list[tuple[int, int]]:
    """The (x, y) of a split, in its order."""
    import torch  # the published order is torch's own

    drawn = torch.randperm(p * p, generator=torch.Generator().manual_seed(0)).tolist()
    n = int(SHARE * p * p)
    mine = drawn[:n] if split == BUILD else drawn[n:]
    return [divmod(number, p) for number in mine]


def draw(split: str, n: int | None, seed: int, n_vocab: int) -> Sequence[Prompt]:
    """n prompts of a split; None: all of it.

    Raises:
        TaskError: where the split has fewer, or a network has too few tokens.
    """
    p = n_vocab - 1
    if p < _LEAST:
        raise TaskError(f"task modadd needs {_LEAST + 1} tokens or more; this model has {n_vocab}")
    pool = pairs(split, p)
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
