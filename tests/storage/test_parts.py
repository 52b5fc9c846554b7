"""Rows of cells that are done, while the run goes on: sound ones are seen, others are not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from edgesweep.storage import CommitLog, Fenced, RunDirectory, layout
from edgesweep.storage.manifest import entry, write_manifest
from edgesweep.storage.tables import (
    CIRCUITS,
    KNOWN,
    RESULTS,
    has_parts,
    read_table,
    to_parquet,
    write_parts,
)

RECEIPT = {"attempt": 1, "crc": 0, "rows": 1, "micro_batch": 1, "device": "cpu", "seconds": 0.1}


def known(cell: str, n: int = 3) -> list[dict[str, object]]:
    """Rows of a table with few columns; `cell` stands for the model."""
    fixed = {"model": cell, "task": "t", "known": "k", "level": "edge"}
    return [{**fixed, "edge": i, "source": f"s{i}", "target": f"t{i}"} for i in range(n)]


@pytest.fixture
def log(run: RunDirectory) -> CommitLog:
    log = CommitLog(run)
    log.claim_epoch()
    return log


def models(run: RunDirectory) -> list[str]:
    return list(read_table(run, KNOWN)["model"])


def test_parts_are_one_table_sorted_as_the_whole_is(run: RunDirectory, log: CommitLog) -> None:
    for cell in ("b", "a"):
        write_parts(log, cell, {KNOWN: known(cell)})
    expected = to_parquet(KNOWN, [*known("b"), *known("a")])
    assert to_parquet(KNOWN, read_table(run, KNOWN)) == expected
    assert models(run) == ["a"] * 3 + ["b"] * 3
    assert len(read_table(run, RESULTS)) == 0
    assert has_parts(run, "a")
    assert not has_parts(run, "c")


def test_a_table_that_is_vouched_for_is_read_alone(run: RunDirectory, log: CommitLog) -> None:
    write_parts(log, "a", {KNOWN: known("a")})
    whole = to_parquet(KNOWN, known("whole", 1))
    (run.path / KNOWN.file).write_bytes(whole)
    assert models(run) == ["a"] * 3  # written, and not vouched for yet
    run.log("driver_started")
    write_manifest(run, {KNOWN.file: entry(whole)})
    assert models(run) == ["whole"]


def test_a_driver_that_ends_meanwhile_takes_no_row_from_a_reader(
    run: RunDirectory, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(log, "a", {KNOWN: known("a")})
    whole = to_parquet(KNOWN, known("whole"))

    def ends(*_: object) -> None:
        (run.path / KNOWN.file).write_bytes(whole)
        write_manifest(run, {KNOWN.file: entry(whole)})

    run.log("driver_started")
    monkeypatch.setattr(f"{write_parts.__module__}._part", ends)
    assert models(run) == ["whole"] * 3


@pytest.mark.parametrize("what", ["a.known.parquet", "a.json"])
@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "gone"])
def test_a_damaged_part_is_not_there(
    run: RunDirectory, log: CommitLog, what: str, damage: str
) -> None:
    for cell in ("a", "b"):
        write_parts(log, cell, {KNOWN: known(cell)})
    path = run.path / layout.PARTS / what
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    wrong = {"half": data[: len(data) // 2], "flipped": data, "empty": b"", "gone": b""}[damage]
    path.write_bytes(wrong)
    if damage == "gone":
        path.unlink()
    assert models(run) == ["b"] * 3
    assert not has_parts(run, "a")
    write_parts(log, "a", {KNOWN: known("a")})
    assert models(run) == ["a"] * 3 + ["b"] * 3


def test_new_rows_count_only_with_their_record(run: RunDirectory, log: CommitLog) -> None:
    """A driver killed between the rows and the record: the old record does not vouch for them."""
    write_parts(log, "a", {KNOWN: known("a")})
    (run.path / layout.part("a", KNOWN.file)).write_bytes(to_parquet(KNOWN, known("a", 5)))
    assert models(run) == []


def test_a_fenced_driver_writes_no_part(run: RunDirectory, log: CommitLog) -> None:
    write_parts(log, "a", {KNOWN: known("a")})
    newer = CommitLog(run)
    newer.claim_epoch(take_over=True)
    with pytest.raises(Fenced):
        write_parts(log, "a", {KNOWN: known("a", 1)})
    assert len(models(run)) == 3
    write_parts(newer, "a", {KNOWN: known("a", 2)})
    assert len(models(run)) == 2


def test_what_is_uncommitted_takes_parts_with_it(run: RunDirectory, log: CommitLog) -> None:
    log.commit("attribute", "s000", RECEIPT)
    write_parts(log, "a", {KNOWN: known("a")})
    log.uncommit("attribute", "s000", "its data is not what was committed")
    assert models(run) == []
    assert list((run.path / layout.PARTS).iterdir()) == []


WRITER = """
import sys
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.tables import KNOWN, write_parts
from tests.storage.test_parts import known

log = CommitLog(RunDirectory.open(sys.argv[1]))
log.claim_epoch(take_over=True)
print("began", flush=True)
for n in range(1, 10**6):
    write_parts(log, "a", {KNOWN: known("a", n)})
"""


def test_killed_writers_leave_whole_parts_or_none(run: RunDirectory) -> None:
    """Killed again and again while it writes: what is read is one writing of the cell, or none."""
    for milliseconds in range(0, 50, 10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(run.path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(milliseconds / 1000 + 0.005)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        edges = read_table(run, KNOWN)["edge"].tolist()
        assert edges == list(range(len(edges)))
    log = CommitLog(run)
    log.claim_epoch(take_over=True)
    write_parts(log, "a", {KNOWN: known("a", 7), CIRCUITS: []})
    assert len(models(run)) == 7
