"""Whose fault it is when works fail: theirs, or the node's.

1. A work is given up after `max_attempts` failures on as many different nodes, if there are so many
   for it; and not yet if other works fail where it failed and there is a node that might do it.
2. A node on which the last `SUSPECT` works failed is given no more, while other nodes do better;
   the last of those works is tried elsewhere at once.
3. If one of them is done elsewhere, the node is to blame: it is *shut out* for good, and what
   failed there has not failed. If they fail elsewhere too, they are given up, and the node goes on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Set

from edgesweep.engine.runtime.work import Mishap, PoolOptions

SUSPECT = 3


class Blame:
    """What is known of nodes and of works that failed. Nodes are told by their ids.

    Attributes:
        shut_out: node -> what happened there.
    """

    def __init__(self, options: PoolOptions) -> None:
        self._max_attempts, self._max_lost = options.max_attempts, options.max_lost
        self._failed_on: dict[str, list[str]] = defaultdict(list)
        self._lost: Counter[str] = Counter()
        # node -> works that failed there since it last did one -> done elsewhere since?
        self._row: dict[str, dict[str, bool]] = defaultdict(dict)
        self._last: dict[str, Mishap] = {}
        self.shut_out: dict[str, Mishap] = {}

    def failed_on(self, key: str) -> list[str]:
        """The nodes on which a work failed, one a failure."""
        return self._failed_on[key]

    def is_suspect(self, node: str) -> bool:
        return len(self._row[node]) >= SUSPECT

    def is_trial(self, key: str, nodes: Set[str]) -> bool:
        """Whether trying a work elsewhere, at once, tells if a suspect node is to blame."""
        failed_on = {*self._failed_on[key]}
        return any(map(self.is_suspect, failed_on)) and not nodes <= failed_on

    def may_have(self, node: str, nodes: Set[str]) -> bool:
        """Whether a node is given works, one of the `nodes` with workers."""
        if node in self.shut_out:
            return False
        return not self.is_suspect(node) or all(map(self.is_suspect, nodes))

    def done(self, key: str, node: str) -> str | None:
        """A work was done. Returns a node that this shuts out."""
        self._row[node].clear()
        self._failed_on.pop(key, None)
        guilty = None
        for other, row in self._row.items():
            if key in row:
                row[key] = True
                guilty = other if self._is_guilty(other) else guilty
        return guilty and self.shut(guilty, self._last[guilty])

    def failed(self, key: str, mishap: Mishap) -> str | None:
        """A work failed. Returns a node that this shuts out."""
        node = mishap.node
        self._failed_on[key].append(node)
        self._row[node][key] = False
        self._last[node] = mishap
        return self.shut(node, mishap) if self._is_guilty(node) else None

    def lost(self, key: str) -> bool:
        """A work's node is gone, which is not its fault. Returns whether it was once too often."""
        self._lost[key] += 1
        return self._lost[key] > self._max_lost

    def _is_guilty(self, node: str) -> bool:
        return self.is_suspect(node) and any(self._row[node].values())

    def shut(self, node: str, mishap: Mishap) -> str:
        """Shuts a node out; what failed there has not failed."""
        self.shut_out[node] = mishap
        self._row.pop(node, None)
        for nodes in self._failed_on.values():
            nodes[:] = [other for other in nodes if other != node]
        return node

    def is_hopeless(self, key: str, nodes: Set[str]) -> bool:
        """Whether a work that has failed is given up, with workers on those nodes."""
        failed_on = self._failed_on[key]
        if len(failed_on) < self._max_attempts:
            return False
        alone = {node for node in failed_on if not self._row[node].keys() - {key}}
        untried = {n for n in nodes - {*failed_on} - {*self.shut_out} if not self.is_suspect(n)}
        return not untried or len(alone) >= self._max_attempts

    def give_up(self, key: str) -> None:
        """The work is to blame, and no node for it."""
        self._failed_on.pop(key, None)
        for row in self._row.values():
            row.pop(key, None)
