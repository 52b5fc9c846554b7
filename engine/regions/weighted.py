"""The shortest partition under the weighted block model (`blockstate`), from Ward's tree.

1. Ward's tree of the rows of z is cut at numbers of blocks from 1 to N/2. Of the two shortest cuts
   the finer is the start: merges go further than splits.
2. *Moves*: units in an order drawn with the seed go to the block that shortens Σ most, of the eight
   whose mean weights are most like theirs and an empty one, until none moves.
3. *Merges*: of near blocks the pair that shortens Σ most becomes one, as long as one does.
   Of `N_FEW` units at most also *dissolutions*: the members of a block, of the smallest first, go
   one by one to the best of other blocks, and stay there if Σ is shorter. (A merge takes a block
   whole.)
4. *Splits*: each block is cut in two (Ward's tree of its rows, or an order drawn with the seed),
   changes of side settle it (`Cut`), and it stays cut if Σ is shorter.
5. 2 to 4 again, where something has changed, until of all blocks none of them helps.

Every step shortens Σ, so the end is at least as short as the start.
A move costs O(B) blocks. Peixoto's merge-split (2020) is the same idea with temperature; graph-tool
is handed the result, and judges it (`engine.regions.judge`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage

from edgesweep.engine.regions.blockstate import BlockState, Cut, Weights

#: in nats: less is rounding, not a shorter description
MIN_GAIN = 1e-7
#: how many cuts of the tree are tried
N_CUTS = 24
#: blocks that a unit may move to, those nearest to it
N_NEAR = 8
#: of these, those whose changes make it weigh them again
N_NEAREST = 3
#: of moves that were made: before all
ALL = -1
#: units whose moves are weighed at once
N_AT_ONCE = 64
#: units at most whose blocks are dissolved
N_FEW = 512
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
    best = canonical(_descended(_start(weights, z), rng).blocks)
    return Partition(best, BlockState(weights, best).length())


def merged_to(z: np.ndarray, blocks: np.ndarray, n_blocks: int) -> np.ndarray:
    """A partition of at most so many blocks, by the merges that lengthen Σ least, one by one."""
    state = BlockState(Weights(z), blocks)
    while state.n_blocks > n_blocks:
        change = state.merges(N_NEAR)
        r, s = np.unravel_index(int(change.argmin()), change.shape)
        state.move(np.flatnonzero(state.blocks == s), int(r))
    return canonical(state.blocks)


def canonical(blocks: np.ndarray) -> np.ndarray:
    """Numbered by first appearance."""
    _, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    number: np.ndarray = np.argsort(np.argsort(first))[inverse]
    return number


def _start(weights: Weights, z: np.ndarray) -> BlockState:
    """Of the two shortest cuts of Ward's tree the finer."""
    wanted = np.unique(np.geomspace(1, max(len(z) // 2, 1), N_CUTS).astype(int))
    cuts = cut_tree(ward_tree(z), wanted)
    states = [BlockState(weights, cut) for cut in cuts.T]
    return max(sorted(states, key=BlockState.length)[:2], key=lambda state: state.n_blocks)


def _descended(state: BlockState, rng: np.random.Generator) -> BlockState:
    """After rounds of moves, merges and splits of what changed since, until of all none helps."""
    length, settled, dissolved, cut = state.length(), ALL, ALL, ALL
    for _ in range(MAX_ROUNDS):
        whole = settled == ALL
        _settle(state, rng, settled)
        settled = state.clock
        _merge(state)
        if whole and state.weights.n <= N_FEW:
            merged = state.clock
            state, dissolved = dissolve(state, dissolved), merged
        now = state.clock
        _split(state, rng, cut)
        cut = now
        if state.length() > length - MIN_GAIN:
            if whole:
                break
            settled = cut = ALL
        length = state.length()
    return state


def _settle(state: BlockState, rng: np.random.Generator, since: int) -> None:
    """Rounds of moves, each to the best of the blocks near to it, of units of which one of those
    nearest has changed."""
    for _ in range(MAX_SWEEPS):
        near = state.near(N_NEAR)
        few = np.column_stack([state.blocks, near[:, :N_NEAREST]])
        units = rng.permutation(np.flatnonzero((state.changed[few] > since).any(1)))
        since = state.clock
        for start in range(0, len(units), N_AT_ONCE):
            some = units[start : start + N_AT_ONCE]
            _move(state, some, near[some])
        if state.clock == since:
            break


def _move(state: BlockState, units: np.ndarray, among: np.ndarray) -> None:
    """Some units to the best of their blocks, those with the most to gain first; what is gained is
    counted anew where others have moved before."""
    change = state.changes(units, among)
    best, gain = change.argmin(1), -change.min(1)
    blocks, before = among[np.arange(len(units)), best], state.clock
    for number in np.argsort(-gain, kind="stable")[: int((gain > MIN_GAIN).sum())]:
        one, block = units[number : number + 1], blocks[number : number + 1]
        if state.clock == before or state.changes(one, block)[0, 0] < -MIN_GAIN:
            state.move(one, int(block[0]))


def _merge(state: BlockState) -> None:
    """Merges that shorten it, the best first, until none does."""
    before = ALL
    while state.clock != before and state.n_blocks > 1:
        before, change = state.clock, state.merges(N_NEAR)
        pairs = np.argwhere(change < -MIN_GAIN)
        for r, s in pairs[np.argsort(change[tuple(pairs.T)], kind="stable")]:
            there = state.sizes[r] > 0 and state.sizes[s] > 0
            if there and state.merging(int(r), np.array([s]))[0] < -MIN_GAIN:
                state.move(np.flatnonzero(state.blocks == s), int(r))


def dissolve(state: BlockState, since: int) -> BlockState:
    """Without the blocks that have changed and whose members are better off in others."""
    for block in np.argsort(state.sizes, kind="stable"):
        members = np.flatnonzero(state.blocks == block)
        if not len(members) or state.n_blocks == 1 or state.changed[block] <= since:
            continue
        tried, near = state.copy(), state.near(N_NEAR)[members]
        for unit, among in zip(members[:, None], near, strict=True):
            others = among[(among != block) & (tried.sizes[among] > 0)]
            tried.move(unit, int(others[tried.changes(unit, others)[0].argmin()]))
        if tried.length() < state.length() - MIN_GAIN:
            state = tried
    return state


def _split(state: BlockState, rng: np.random.Generator, since: int) -> None:
    """A split of each block that has changed, where one shortens it."""
    for block in np.flatnonzero((state.sizes > 1) & (state.changed > since)):
        members = np.flatnonzero(state.blocks == block)
        for half in _halves(state.weights.z, members, rng):
            cut = Cut(state, int(block), half)
            if cut.settled(MIN_GAIN) > MIN_GAIN:
                state.move(members[cut.side], state.empty())
                break


def _halves(z: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Which members leave a block: a branch of Ward's tree, and a half that is drawn."""
    yield _branch(ward_tree(z[members]))
    if len(members) > 3:
        yield np.arange(len(members)) % 2 == rng.permutation(len(members)) % 2


def _branch(tree: np.ndarray) -> np.ndarray:
    """The leaves below the first of the root's two children."""
    k = len(tree) + 1
    below = np.zeros(2 * k - 1, dtype=bool)
    below[int(tree[-1, 0])] = True
    for node in range(2 * k - 3, k - 1, -1):
        below[tree[node - k, :2].astype(int)] |= below[node]
    return below[:k]
