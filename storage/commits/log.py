"""The commit log: a shard counts once its record is here, and only the driver writes records.

1. A driver claims an epoch (see storage.epochs) before it commits anything.
2. Receipts of half a second, at most a hundred, become a segment (see segments.py), by a thread and
   in order: the pool never waits for it. `flush` returns once all are there; a driver does that
   before it hands out what reads them. A crash loses the last batch at most, which is done again.
3. Segments are read in the order of their names. The first record of a shard stays, unless a later
   line un-commits it because its data proved wrong.
4. Before each segment, and with each lease, the driver looks for an epoch newer than its own;
   finding one, it is fenced.
5. A shard past its attempts has a line that says so. It stands until the next driver, which tries
   again.
6. Every line carries a checksum of itself. One that is damaged, or lies where another belongs, does
   not count; a reader leaves it, a driver puts its segment into `commits/bad/` and writes it anew.

Between the look and the segment a newer driver may start: then one of the older lands late. That
loses nothing: shards are deterministic and every reader checks the crc in the record.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgesweep.storage.commits.index import StageIndex
from edgesweep.storage.commits.segments import (
    MOST,
    encode,
    is_segment,
    segment_key,
    segment_name,
    sound_lines,
)
from edgesweep.storage.epochs import BAD, Epochs
from edgesweep.storage.errors import Fenced, StorageError
from edgesweep.storage.layout import COMMITS
from edgesweep.storage.manifest import remove_manifest, remove_parts
from edgesweep.storage.records import Record
from edgesweep.storage.rundir import RunDirectory
from edgesweep.storage.stores import Info
from edgesweep.storage.stores.batches import Batches

REQUIRED = ("attempt", "crc", "rows", "micro_batch", "device", "seconds")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]{0,199}")


class CommitLog:
    """Reads and writes commit records. A reader needs no epoch; a driver calls `claim_epoch`.

    A reader sees the log as it was when it first looked; `record` looks again for a shard that was
    not there.
    """

    def __init__(self, run: RunDirectory, versions: Mapping[str, str] | None = None) -> None:
        self.root, self._run = run.root, run
        self.versions = dict(versions or {})
        self.epochs = Epochs(self.root)
        self._store = self.root.store
        self.epoch: int | None = None
        self.epoch_began = 0.0
        self._is_sealed = True
        self._indices: dict[str, StageIndex] = {}
        self._has_all = False
        self._waiting: set[tuple[str, str]] = set()
        self._batches = Batches(self._write)

    # --- the driver ----------------------------------------------------------------------------
    def claim_epoch(self, take_over: bool = False, **about: Any) -> int:
        """Becomes the driver of this run; an older driver stops at its next segment. Raises Busy if
        one is at work, unless told to take over."""
        self.epoch = self.epochs.claim(take_over, **about)
        claimed = self._store.head(self.epochs.path(self.epoch).key)
        self.epoch_began = claimed.modified if claimed else 0.0
        self._forget()  # an older driver may have gone on until now
        return self.epoch

    @contextmanager
    def driving(self, take_over: bool = False, **about: Any) -> Iterator[dict[str, Any]]:
        """Claims an epoch, with `about` in its record, and holds it while the body runs; commits
        are written some at a time. What the body puts in the dict tells how it ended. Raises Busy,
        and Fenced for whatever a newer driver's work makes go wrong in the body."""
        with self.epochs.leased(self.claim_epoch(take_over, **about), self._about) as end:
            try:
                with self._run.logging(), self._batches.running():
                    yield end
            except StorageError:
                self.check_fence()
                raise

    def _about(self) -> dict[str, Any]:
        """What the lease says of the run."""
        counts = {stage: len(index.committed) for stage, index in self._all()}
        return {"nonce": self._run.nonce, "committed": counts}

    def check_lease(self) -> None:
        """Raises Fenced if a newer driver was found when the lease was last renewed; costs
        nothing."""
        if self.epochs.lost:
            self.check_fence()

    def check_fence(self) -> None:
        """Raises Fenced if a newer driver has started."""
        if self.epoch is None:
            raise RuntimeError("claim_epoch() comes before the first commit")
        newest = self.epochs.newest()
        if newest > self.epoch:
            raise Fenced(
                f"{self.root}: another driver (epoch {newest}) has taken over this run; "
                f"this one (epoch {self.epoch}) stops; nothing is lost"
            )

    def commit(self, stage: str, shard: str, receipt: Mapping[str, Any]) -> bool:
        """Records, with the next segment, that the shard's data is written and durable.

        `receipt` is the worker's: attempt, crc, rows, micro_batch, device, seconds, and what the
        caller adds (`writes` makes it verifiable, see storage.arrays). Returns False when the shard
        was committed before, whose record stays. Raises ValueError for a receipt that lacks a
        field, and Fenced and StorageError of this segment or an earlier one.
        """
        lacking = [name for name in REQUIRED if name not in receipt]
        if lacking:
            raise ValueError(f"receipt of {stage}/{shard} lacks {', '.join(lacking)}")
        record = self._line(stage, shard, receipt)
        record.setdefault("versions", self.versions)
        if (stage, shard) in self._waiting or shard in self._index(stage).committed:
            return False
        encode([record])  # raises ValueError here rather than in the thread
        self._unseal()
        self._waiting.add((stage, shard))
        self._batches.add(record)
        return True

    def quarantine(self, stage: str, shard: str, failure: Mapping[str, Any]) -> None:
        """Records that the shard was given up, and why. Raises Fenced, StorageError."""
        self._batches.add(self._line(stage, shard, {"gave_up": dict(failure)}))

    def uncommit(self, stage: str, shard: str, reason: str) -> None:
        """Records that a shard's data is not what was committed. Raises Fenced, StorageError."""
        self.check_fence()
        self._unseal()
        remove_parts(self.root)
        note = {"uncommitted": reason, "time": round(time.time(), 3)}
        self._batches.add(self._line(stage, shard, note))

    def flush(self) -> None:
        """Returns once everything is written that was committed. Raises Fenced, StorageError."""
        self._batches.flush()

    def mend(self) -> dict[str, int]:
        """Takes damaged lines out of segments, which are kept in commits/bad/; their shards are to
        be done again. Returns how many, by segment. Raises Fenced, StorageError."""
        self.check_fence()
        found = {}
        for stage, index in self._all():
            for name, n in index.damaged.items():
                self._unseal()
                remove_parts(self.root)
                self._mend(stage, name)
                found[segment_key(stage, name)] = n
        if found:
            self._forget()
        return found

    def _mend(self, stage: str, name: str) -> None:
        key = segment_key(stage, name)
        data = self._store.get(key)
        n = 1
        while not self._store.create(f"{COMMITS}/{BAD}/{stage}/{name}.{n}", data):
            n += 1
        if sound := sound_lines(data, stage):
            self._store.put(key, sound)
        else:
            self._store.delete(key)

    def _line(self, stage: str, shard: str, told: Mapping[str, Any]) -> Record:
        if self.epoch is None:
            raise RuntimeError("claim_epoch() comes before the first commit")
        names = {"stage": _checked("stage", stage), "shard": _checked("shard", shard)}
        return {**told, **names, "epoch": self.epoch}

    def _write(self, lines: list[Record]) -> None:
        self.check_fence()
        by_stage: dict[str, list[Record]] = {}
        for line in lines:
            by_stage.setdefault(line["stage"], []).append(line)
        for stage, ours in by_stage.items():
            for start in range(0, len(ours), MOST):
                self._write_segment(stage, ours[start : start + MOST])

    def _write_segment(self, stage: str, lines: list[Record]) -> None:
        index, data = self._index(stage), encode(lines)
        epoch = self.epoch or 0
        number = sum(name.startswith(f"{epoch:06d}-") for name in index.names)
        while not self._store.create(segment_key(stage, segment_name(epoch, number)), data):
            number += 1
        index.add(segment_name(epoch, number), lines)
        self._waiting.difference_update((stage, line["shard"]) for line in lines)

    def _unseal(self) -> None:
        """What is committed is about to change: the tables are of what was."""
        if self._is_sealed:
            self.check_fence()
            remove_manifest(self.root)
            self._is_sealed = False

    # --- readers -------------------------------------------------------------------------------
    def stages(self) -> list[str]:
        """Stages with a committed shard, or one that was given up."""
        self.flush()
        return sorted(stage for stage, index in self._all() if index.names)

    def index(self, stage: str) -> set[str]:
        """Committed shards."""
        self.flush()
        return set(self._index(stage).committed)

    def keys(self, stage: str) -> list[str]:
        """Committed shards, sorted."""
        return sorted(self.index(stage))

    def records(self, stage: str) -> Iterator[Record]:
        """Those that count, some at a time: a stage's are never all in memory."""
        self.flush()
        yield from self._index(stage).records()

    def record(self, stage: str, shard: str) -> Record:
        """Raises StorageError if the shard is not committed."""
        self.flush()
        found = self._index(stage).record(shard)
        if found is None:
            self._look_again(stage)
            found = self._index(stage).record(shard)
        if found is None:
            raise StorageError(f"{self.root}: {stage}/{shard} is not committed; resume the run")
        return found

    def quarantined(self, stage: str, epoch: int | None = None) -> dict[str, Record]:
        """Failures by shard, of those that the driver of an epoch gave up, the newest if None."""
        self.flush()
        gave_up, of = self._index(stage).gave_up, epoch or self.epoch or self.epochs.newest()
        return {k: gave_up[k] for k in sorted(gave_up) if gave_up[k]["epoch"] == of}

    def damaged(self) -> int:
        """Lines that are not as they were written."""
        return sum(sum(index.damaged.values()) for _, index in self._all())

    def _index(self, stage: str) -> StageIndex:
        if stage not in self._indices:
            found = [] if self._has_all else [info for _, info in self._segments(stage)]
            self._read(_checked("stage", stage), found)
        return self._indices[stage]

    def _all(self) -> list[tuple[str, StageIndex]]:
        """By one list of all segments."""
        if not self._has_all:
            found: dict[str, list[Info]] = {}
            for stage, info in self._segments():
                found.setdefault(stage, []).append(info)
            for stage in found.keys() - self._indices.keys():
                self._read(stage, found[stage])
            self._has_all = True
        return list(self._indices.items())

    def _read(self, stage: str, segments: Iterable[Info]) -> None:
        index = StageIndex(self._store, stage)
        for info in segments:
            index.read(info)
        self._indices[stage] = index

    def _forget(self) -> None:
        self._indices, self._has_all = {}, False

    def _look_again(self, stage: str) -> None:
        index = self._index(stage)
        known = set(index.names)
        for _, info in self._segments(stage):
            if info.key.rpartition("/")[2] not in known:
                index.read(info)

    def _segments(self, stage: str = "") -> Iterator[tuple[str, Info]]:
        """Of each its stage, in order."""
        for info in self._store.list(f"{COMMITS}/{stage}".rstrip("/")):
            _, where, *rest = info.key.split("/")
            if len(rest) == 1 and is_segment(rest[0]) and where != BAD and _NAME.fullmatch(where):
                yield where, info


def _checked(what: str, name: str) -> str:
    """Names become keys."""
    if not _NAME.fullmatch(name) or (what == "stage" and name == BAD):
        raise ValueError(f"{what} {name!r} cannot be a file name: letters, digits and ._+=,- only")
    return name
