"""``digits``: which digit is it? scikit-learn's 1,797 real handwritten digits, 8×8, in 0 to 1.

Clean is an image, patch one of another class from the same split, drawn with the seed; good is
clean's class and bad patch's. Every fifth image of the data is kept for evaluation, whatever the
seed, so that a network trained on the others (``edgesweep train model``) has seen none of them.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

from edgesweep.tasks.example import ArrayExample, TaskError
from edgesweep.tasks.prompt import ArrayTask, TaskInfo
from edgesweep.tasks.sampling import BUILD, EVALUATION

SHAPE = (8, 8)

Numbers = tuple[float, ...]


@cache
def images(split: str) -> tuple[tuple[Numbers, int], ...]:
    """The images of a split with their classes, in the data's order."""
    from sklearn.datasets import load_digits  # a second, for those who ask for it

    data = load_digits()
    rows = zip((data.images.reshape(-1, 64) / 16).tolist(), data.target.tolist(), strict=True)
    return tuple(
        (tuple(numbers), label)
        for i, (numbers, label) in enumerate(rows)
        if (i % 5 == 4) == (split == EVALUATION)
    )


def draw(split: str, n: int | None, seed: int) -> list[ArrayExample]:
    """n examples of a split, each of another image; None: all of it.

    Raises:
        TaskError: where the split has fewer than n images.
    """
    pool = images(split)
    n = len(pool) if n is None else n
    if n > len(pool):
        key = {BUILD: "n_build", EVALUATION: "n_eval"}[split]
        raise TaskError(f"task digits has {len(pool)} images for {key} = {n}; lower it")
    rng = random.Random(_digest(f"digits\x1f{seed}\x1f{split}"))
    return [_example(number, pool, rng) for number in rng.sample(range(len(pool)), n)]


def _example(
    number: int, pool: tuple[tuple[Numbers, int], ...], rng: random.Random
) -> ArrayExample:
    clean, good = pool[number]
    patch, bad = rng.choice(pool)
    while bad == good:
        patch, bad = rng.choice(pool)
    return ArrayExample(clean, patch, (good,), (bad,), "digits", "image", SHAPE)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


DIGITS = ArrayTask(
    info=TaskInfo(
        name="digits",
        description="the class of a handwritten digit (8×8, scikit-learn's); for image networks",
        clean="an image of 3",
        patch="an image of 8",
        good="3",
        bad="8",
    ),
    shape=SHAPE,
    n_outputs=10,
    draw=draw,
)
