"""Segments of the commit log: in which order they are read, what a crash leaves, what they cost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from edgesweep.storage import CommitLog, Fenced, RunDirectory, StorageError
from edgesweep.storage.commits.segments import encode
from edgesweep.storage.stores import LocalStore
from tests.storage.test_commits import RECEIPT, driver, segments


def line(shard: str, epoch: int, **told: object) -> dict[str, object]:
    return {**told, "shard": shard, "stage": "attribute", "epoch": epoch}


def put(run: RunDirectory, name: str, *lines: dict[str, object]) -> None:
    LocalStore(run.path).put(f"commits/attribute/{name}.jsonl", encode(lines))


def test_segments_are_read_in_the_order_of_their_names(run: RunDirectory) -> None:
    """Whatever the order in which they were written: an older driver's may land last."""
    put(
        run,
        "000002-00000000",
        line("a", 2, crc=3),
        line("b", 2, uncommitted="x"),
        line("c", 2, crc=1),
    )
    put(run, "000002-00000010", line("b", 2, crc=9))
    put(run, "000002-00000009", line("c", 2, uncommitted="x"), line("d", 2, gave_up={"error": "x"}))
    put(run, "000001-00000003", line("a", 1, crc=1), line("b", 1, crc=2), line("d", 1, crc=5))
    log = CommitLog(run)
    found = {record["shard"]: record["crc"] for record in log.records("attribute")}
    assert found == {"a": 1, "b": 9, "d": 5}
    assert log.index("attribute") == {"a", "b", "d"}
    assert {shard: log.record("attribute", shard)["crc"] for shard in found} == found


def test_commits_are_written_some_at_a_time(run: RunDirectory) -> None:
    log = CommitLog(run)
    with log.driving():
        for i in range(250):
            assert log.commit("attribute", f"s{i:03d}", RECEIPT)
        assert not log.commit("attribute", "s000", RECEIPT)
        assert len(log.keys("attribute")) == 250, "also of those that wait"
    assert CommitLog(run).keys("attribute") == [f"s{i:03d}" for i in range(250)]
    assert len(segments(run)) < 10
    assert max(p.read_bytes().count(b"\n") for p in segments(run)) <= 101


def test_a_batch_waits_half_a_second_at_most(run: RunDirectory) -> None:
    log = CommitLog(run)
    with log.driving():
        log.commit("attribute", "s000", RECEIPT)
        deadline = time.monotonic() + 60
        while not (run.path / "commits/attribute").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert CommitLog(run).keys("attribute") == ["s000"]


def test_commits_never_wait_for_a_write(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    log, gate, create = CommitLog(run), threading.Event(), LocalStore.create

    def slow(store: LocalStore, key: str, data: bytes) -> bool:
        if key.startswith("commits/"):
            assert gate.wait(60)
        return create(store, key, data)

    with log.driving():
        monkeypatch.setattr(LocalStore, "create", slow)
        for i in range(1000):
            log.commit("attribute", f"s{i:03d}", RECEIPT)
        assert segments(run) == []
        gate.set()
    assert len(CommitLog(run).keys("attribute")) == 1000


def test_what_goes_wrong_in_the_thread_stops_the_driver(run: RunDirectory) -> None:
    """A newer driver, then a disk that takes no more."""

    def drive(hurt: Callable[[], object]) -> None:
        log = CommitLog(run)
        with log.driving(take_over=True):
            log.commit("attribute", "s000", RECEIPT)
            log.flush()
            hurt()
            for i in range(1000):
                log.commit("attribute", f"s{i:03d}", RECEIPT)
                time.sleep(0.01)

    with pytest.raises(Fenced, match="another driver"):
        drive(lambda: driver(run))
    shutil.rmtree(run.path / "commits")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        drive(lambda: (shutil.rmtree(run.path / "commits"), (run.path / "commits").touch()))


def test_a_body_that_failed_still_commits_what_was_done(run: RunDirectory) -> None:

    def drive() -> None:
        log = CommitLog(run)
        with log.driving():
            log.commit("attribute", "s000", RECEIPT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive()
    assert CommitLog(run).keys("attribute") == ["s000"]


def test_a_crash_loses_the_last_batch_at_most(run: RunDirectory) -> None:
    code = (
        "import os, sys; from edgesweep.storage import CommitLog, RunDirectory\n"
        "from tests.storage.test_commits import RECEIPT\n"
        "log = CommitLog(RunDirectory.open(sys.argv[1]))\n"
        "with log.driving():\n"
        "    for i in range(120): log.commit('attribute', f's{i:03d}', RECEIPT)\n"
        "    log.flush()\n"
        "    for i in range(120, 150): log.commit('attribute', f's{i:03d}', RECEIPT)\n"
        "    os.kill(os.getpid(), 9)"
    )
    python = [sys.executable, "-c", code, str(run.path)]
    assert subprocess.run(python, check=False, cwd=Path(__file__).parents[2]).returncode == -9
    found = CommitLog(run).keys("attribute")
    assert found[:120] == [f"s{i:03d}" for i in range(120)]
    assert len(found) in (120, 150)
    assert driver(run).commit("attribute", "s149", RECEIPT) == (len(found) == 120)


def test_a_log_of_many_records_is_small_in_memory(run: RunDirectory) -> None:
    """Less than 200 bytes a record."""
    n = 20_000
    receipt = {**RECEIPT, "writes": [{"array": "c/scores", "crc": 1, "rows": 4, "start": 0}] * 5}
    for i in range(0, n, 100):
        lines = (line(f"eap-3ba92e3629.{k:06d}", 1, **receipt) for k in range(i, i + 100))
        put(run, f"000001-{i // 100:08d}", *lines)
    assert len(CommitLog(run).index("attribute")) == n
    tracemalloc.start()
    log = CommitLog(run)
    assert sum(1 for _ in log.records("attribute")) == n
    kept = tracemalloc.get_traced_memory()[0] - 800 * 2_000  # the last segments' records
    tracemalloc.stop()
    assert kept < 200 * n
    assert os.path.getsize(segments(run)[0]) < 100 * 800
