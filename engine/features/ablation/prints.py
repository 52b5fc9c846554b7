"""Fingerprints: which targets of which circuits read the same stream on an input.

1. A value that a node takes in a run on an input is known by what it was computed from. It gets a
   random-looking number of 128 bits, two lanes of 64; 0 where it equals the node's patch value.
2. The fingerprint of a mask on an input is the sum of the numbers of its kept sources, each lane
   modulo 2^64 (Zobrist, "A new hashing method with application for game playing", 1970). Sets of
   the same values have the same sum; two others collide with a chance of 2^-128.
3. A feature's number is drawn from its own mask's fingerprint and, where it falls back, that of its
   site's error node.

Rows of numbers are `[nodes, inputs, 2]`. tests/features/test_feature_ablation.py pins what is
shared.
"""

import numpy as np
from jaxtyping import Int, UInt64
from scipy.sparse import csr_array

#: one row a node, or one row
Prints = UInt64[np.ndarray, "_ inputs 2"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mask_prints(kept: csr_array, sources: Prints) -> Prints:
    """Fingerprint of each target's mask.

    Args:
        kept: `[targets, nodes]`, True at kept edges.
    """
    flat = sources.reshape(len(sources), -1)
    total = kept.astype(np.uint64) @ flat
    return np.asarray(total).reshape(kept.shape[0], *sources.shape[1:])


def value_prints(
    nodes: Int[np.ndarray, " nodes"], *origins: UInt64[np.ndarray, "_ inputs 2"]
) -> Prints:
    """Numbers of values: one for each node and all that it was computed from.

    Args:
        nodes: indices of the nodes in the graph.
        origins: fingerprints, of one row or of one a node.
    """
    shape = np.broadcast_shapes((len(nodes), 1, 2), *(o.shape for o in origins))
    seeds = np.asarray(nodes, dtype=np.uint64)[:, None, None] * np.uint64(2)
    found = _scramble(np.broadcast_to(seeds + np.arange(2, dtype=np.uint64), shape))
    for origin in origins:
        for lane in range(2):
            found = _scramble(found ^ origin[..., lane : lane + 1])
    return found


def _scramble(x: UInt64[np.ndarray, "*rows"]) -> UInt64[np.ndarray, "*rows"]:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014), a bijection."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def distinct(
    inputs: Int[np.ndarray, " masks"], prints: UInt64[np.ndarray, "masks 2"]
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " masks"]]:
    """The first mask of each distinct (input, fingerprint), in order, and the row of each mask."""
    order = np.lexsort((prints[:, 1], prints[:, 0], inputs))
    differs = np.diff(inputs[order], prepend=-1) != 0
    differs[1:] |= (prints[order][1:] != prints[order][:-1]).any(1)
    group = np.cumsum(differs) - 1
    owners = order[differs]  # lexsort is stable: the first mask of each group
    rank = np.empty(len(owners), dtype=np.int64)
    rank[np.argsort(owners)] = np.arange(len(owners))
    row = np.empty(len(inputs), dtype=np.int64)
    row[order] = rank[group]
    return np.sort(owners), row
