"""The commit log: a shard counts once its record is here, and only the driver writes records.

1. A driver claims an epoch (see storage.epochs) before it commits anything.
2. A record is written after the shard's chunks are durable, put-if-absent, so the first one stays.
3. Before each commit the driver looks for an epoch newer than its own; finding one, it is fenced.
4. A shard past its attempts has a record in `failures/`, which the next driver clears to retry it.
5. A record whose data proves wrong is moved to `commits/bad/` before the shard is redone.
6. Records carry a checksum of themselves. One that is damaged, or lies where another belongs, does
   not count; a reader leaves it, a driver moves it to `commits/bad/`.

Between the look and the commit a newer driver may start: then a record of the older one lands late.
That loses nothing: shards are deterministic and every reader checks the crc in the record.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesweep.storage.atomic import fsync_folder, make_folder, put_if_absent, replace, to_json
from edgesweep.storage.epochs import BAD, Epochs
from edgesweep.storage.errors import DamagedRecord, Fenced, StorageError, storage_errors
from edgesweep.storage.layout import COMMITS, FAILURES
from edgesweep.storage.manifest import remove_manifest, remove_parts
from edgesweep.storage.records import Record, read_record, seal
from edgesweep.storage.rundir import RunDirectory

REQUIRED = ("attempt", "crc", "rows", "micro_batch", "device", "seconds")
UNKNOWN = "unknown: the record of the failure is damaged"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]{0,199}")


class CommitLog:
    """Reads and writes commit records. A reader needs no epoch; a driver calls `claim_epoch`."""

    def __init__(self, run: RunDirectory | Path, versions: Mapping[str, str] | None = None) -> None:
        self.root = run.path if isinstance(run, RunDirectory) else Path(run)
        self.versions = dict(versions or {})
        self.epochs = Epochs(self.root)
        self._nonce = run.nonce if isinstance(run, RunDirectory) else ""
        self.epoch: int | None = None
        self.epoch_began = 0.0
        self._is_sealed = True

    def claim_epoch(self, take_over: bool = False, **about: Any) -> int:
        """Becomes the driver of this run; an older driver stops at its next commit. Raises Busy if
        one is at work, unless told to take over."""
        self.epoch = self.epochs.claim(take_over, **about)
        self.epoch_began = self.epochs.path(self.epoch).stat().st_mtime
        return self.epoch

    @contextmanager
    def driving(self, take_over: bool = False, **about: Any) -> Iterator[dict[str, Any]]:
        """Claims an epoch, with `about` in its record, and holds it while the body runs. What the
        body puts in the dict tells how it ended. Raises Busy, and Fenced for whatever a newer
        driver's work makes go wrong in the body."""
        with self.epochs.leased(self.claim_epoch(take_over, **about), self._about) as end:
            try:
                yield end
            except StorageError:
                self.check_fence()
                raise

    def _about(self) -> dict[str, Any]:
        """What the lease says of the run."""
        counts = {stage: len(self.keys(stage)) for stage in self.stages()}
        return {"nonce": self._nonce, "committed": counts}

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
        """Records that the shard's data is written and durable.

        `receipt` is the worker's: attempt, crc, rows, micro_batch, device, seconds, and what the
        caller adds (`writes` makes it verifiable, see storage.arrays). Returns False when the shard
        was committed before, whose record stays. Raises Fenced, StorageError, and ValueError for a
        receipt that lacks a field.
        """
        lacking = [name for name in REQUIRED if name not in receipt]
        if lacking:
            raise ValueError(f"receipt of {stage}/{shard} lacks {', '.join(lacking)}")
        self.check_fence()
        record = {**receipt, "stage": stage, "shard": shard, "epoch": self.epoch}
        record.setdefault("versions", self.versions)
        self._unseal()
        written = put_if_absent(self._path(stage, shard), seal(record))
        self._clear(stage, shard)
        return written

    def keys(self, stage: str) -> list[str]:
        """Committed shards, sorted; one listing of a folder."""
        return sorted(p.stem for p in _records(self._stage_folder(COMMITS, stage)))

    def stages(self) -> list[str]:
        """Stages with at least one committed or quarantined shard."""
        folders = [*_folders(self.root / COMMITS), *_folders(self.root / FAILURES)]
        return sorted({f.name for f in folders if _NAME.fullmatch(f.name)} - {BAD})

    def committed(self, stage: str) -> dict[str, Record]:
        """Records by shard. One that is damaged does not count."""
        found = ((shard, self._sound(stage, shard)) for shard in self.keys(stage))
        return {shard: record for shard, record in found if record is not None}

    def move_damaged(self, stage: str) -> list[str]:
        """Un-commits the shards whose records are damaged. Driver only. Returns them."""
        damaged = [shard for shard in self.keys(stage) if self._sound(stage, shard) is None]
        for shard in damaged:
            self.move_bad(stage, shard, "the record is damaged")
        return damaged

    def _sound(self, stage: str, shard: str) -> Record | None:
        try:
            return self.record(stage, shard)
        except DamagedRecord:
            return None

    def record(self, stage: str, shard: str) -> Record:
        """Raises DamagedRecord if it is not the one that was written there."""
        return self._read(self._path(stage, shard))

    def is_committed(self, stage: str, shard: str) -> bool:
        return self._path(stage, shard).exists()

    def quarantine(self, stage: str, shard: str, failure: Mapping[str, Any]) -> None:
        """Records that the shard was given up, and why. Raises Fenced, StorageError."""
        self.check_fence()
        record = {**failure, "stage": stage, "shard": shard, "epoch": self.epoch}
        replace(self._path(stage, shard, FAILURES), seal(record))

    def quarantined(self, stage: str) -> dict[str, Record]:
        """Failure records by shard; a shard that is committed is not quarantined. Of a damaged one
        it is known that the shard was given up, and not why."""
        found = {}
        for path in sorted(_records(self._stage_folder(FAILURES, stage))):
            if not self.is_committed(stage, path.stem):
                try:
                    found[path.stem] = self._read(path)
                except DamagedRecord:
                    found[path.stem] = {"stage": stage, "shard": path.stem, "error": UNKNOWN}
        return found

    def clear_quarantine(self, stage: str, shard: str) -> None:
        """So that the shard is tried again. Raises Fenced, StorageError."""
        self.check_fence()
        self._clear(stage, shard)

    def _clear(self, stage: str, shard: str) -> None:
        with storage_errors(self._path(stage, shard, FAILURES)):
            self._path(stage, shard, FAILURES).unlink(missing_ok=True)

    def move_bad(self, stage: str, shard: str, reason: str) -> Path:
        """Un-commits a shard: its record goes to commits/bad/, the reason beside it. Returns
        where it is. Raises Fenced, StorageError."""
        self.check_fence()
        self._unseal()
        remove_parts(self.root)
        source = self._path(stage, shard)
        folder = self.root / COMMITS / BAD / stage
        make_folder(folder)
        with storage_errors(folder):
            n = 1
            while (folder / f"{shard}.{n}.json").exists():
                n += 1
            target = folder / f"{shard}.{n}.json"
            os.replace(source, target)
            fsync_folder(source.parent)
            fsync_folder(folder)
        note = {"reason": reason, "time": round(time.time(), 3), "epoch": self.epoch}
        replace(folder / f"{shard}.{n}.reason", to_json(note))
        return target

    def _unseal(self) -> None:
        """What is committed is about to change: the tables are of what was."""
        if self._is_sealed:
            remove_manifest(self.root)
            self._is_sealed = False

    def _read(self, path: Path) -> Record:
        """A commit or failure record; its name must be what it says of itself."""
        record = read_record(path)
        if (record.get("stage"), record.get("shard")) != (path.parent.name, path.stem):
            raise DamagedRecord(f"{path} is the record of another shard; resume the run to redo it")
        return record

    def _stage_folder(self, kind: str, stage: str) -> Path:
        return self.root / kind / _checked("stage", stage)

    def _path(self, stage: str, shard: str, kind: str = COMMITS) -> Path:
        return self._stage_folder(kind, stage) / f"{_checked('shard', shard)}.json"


def _checked(what: str, name: str) -> str:
    """Names become paths."""
    if not _NAME.fullmatch(name) or (what == "stage" and name == BAD):
        raise ValueError(f"{what} {name!r} cannot be a file name: letters, digits and ._+=,- only")
    return name


def _records(folder: Path) -> list[Path]:
    with storage_errors(folder, "read"):
        if not folder.is_dir():
            return []
        return [p for p in folder.iterdir() if p.suffix == ".json" and _NAME.fullmatch(p.stem)]


def _folders(folder: Path) -> list[Path]:
    with storage_errors(folder, "read"):
        return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
