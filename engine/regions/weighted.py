"""The shortest partition under the weighted block model (`blockstate`), from Ward's tree.

1. Ward's tree of the rows of z is cut at numbers of blocks from 1 to N/2, and the shortest cuts are
   starts.
2. *Moves*: units in an order drawn with the seed go to the block that shortens Σ most, of the eight
   whose mean weights are most like theirs and an empty one, until a whole round moves none.
3. *Merges*: the pair of blocks that shortens Σ most becomes one, as long as one does.
4. *Splits*: each block is cut in two (Ward's tree of its rows, or an order drawn with the seed);
   moves within both settle it; it stays if Σ is shorter.
5. 2 to 4 again, until none of them helps.

Every step shortens Σ, so the end is at least as short as each start, and as all units in one block.
A move costs O(B) blocks. Peixoto's merge-split (2020) is the same idea with temperature; graph-tool
is handed the result, and judges it (`engine.regions.judge`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage

from edgesweep.engine.regions.blockstate import BlockState, Weights

#: in nats: less is rounding, not a shorter description
MIN_GAIN = 1e-7
#: how many cuts of the tree are tried, and how many of them are starts
N_CUTS, N_STARTS = 24, 2
#: blocks that a unit may move to, those nearest to it
N_NEAR = 8
#: units whose moves are weighed at once
N_AT_ONCE = 64
#: rounds of moves, of all steps
MAX_SWEEPS, MAX_ROUNDS = 50, 20


@dataclass(frozen=True)
class Partition:
    """Blocks of units, numbered by first appearance, and Σ in nats."""

    blocks: np.ndarray
    length: float

    @property
    def n_blocks(self) -> int:
        return int(self.blocks.max()) + 1


def description_length(z: np.ndarray, blocks: np.ndarray) -> float:
    """Σ of a partition, in nats."""
    return BlockState(Weights(z), blocks).length()


def ward_tree(z: np.ndarray) -> np.ndarray:
    """scipy's linkage of the rows of z."""
    return linkage(z, "ward")


def fit_blocks(z: np.ndarray, seed: int) -> Partition:
    """The shortest partition that was found; one block, of length 0, where all weights are alike.

    Args:
        z: weights `[N, N]`, symmetric; N ≥ 2.
    """
    if np.ptp(z[np.triu_indices(len(z), 1)]) == 0:  # nothing to describe
        return Partition(np.zeros(len(z), dtype=np.int64), 0.0)
    weights, rng = Weights(z), np.random.default_rng(seed)
    found = [_descended(start, rng) for start in _starts(weights, z)]
    best = min(found, key=BlockState.length)
    return Partition(canonical(best.blocks), best.length())


def merged_to(z: np.ndarray, blocks: np.ndarray, n_blocks: int) -> np.ndarray:
    """A partition of at most so many blocks, by the merges that lengthen Σ least, one by one."""
    state = BlockState(Weights(z), blocks)
    while state.n_blocks > n_blocks:
        change = state.merges()
        r, s = np.unravel_index(int(change.argmin()), change.shape)
        for unit in np.flatnonzero(state.blocks == s):
            state.move(int(unit), int(r))
    return canonical(state.blocks)


def canonical(blocks: np.ndarray) -> np.ndarray:
    """Numbered by first appearance."""
    _, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    number: np.ndarray = np.argsort(np.argsort(first))[inverse]
    return number


def _starts(weights: Weights, z: np.ndarray) -> list[BlockState]:
    """The shortest cuts of Ward's tree."""
    wanted = np.unique(np.geomspace(1, max(len(z) // 2, 1), N_CUTS).astype(int))
    cuts = cut_tree(ward_tree(z), wanted)
    states = [BlockState(weights, cut) for cut in cuts.T]
    return sorted(states, key=BlockState.length)[:N_STARTS]


def _descended(state: BlockState, rng: np.random.Generator) -> BlockState:
    length = state.length()
    for _ in range(MAX_ROUNDS):
        state = _compact(_settled(state, rng))
        state = _compact(_merged(state))
        state = _compact(_split(state, rng))
        if state.length() > length - MIN_GAIN:
            break
        length = state.length()
    return state


def _compact(state: BlockState) -> BlockState:
    """The same without gaps in its numbers, its sums anew and so without drift."""
    return BlockState(state.weights, state.blocks)


def _settled(state: BlockState, rng: np.random.Generator) -> BlockState:
    """After rounds of moves of all units, each to the best of the blocks near to it."""
    for _ in range(MAX_SWEEPS):
        order = rng.permutation(state.weights.n)
        parts = [order[start : start + N_AT_ONCE] for start in range(0, len(order), N_AT_ONCE)]
        if not sum(_moved(state, part, state.near(part, N_NEAR)) for part in parts):
            break
    return state


def _moved(state: BlockState, units: np.ndarray, among: np.ndarray) -> int:
    """How many of some units went to the best of their blocks, those with the most to gain first;
    what is gained is counted anew where others have moved before."""
    change = state.changes(units, among)
    best, gain = change.argmin(1), -change.min(1)
    blocks = np.broadcast_to(among, change.shape)[np.arange(len(units)), best]
    moved = 0
    for number in np.argsort(-gain, kind="stable")[: int((gain > MIN_GAIN).sum())]:
        one, block = units[number : number + 1], blocks[number : number + 1]
        if not moved or state.changes(one, block)[0, 0] < -MIN_GAIN:
            state.move(int(one[0]), int(block[0]))
            moved += 1
    return moved


def _merged(state: BlockState) -> BlockState:
    """After merges that shorten it, the best first, until none does."""
    while state.n_blocks > 1:
        change, merged = state.merges(), False
        pairs = np.argwhere(change < -MIN_GAIN)
        for r, s in pairs[np.argsort(change[tuple(pairs.T)], kind="stable")]:
            there = state.sizes[r] > 0 and state.sizes[s] > 0
            if there and state.merging(int(r), np.array([s]))[0] < -MIN_GAIN:
                merged = True
                for unit in np.flatnonzero(state.blocks == s):
                    state.move(int(unit), int(r))
        if not merged:
            break
    return state


def _split(state: BlockState, rng: np.random.Generator) -> BlockState:
    """After a split of each block, where one shortens it."""
    length = state.length()
    for block in np.flatnonzero(state.sizes):
        members = np.flatnonzero(state.blocks == block)
        for half in _halves(state.weights.z, members, rng):
            tried = state.copy()
            among = np.sort([block, tried.empty()])
            new = int(among[among != block][0])
            for unit in members[half]:
                tried.move(int(unit), new)
            _settle_two(tried, members, among, rng)
            if tried.sizes[among].min() > 0 and tried.length() < length - MIN_GAIN:
                state, length = tried, tried.length()
                break
    return state


def _settle_two(
    state: BlockState, members: np.ndarray, among: np.ndarray, rng: np.random.Generator
) -> None:
    """Rounds of moves of the members of two blocks between them."""
    for _ in range(MAX_SWEEPS):
        order = rng.permutation(members)
        parts = [order[start : start + N_AT_ONCE] for start in range(0, len(order), N_AT_ONCE)]
        if not sum(_moved(state, part, among) for part in parts):
            break


def _halves(z: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Which members leave a block: a branch of Ward's tree, and a half that is drawn."""
    if len(members) < 2:
        return
    yield cut_tree(ward_tree(z[members]), 2)[:, 0] == 1
    if len(members) > 3:
        yield np.arange(len(members)) % 2 == rng.permutation(len(members)) % 2
