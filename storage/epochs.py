"""Who drives a run: epochs, one a driver, and the lease that says that it lives.

1. A driver claims an epoch (`epochs/000N.json`, put-if-absent). It may when the newest driver is
   dead or has ended, or when it is told to take over; of drivers that begin at once one gets it.
2. While it works, a thread of it renews `lease.json` every `RENEW_S`: epoch, host, pid, time, the
   shards that each stage has committed, and the nonce of the `RunDirectory` that it was started
   with. The first lease is there before any work is: a worker that is told the nonce finds by
   `read_lease` whether its folder is that of the driver. It is swapped for the one before, never
   written over another's; a driver that finds a newer epoch then has `lost`. On the driver's own
   machine the process is asked whether it lives; from another, it is taken to live while its lease
   is younger than `LEASE_S` (the clocks of the two machines are taken to agree).
3. Its end (`epochs/000N.end.json`) says how far it came, which decides the state of the run. A
   driver that was killed has none.

A record that is damaged keeps its number; who drove then is not known, and taken to be dead.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgesweep.storage.errors import Busy, DamagedRecord, StorageError
from edgesweep.storage.layout import EPOCHS, LEASE
from edgesweep.storage.records import Record, read_record, seal
from edgesweep.storage.stores import Missing, Place

RENEW_S = 20.0
LEASE_S = 90.0
BAD = "bad"

#: what a lease says beside who drives
About = Callable[[], Mapping[str, Any]]

_EPOCH = re.compile(r"(\d{4,9})(\.end)?\.json")


class Epochs:
    """The drivers of a run directory."""

    def __init__(self, root: Place) -> None:
        self._root = root
        self._lost, self._tag = threading.Event(), ""

    @property
    def lost(self) -> bool:
        """Whether the driver that holds a lease has found out that a newer one has begun."""
        return self._lost.is_set()

    def newest(self) -> int:
        """0 when no driver has ever run."""
        return max((int(name[1]) for name in self._names()), default=0)

    def claim(self, take_over: bool = False, **about: Any) -> int:
        """A new epoch, with `about` in its record. Raises Busy if the newest driver lives."""
        while True:
            epoch = self.newest() + 1  # looked at once: another may begin after each look
            if not take_over:
                self._check_alone(epoch - 1)
            record = {"epoch": epoch, **_this_process(), **about}
            if self.path(epoch).create(seal(record)):
                return epoch

    def check_alone(self) -> None:
        """Raises Busy if a driver is at work."""
        self._check_alone(self.newest())

    def _check_alone(self, newest: int) -> None:
        if (driver := self._living(newest)) is None:
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(driver["time"]))
        raise Busy(
            f"{self._root} has a driver at work: process {driver['pid']} on {driver['host']} since "
            f"{since}; wait for it, stop it with Ctrl-C, or go on in its place with --take-over"
        )

    def driver(self) -> Record | None:
        """The record of the driver at work, None if there is none."""
        return self._living(self.newest())

    def _living(self, newest: int) -> Record | None:
        if newest == 0 or self.path(newest, ".end").exists():
            return None
        record = self.began(newest)
        if record is None:
            return None
        ours = record["host"] == socket.gethostname() and record["process_began"] is not None
        lives = _is_process(record) if ours else time.time() - self._heard(record) < LEASE_S
        return record if lives else None

    def began(self, epoch: int) -> Record | None:
        """What its driver claimed: epoch, pid, host, process_began (ticks; tells a reused pid),
        time, left_out. None if that is damaged."""
        return _sound(self.path(epoch))

    def ended(self, epoch: int) -> Record | None:
        """How its driver ended: left, quarantined, stopped. None if it has not, or was killed."""
        return _sound(self.path(epoch, ".end"))

    def damaged(self) -> list[Place]:
        """Objects of this module that are not as they were written."""
        found = [self._root / EPOCHS / name[0] for name in self._names()]
        return [place for place in [*found, self._root / LEASE] if _is_damaged(place)]

    def move_damaged(self) -> list[Place]:
        """Puts damaged records of older drivers aside, now that a newer epoch keeps the count."""
        bad = self._root / EPOCHS / BAD
        found = [place for place in self.damaged() if place.name != LEASE]
        for place in found:
            (bad / place.name).write(place.read())
            place.delete()
        return found

    @contextmanager
    def leased(self, epoch: int, about: About = dict) -> Iterator[dict[str, Any]]:
        """While the body runs, others see that this driver lives; `about` gives what else its lease
        says. What the body puts in the dict is written at its end; nothing, if it failed."""
        ended = threading.Event()
        self._lost.clear()
        thread = threading.Thread(target=self._renew, args=(epoch, about, ended), daemon=True)
        end: dict[str, Any] = {}
        with suppress(StorageError):  # a lease that cannot be written stops no work
            if epoch == self.newest():
                self._tag = self._written(self._lease(epoch, about))
        thread.start()
        try:
            yield end
        finally:
            ended.set()
            thread.join()
            with suppress(StorageError):  # a full disk must not hide its first error behind this
                self._end(epoch, end)

    def path(self, epoch: int, kind: str = "") -> Place:
        """Where the record of an epoch is."""
        return self._root / EPOCHS / f"{epoch:04d}{kind}.json"

    def _names(self) -> list[re.Match[str]]:
        names = (info.key.removeprefix(f"{EPOCHS}/") for info in (self._root / EPOCHS).list())
        return [match for name in names if (match := _EPOCH.fullmatch(name))]

    def _renew(self, epoch: int, about: About, ended: threading.Event) -> None:
        while not ended.wait(RENEW_S):
            with suppress(StorageError):  # nor one that cannot be renewed
                if not self._renewed(epoch, about):
                    self._lost.set()
                    return

    def _renewed(self, epoch: int, about: About) -> bool:
        """False for a driver that is not the newest: not even one that begins after the look loses
        its lease to it."""
        if epoch < self.newest():
            return False
        data = self._lease(epoch, about)
        tag = self._root.store.swap(LEASE, data, self._tag)
        if tag is None and epoch < self.newest():
            return False
        self._tag = self._written(data) if tag is None else tag  # somebody took it away
        return True

    def _written(self, lease: bytes) -> str:
        """The tag of a lease that is written over whatever is there."""
        (self._root / LEASE).write(lease)
        written = self._root.store.head(LEASE)
        return "" if written is None else written.tag

    def _lease(self, epoch: int, about: About) -> bytes:
        return seal({"epoch": epoch, **_this_process(), **about()})

    def _end(self, epoch: int, end: Mapping[str, Any]) -> None:
        record = {"epoch": epoch, "time": round(time.time(), 3), **end}
        self.path(epoch, ".end").write(seal(record))
        if epoch == self.newest():
            (self._root / LEASE).delete()

    def _heard(self, began: Record) -> float:
        """When a driver was last heard of: its lease, or its beginning where it has none yet. A
        damaged lease still has the time at which it was written."""
        try:
            lease = read_lease(self._root)
        except DamagedRecord:
            info = self._root.store.head(LEASE)
            return info.modified if info else float(began["time"])
        except StorageError:
            return float(began["time"])
        return float(lease["time"] if lease["epoch"] == began["epoch"] else began["time"])


def read_lease(root: Place) -> Record:
    """The lease of the driver at work: epoch, host, pid, time, nonce, committed {stage: shards}.
    Raises StorageError where there is none, or a damaged one."""
    return read_record(root / LEASE)


def _sound(place: Place) -> Record | None:
    try:
        return read_record(place)
    except StorageError:
        return None


def _is_damaged(place: Place) -> bool:
    try:
        read_record(place)
    except DamagedRecord:
        return True
    except Missing:
        pass
    return False


def _this_process() -> Record:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_began": process_began(os.getpid()),
        "time": round(time.time(), 3),
    }


def _is_process(record: Record) -> bool:
    return process_began(record["pid"]) == record["process_began"]


def process_began(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (Linux); None if there is none. Tells a driver
    from a later process with the same pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
