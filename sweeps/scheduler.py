"""What can be done now: counters over groups of shards, and gates between them.

Shards that need the same groups wait as one, so that a commit costs as many steps as the shard has
groups, however many shards wait. A group that no shard and no gate makes is a fault of a stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesweep.sweeps.stages.base import Gate, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.plan import Plan


@dataclass
class _Waiting:
    """Shards, or a gate, that need the same groups; `n_left` of these are not whole."""

    n_left: int = 0
    shards: list[tuple[str, Any]] = field(default_factory=list)
    gate: Gate | None = None


class Scheduler:
    """Hands out what can be done.

    Args:
        stages: by name; those that are left out are missing.
        committed: keys of the shards of each stage that are done already.

    Raises:
        KeyError: a need that nothing ever meets.
    """

    def __init__(
        self, plan: Plan, stages: Mapping[str, Stage], committed: Mapping[str, Collection[str]]
    ) -> None:
        self._plan = plan
        self._missing: Counter[str] = Counter()
        self._waiting: dict[str, list[_Waiting]] = {}
        self._open: list[_Waiting] = []
        self._needed: set[str] = set()
        gates = [gate for stage in stages.values() for gate in stage.gates(plan)]
        self._missing.update(gate.name for gate in gates)
        self._count_groups(committed)
        for gate in gates:
            self._enqueue(gate.needs, _Waiting(gate=gate))
        together: dict[tuple[str, ...], _Waiting] = {}
        for name, stage in stages.items():
            for shard in plan.stages[name]:
                if shard.key not in committed[name]:
                    waiting = together.setdefault(stage.needs(plan, shard), _Waiting())
                    waiting.shards.append((name, shard))
        for needs, waiting in together.items():
            self._enqueue(needs, waiting)

    def _count_groups(self, committed: Mapping[str, Collection[str]]) -> None:
        """Of every stage, also of those that are left out: what needs them never comes."""
        for name, shards in self._plan.stages.items():
            stage = self._plan.stage(name)
            for shard in shards:
                for group in stage.groups(self._plan, shard):
                    self._missing[group] += shard.key not in committed[name]

    def is_waited_for(self, stage: str, shard: Any) -> bool:
        """Whether anything needed it when the run began."""
        groups = self._plan.stage(stage).groups(self._plan, shard)
        return any(group in self._needed for group in groups)

    def _enqueue(self, needs: Iterable[str], waiting: _Waiting) -> None:
        for group in needs:
            if group not in self._missing:
                raise KeyError(f"{group} is needed, and no stage makes it")
            self._needed.add(group)
            if self._missing[group]:
                waiting.n_left += 1
                self._waiting.setdefault(group, []).append(waiting)
        if not waiting.n_left:
            self._open.append(waiting)

    def ready(self) -> Iterator[Gate | tuple[str, Any]]:
        """What has become ready, once each: gates to be opened, and (stage, shard). A gate must be
        opened before the next is asked for."""
        while self._open:
            waiting = self._open.pop()
            yield from waiting.shards
            if waiting.gate is not None:
                yield waiting.gate
                self._less(waiting.gate.name)

    def done(self, stage: str, shard: Any) -> None:
        """A shard is committed."""
        for group in self._plan.stage(stage).groups(self._plan, shard):
            self._less(group)

    def _less(self, group: str) -> None:
        self._missing[group] -= 1
        if self._missing[group]:
            return
        for waiting in self._waiting.pop(group, ()):
            waiting.n_left -= 1
            if not waiting.n_left:
                self._open.append(waiting)
