"""Two disjoint halves of the inputs of a split: what is found in one should be found in the other.

Whatever is held against its other half (block models, rankings) takes them from here, so that all
of it is of the same two halves.
"""

import numpy as np
from jaxtyping import Bool, Int


def halves(groups: Int[np.ndarray, " inputs"], seed: int) -> Bool[np.ndarray, "2 inputs"]:
    """Which inputs are in either half: of every group (member task) one half each, drawn with the
    seed. Of an odd number the one that is over is in neither, so that both are of one size."""
    groups = np.asarray(groups)
    draw, found = np.random.default_rng(seed), np.zeros((2, len(groups)), dtype=bool)
    for group in np.unique(groups):
        mine = draw.permutation(np.flatnonzero(groups == group))
        n = len(mine) // 2
        found[0, mine[:n]] = found[1, mine[n : 2 * n]] = True
    return found
