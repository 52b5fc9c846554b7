"""A block cut in two, and its members changing sides: what Σ would be, without a state of its own.

Block r becomes a and b. Only the pairs of these two change:

    −Σ ⊃ Σ_{t≠r} [ln P(a,t) + ln P(b,t)] + ln P(a,a) + ln P(a,b) + ln P(b,b) + ln n_a! + ln n_b!

so that with the sums of r's k members to the other blocks and to each other a change of side is
weighed by 2 B numbers. tests/regions pins what a cut gains to the length of the partition it makes.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from edgesweep.engine.regions.blockstate.state import BlockState, ln_choose


class Cut:
    """A block's members on two sides.

    Args:
        block: one of two units or more.
        side: of each member, `[k]`, true for those that leave; some, not all.
    """

    def __init__(self, state: BlockState, block: int, side: np.ndarray) -> None:
        w = self._weights = state.weights
        self.members, self.side = np.flatnonzero(state.blocks == block), side
        others = np.flatnonzero((state.sizes > 0) & (np.arange(len(state.sizes)) != block))
        self._sizes = state.sizes[others]
        self._tables = [
            (_with_none(to[np.ix_(self.members, others)]), z[np.ix_(self.members, self.members)])
            for to, z in ((state.to_sums, w.z), (state.to_squares, w.z2))
        ]
        b = state.n_blocks
        self._whole = float(state.log_p[block].sum() + gammaln(len(side) + 1))
        self._whole += ln_choose(w.n - 1, b) - ln_choose(w.n - 1, b - 1)

    def settled(self, least: float) -> float:
        """Members change sides, that which gains most first, until none gains so much; no side is
        left by all. By how much Σ is shorter then."""
        while True:
            worth, left = self._worth(), self.side.sum()
            stays = worth[-1]
            if left == 1:
                worth[:-1][self.side] = -np.inf
            if left == len(self.side) - 1:
                worth[:-1][~self.side] = -np.inf
            best = int(worth.argmax())
            if best == len(self.side) or worth[best] < stays + least:
                return float(stays) - self._whole
            self.side[best] = not self.side[best]

    def _worth(self) -> np.ndarray:
        """−Σ but for what no cut changes, if a member changed sides, and if none did, `[k + 1]`."""
        # of each change: of the members that leave by it
        sign = np.append(np.where(self.side, -1, 1), 0)
        n_b = self.side.sum() + sign
        n = np.stack([len(self.side) - n_b, n_b])
        rows, within = zip(*(self._sums(sign, *table) for table in self._tables), strict=True)
        worth = self._weights.log_p(n[..., None] * self._sizes, *rows).sum((0, 2))
        worth += gammaln(n + 1).sum(0)
        pairs = np.stack([n[0] * (n[0] - 1) // 2, n[0] * n[1], n[1] * (n[1] - 1) // 2])
        worth += self._weights.log_p(pairs, *within).sum(0)
        return worth

    def _sums(
        self, sign: np.ndarray, outside: np.ndarray, inside: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sums from a and from b to the other blocks, `[2, k + 1, B - 1]`; within a, from a to b
        and within b, `[3, k + 1]`."""
        of_b = outside[:-1][self.side].sum(0) + sign[:, None] * outside
        to_b, to_all = inside[:, self.side].sum(1), inside.sum(1)
        b = to_b[self.side].sum() / 2 + sign * np.append(to_b, 0)
        b_and_all = to_all[self.side].sum() + sign * np.append(to_all, 0)
        across = b_and_all - 2 * b
        a = to_all.sum() / 2 - across - b
        return np.stack([outside.sum(0) - of_b, of_b]), np.stack([a, across, b])


def _with_none(rows: np.ndarray) -> np.ndarray:
    """And a row of no member."""
    return np.concatenate([rows, np.zeros((1, rows.shape[1]))])
