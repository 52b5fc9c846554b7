"""What the segments of a stage come to, line after line: of a committed shard its key and where its
record is, so that memory grows by some 150 bytes a shard; records are read when they are asked
for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from edgesweep.storage.commits.segments import decode, segment_key
from edgesweep.storage.records import Record
from edgesweep.storage.stores import Info, Store

#: segments whose records are kept for the next question
_KEPT = 8


@dataclass
class StageIndex:
    """One stage.

    Attributes:
        names: of the segments that were read, in that order.
        committed: shard -> place of its segment in `names`. The first record of a shard stays,
            unless a later line un-commits it.
        gave_up: shard -> the failure of one that is not committed, with its epoch.
        damaged: lines that are not as they were written, by segment.
    """

    store: Store
    stage: str
    names: list[str] = field(default_factory=list)
    committed: dict[str, int] = field(default_factory=dict)
    gave_up: dict[str, Record] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    _infos: dict[int, Info] = field(default_factory=dict)
    _kept: dict[int, dict[str, Record]] = field(default_factory=dict)

    def read(self, info: Info) -> None:
        """Adds a segment that was listed."""
        self._infos[len(self.names)] = info
        self.add(info.key.rpartition("/")[2], decode(self.store.get_told(info), self.stage))

    def add(self, name: str, lines: Iterable[Record | None]) -> None:
        """Adds what a segment says."""
        place = len(self.names)
        self.names.append(name)
        for line in lines:
            if line is None:
                self.damaged[name] = self.damaged.get(name, 0) + 1
            elif "uncommitted" in line:
                self.committed.pop(line["shard"], None)
            elif "gave_up" not in line:
                self.committed.setdefault(sys.intern(line["shard"]), place)
                self.gave_up.pop(line["shard"], None)
            elif line["shard"] not in self.committed:
                self.gave_up[line["shard"]] = {**line["gave_up"], "epoch": line["epoch"]}

    def record(self, shard: str) -> Record | None:
        """The record that counts; None if the shard is not committed."""
        place = self.committed.get(shard)
        return None if place is None else self._records(place).get(shard)

    def records(self) -> Iterator[Record]:
        """Those that count, a segment at a time."""
        for place in range(len(self.names)):
            for shard, record in self._records(place).items():
                if self.committed.get(shard) == place:
                    yield record

    def _records(self, place: int) -> dict[str, Record]:
        """What a segment leaves committed if it is read alone."""
        if place not in self._kept:
            found: dict[str, Record] = {}
            for line in decode(self._data(place), self.stage):
                if line is not None and "uncommitted" in line:
                    found.pop(line["shard"], None)
                elif line is not None and "gave_up" not in line:
                    found.setdefault(line["shard"], line)
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[place] = found
        return self._kept[place]

    def _data(self, place: int) -> bytes:
        if place in self._infos:
            return self.store.get_told(self._infos[place])
        return self.store.get(segment_key(self.stage, self.names[place]))
