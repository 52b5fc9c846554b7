"""The weighted block model of a complete graph, and moves of single units in it.

Units i < j have a weight z_ij each, and blocks r ≤ s normal weights of unknown mean and variance,
with the conjugate prior NIX(m0, k0, ν0, v0), m0 and v0 the mean and variance of all weights, k0 = 1
and ν0 = 3 (graph-tool's default). The description length in nats is

    Σ(b) = −Σ_{r≤s} ln P(z_rs) + ln N + ln C(N−1, B−1) + ln N! − Σ_r ln n_r!

The graph is complete and simple, so that its edges cost nothing. With weights shifted by m0, n of a
pair of blocks, S their sum and Q their sum of squares,

    ln P = t(n) − (3+n)/2 · ln(3 v0 + Q − S²/(n+1)),
    t(n) = lnΓ((3+n)/2) − lnΓ(3/2) − ½ln(n+1) + (3/2)ln(3 v0) − (n/2)ln π

(Peixoto 2018; t(0) − (3/2)ln(3 v0) = 0, so an empty block costs nothing). tests/regions pins Σ to a
slow sum over pairs of blocks and to graph-tool's entropy.

A move of unit i from r to s changes the pairs of r and of s. With i's own sums to every block, a
row of B numbers says what s would gain by it: O(B) a move, O(N + B) once it is made. Some blocks
are empty, so that a unit may found one. A block that is cut in two (`Cut`) changes the pairs of the
two alone, so that what its members would gain by changing sides is O(B) each as well, and nothing
is made until the cut is.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from scipy.special import gammaln

#: empty blocks that are held ready
SPARE = 8


class Weights:
    """The weights of all pairs.

    Args:
        z: `[N, N]` symmetric; the diagonal is not used.
    """

    def __init__(self, z: np.ndarray) -> None:
        n = len(z)
        pairs = z[np.triu_indices(n, 1)]
        self.n = n
        v0 = float(pairs.var())
        self.z = z - pairs.mean()
        np.fill_diagonal(self.z, 0.0)
        self.z2 = self.z**2
        self.b0 = 3 * v0
        count = np.arange(n * (n - 1) // 2 + 1, dtype=np.float64)
        self._t = gammaln((3 + count) / 2) - gammaln(1.5) - 0.5 * np.log1p(count)
        self._t += 1.5 * np.log(self.b0) - count / 2 * np.log(np.pi)

    def log_p(self, count: np.ndarray, s: np.ndarray, q: np.ndarray) -> np.ndarray:
        """ln P of pairs of blocks with so many weights, their sums and sums of squares."""
        spread = np.asarray(s * s)
        spread /= count + 1
        np.subtract(q, spread, out=spread)
        spread += self.b0
        np.log(spread, out=spread)
        spread *= -0.5 * (count + 3)
        spread += self._t[count]
        return spread

    def prior(self, sizes: np.ndarray) -> float:
        """ln N + ln C(N−1, B−1) + ln N! − Σ ln n_r!, of blocks that are not empty."""
        sizes = sizes[sizes > 0]
        n = self.n
        return float(
            np.log(n) + ln_choose(n - 1, len(sizes) - 1) + gammaln(n + 1) - gammaln(sizes + 1).sum()
        )


def ln_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def counts(sizes: np.ndarray) -> np.ndarray:
    """Weights between every two blocks, `[B, B]`."""
    table = np.outer(sizes, sizes)
    np.fill_diagonal(table, sizes * (sizes - 1) // 2)
    return table


class BlockState:
    """A partition with the sums that its moves need.

    Args:
        blocks: of each unit, `[N]`, numbers 0, 1, …

    Attributes:
        blocks: of each unit.
        sizes: of each block; one at least is empty.
        sums, squares: of the weights between blocks, `[B, B]`, each pair of units once.
        to_sums, to_squares: of each unit's weights to the members of a block, `[N, B]`.
        log_p: of every pair of blocks, `[B, B]`.
        clock, changed: moves that were made, and with which of them a block changed last, `[B]`.
    """

    def __init__(self, weights: Weights, blocks: np.ndarray) -> None:
        self.weights = weights
        _, self.blocks = np.unique(blocks, return_inverse=True)
        self.sizes = np.append(np.bincount(self.blocks), np.zeros(SPARE, dtype=np.int64))
        order = np.argsort(self.blocks, kind="stable")
        first = np.append(0, self.sizes[:-SPARE].cumsum()[:-1])
        self.to_sums, self.sums = _summed(weights.z, order, first)
        self.to_squares, self.squares = _summed(weights.z2, order, first)
        self.log_p = weights.log_p(counts(self.sizes), self.sums, self.squares)
        self.clock, self.changed = 0, np.zeros_like(self.sizes)

    @property
    def n_blocks(self) -> int:
        return int((self.sizes > 0).sum())

    def copy(self) -> BlockState:
        """With tables of its own."""
        new = copy.copy(self)
        for name, table in vars(self).items():
            if isinstance(table, np.ndarray):
                setattr(new, name, table.copy())
        return new

    def length(self) -> float:
        """Σ(b), nats."""
        return self.weights.prior(self.sizes) - float(np.triu(self.log_p).sum())

    def empty(self) -> int:
        """The number of a block without units, made if there is none."""
        if self.sizes.min() > 0:
            for name in ("sizes", "changed", "to_sums", "to_squares", "sums", "squares", "log_p"):
                table: np.ndarray = getattr(self, name)
                axes = (False, True) if name in ("to_sums", "to_squares") else (True,) * table.ndim
                setattr(self, name, np.pad(table, [(0, SPARE * axis) for axis in axes]))
        return int(self.sizes.argmin())

    def near(self, n: int) -> np.ndarray:
        """The n blocks whose mean weights are most like each unit's, the nearest first, and an
        empty one, `[N, n + 1]`; all blocks where there are no more than n."""
        empty, mean = self.empty(), self._means()
        # Σ_t n_t (mean_st − own_t)² but for what is the same for all s; own_t n_t are the sums
        apart = (mean * mean) @ self.sizes - 2 * self.to_sums @ mean
        apart[:, self.sizes == 0] = np.inf
        if n >= apart.shape[1]:
            return np.tile(np.arange(apart.shape[1]), (len(apart), 1))
        found = np.argpartition(apart, np.arange(n), axis=1)[:, :n]
        return np.column_stack([found, np.full(len(found), empty)])

    def _means(self) -> np.ndarray:
        return self.sums / np.maximum(counts(self.sizes), 1)

    def changes(self, units: np.ndarray, among: np.ndarray) -> np.ndarray:
        """How Σ would change if a unit, alone of all, moved to a block.

        Args:
            units: `[units]`.
            among: blocks to go to, `[units, blocks]` or the same for all, `[blocks]`.

        Returns:
            `[units, blocks]`; 0 for its own block.
        """
        w, at = self.weights, np.arange(len(units))
        among, own = np.broadcast_to(among, (len(units), among.shape[-1])), self.blocks[units]
        to_s, to_q = self.to_sums[units], self.to_squares[units]
        sizes = np.tile(self.sizes, (len(units), 1))  # without the unit
        sizes[at, own] -= 1
        left = sizes[at, own]
        n = sizes * left[:, None]
        n[at, own] = left * (left - 1) // 2
        row = w.log_p(n, self.sums[own] - to_s, self.squares[own] - to_q)  # of its own block then
        whole = self.log_p.sum(1)
        # what the pairs of every block are worth without the unit, and with it
        before = whole[among] - self.log_p[among, own[:, None]] + row[at[:, None], among]
        new = sizes[at[:, None], among]
        n = (new + 1)[..., None] * sizes[:, None]
        within = at[:, None], np.arange(among.shape[1]), among
        n[within] = new * (new + 1) // 2
        s, q = self.sums[among] + to_s[:, None], self.squares[among] + to_q[:, None]
        s[at, :, own] -= to_s[at[:, None], among]
        q[at, :, own] -= to_q[at[:, None], among]
        stays = among == own[:, None]
        s[stays] = q[stays] = 0
        gain = w.log_p(n, s, q).sum(-1) - before + np.log(new + 1) + self._prior_of(left, new)
        stay = whole[own] - row.sum(1) + np.log(left + 1) + self._prior_of(left, left)
        change: np.ndarray = np.where(stays, 0.0, (stay - gain.T).T)
        return change

    def _prior_of(self, left: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """−ln C(N−1, B−1) once units are in blocks of so many others, `[units, …]`, where they
        leave so many behind, `[units]`."""
        n, b = self.weights.n, self.n_blocks
        of = np.array([-ln_choose(n - 1, max(k, 1) - 1) for k in (b - 1, b, b + 1)])
        found: np.ndarray = of[1 + ((sizes == 0).T * 1 - (left == 0)).T]
        return found

    def move(self, units: np.ndarray, block: int) -> None:
        """Put units of one block into another."""
        own = int(self.blocks[units[0]])
        if own == block:
            return
        w, pair = self.weights, np.ix_(units, units)
        for table, to, z in (
            (self.sums, self.to_sums, w.z),
            (self.squares, self.to_squares, w.z2),
        ):
            moved, inner = to[units].sum(0), float(z[pair].sum()) / 2
            table[own] -= moved
            table[own, own] += inner
            table[own, block] -= 2 * inner
            table[:, own] = table[own]
            table[block] += moved
            table[block, block] += inner
            table[:, block] = table[block]
            rows = z[units].sum(0)
            to[:, own] -= rows
            to[:, block] += rows
        self.sizes[own] -= len(units)
        self.sizes[block] += len(units)
        self.blocks[units] = block
        self.clock += 1
        for changed in (own, block):
            n = self.sizes * self.sizes[changed]
            n[changed] = self.sizes[changed] * (self.sizes[changed] - 1) // 2
            row = w.log_p(n, self.sums[changed], self.squares[changed])
            self.log_p[changed] = self.log_p[:, changed] = row
            self.changed[changed] = self.clock

    def merges(self, n_near: int) -> np.ndarray:
        """How Σ would change if two blocks became one, `[B, B]`, of each block and the n that are
        nearest to it; infinite elsewhere."""
        b, full = len(self.sizes), np.flatnonzero(self.sizes)
        change, mean = np.full((b, b), np.inf), self._means()
        own = (mean * mean) @ self.sizes
        apart = own + own[:, None] - 2 * (mean * self.sizes) @ mean
        np.fill_diagonal(apart, np.inf)
        apart = apart[np.ix_(full, full)]
        n = min(n_near, len(full) - 1)
        for r, others in zip(full, full[np.argsort(apart, kind="stable")[:, :n]], strict=True):
            change[r, others] = self.merging(int(r), others)
        return change

    def merging(self, r: int, others: np.ndarray) -> np.ndarray:
        """How Σ would change if a block became one with each of others, `[others]`."""
        w, at = self.weights, np.arange(len(others))
        sizes = self.sizes[r], self.sizes[others]
        n = np.outer(sum(sizes), self.sizes)
        sums, squares = (t[r] + t[others] for t in (self.sums, self.squares))
        for table in (n, sums, squares):  # of the two themselves: below
            table[:, r] = table[at, others] = 0
        outside = w.log_p(n, sums, squares)
        s, q = (t[r, r] + t[others, others] + t[r, others] for t in (self.sums, self.squares))
        n_own = sum(sizes) * (sum(sizes) - 1) // 2
        after = outside.sum(1) + w.log_p(n_own, s, q)
        before = self.log_p[r].sum() + self.log_p[others].sum(1) - self.log_p[r, others]
        ordered = gammaln(sizes[0] + 1) + gammaln(sizes[1] + 1) - gammaln(sum(sizes) + 1)
        b = self.n_blocks
        fewer = ln_choose(w.n - 1, b - 2) - ln_choose(w.n - 1, b - 1)
        change: np.ndarray = before - after + ordered + fewer
        return change


def _summed(z: np.ndarray, order: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of weights from units to blocks, `[N, B]`, and between blocks, each pair of units once;
    units in the order of their blocks, of which each begins at its first."""
    to, spare = np.add.reduceat(z[order], first, axis=0), (0, SPARE)
    table = np.add.reduceat(to[:, order], first, axis=1)
    table = (table + table.T) / 2
    table[np.diag_indices(len(table))] /= 2
    # the columns that a move changes lie together
    return np.pad(to, (spare, (0, 0))).T, np.pad(table, (spare, spare))
