"""How inputs are cut into shards."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from edgesweep.sweeps.plan.cells import Rows

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.resolve import Dataset

#: a cell is not cut into fewer shards for the sake of larger ones
MIN_SHARDS = 16
#: shards of a stage whose keys the plan tells one by one; of more, how many there are
NAMED = 10_000
#: inputs of a shard that runs circuits, if nothing else is asked for
EVAL_INPUTS = 256
#: the same of a shard whose sums fold, whatever its inputs are
FOLDED_INPUTS = 1024


def blocks_of(dataset: Dataset, n: int, step: int) -> list[Rows]:
    """Blocks of `step` inputs, of `n` a member; none holds two members."""
    return [
        Rows(member, m * n + start, m * n + min(start + step, n))
        for m, member in enumerate(dataset.members)
        for start in range(0, n, step)
    ]


@cache
def rows_a_shard(n: int, target: int) -> int:
    """The divisor of `n` nearest to `target` by ratio, so that all shards are alike; where that
    would be less than a quarter of what is wanted (of a large prime it is 1), `target` itself."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    divisors = [*small, *(n // d for d in small)]
    nearest = min(divisors, key=lambda d: (max(d / target, target / d), d))
    return nearest if 4 * nearest >= min(n, target) else target


def leaves_a_shard(leaves: int, members: int, most: int) -> int:
    """How many leaves of the fixed tree a shard has, of `leaves` a member: a power of 2, so that
    its sums are one node of the tree over all inputs, and of that over its member's, which begins
    anywhere; not above `most`, and not so many that shards become few."""
    several = 1
    while (
        2 * several <= most
        and members * leaves >= 2 * several * MIN_SHARDS
        and (members == 1 or leaves % (2 * several) == 0)
    ):
        several *= 2
    return several
