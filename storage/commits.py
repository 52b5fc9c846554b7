"""The commit log: a shard counts once its record is here, and only the driver writes records.

1. A driver claims an epoch (`epochs/000N.json`, put-if-absent) before it commits anything.
2. A record is written after the shard's chunks are durable, put-if-absent, so the first one stays.
3. Before each commit the driver looks for an epoch newer than its own; finding one, it is fenced.
4. A shard past its attempts has a record in `failures/`, which the next driver clears to retry it.
5. A record whose data proves wrong is moved to `commits/bad/` before the shard is redone.

Between the look and the commit a newer driver may start: then a record of the older one lands late.
That loses nothing: shards are deterministic and every reader checks the crc in the record.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.atomic import fsync_folder, make_folder, put_if_absent, read_json, replace, to_json
from storage.errors import Fenced, storage_errors
from storage.rundir import COMMITS, EPOCHS, FAILURES, RunDirectory

BAD = "bad"
REQUIRED = ("attempt", "crc", "rows", "micro_batch", "device", "seconds")
Record = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]{0,199}")


class CommitLog:
    """Reads and writes commit records. A reader needs no epoch; a driver calls `claim_epoch`."""

    def __init__(self, run: RunDirectory | Path, versions: Mapping[str, str] | None = None) -> None:
        self.root = run.path if isinstance(run, RunDirectory) else Path(run)
        self.versions = dict(versions or {})
        self.epoch: int | None = None
        self.epoch_began = 0.0

    def claim_epoch(self) -> int:
        """Becomes the driver of this run; any older driver stops at its next commit."""
        while True:
            epoch = self.newest_epoch() + 1
            record = {"epoch": epoch, **_this_process()}
            if put_if_absent(self._epoch_path(epoch), to_json(record)):
                self.epoch = epoch
                self.epoch_began = self._epoch_path(epoch).stat().st_mtime
                return epoch

    def newest_epoch(self) -> int:
        """0 when no driver has ever run."""
        return max((int(p.stem) for p in _records(self.root / EPOCHS)), default=0)

    def epoch_record(self, epoch: int) -> Record:
        """epoch, pid, host, process_began (ticks; tells a reused pid), time."""
        return read_json(self._epoch_path(epoch))

    def check_fence(self) -> None:
        """Raises Fenced if a newer driver has started."""
        if self.epoch is None:
            raise RuntimeError("claim_epoch() comes before the first commit")
        newest = self.newest_epoch()
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
        written = put_if_absent(self._path(stage, shard), to_json(record))
        self.clear_quarantine(stage, shard)
        return written

    def keys(self, stage: str) -> list[str]:
        """Committed shards, sorted; one listing of a folder."""
        return sorted(p.stem for p in _records(self._stage_folder(COMMITS, stage)))

    def stages(self) -> list[str]:
        """Stages with at least one committed or quarantined shard."""
        folders = [*_folders(self.root / COMMITS), *_folders(self.root / FAILURES)]
        return sorted({f.name for f in folders} - {BAD})

    def committed(self, stage: str) -> dict[str, Record]:
        """Records by shard. One that is no JSON (a damaged disk) does not count; a driver moves it
        to bad."""
        records = {}
        for shard in self.keys(stage):
            try:
                records[shard] = self.record(stage, shard)
            except ValueError:
                if self.epoch is not None:
                    self.move_bad(stage, shard, "the record is damaged")
        return records

    def record(self, stage: str, shard: str) -> Record:
        return read_json(self._path(stage, shard))

    def is_committed(self, stage: str, shard: str) -> bool:
        return self._path(stage, shard).exists()

    def quarantine(self, stage: str, shard: str, failure: Mapping[str, Any]) -> None:
        """Records that the shard was given up, and why. Raises Fenced, StorageError."""
        self.check_fence()
        record = {**failure, "stage": stage, "shard": shard, "epoch": self.epoch}
        replace(self._path(stage, shard, FAILURES), to_json(record))

    def quarantined(self, stage: str) -> dict[str, Record]:
        """Failure records by shard; a shard that is committed is not quarantined."""
        paths = sorted(_records(self._stage_folder(FAILURES, stage)))
        return {p.stem: read_json(p) for p in paths if not self.is_committed(stage, p.stem)}

    def clear_quarantine(self, stage: str, shard: str) -> None:
        """So that the shard is tried again."""
        with storage_errors(self._path(stage, shard, FAILURES)):
            self._path(stage, shard, FAILURES).unlink(missing_ok=True)

    def move_bad(self, stage: str, shard: str, reason: str) -> Path:
        """Un-commits a shard: its record goes to commits/bad/, the reason beside it. Returns
        where it is. Raises StorageError."""
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

    def _epoch_path(self, epoch: int) -> Path:
        return self.root / EPOCHS / f"{epoch:04d}.json"

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
        return [p for p in folder.iterdir() if p.suffix == ".json" and p.name[0] != "."]


def _folders(folder: Path) -> list[Path]:
    with storage_errors(folder, "read"):
        return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []


def _this_process() -> Record:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_began": process_began(os.getpid()),
        "time": round(time.time(), 3),
    }


def process_began(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (Linux); None if there is none. Tells a driver
    from a later process with the same pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
