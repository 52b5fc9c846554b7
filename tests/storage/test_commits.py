"""Records are put once, by one driver, and only sound data stays committed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesweep.storage import Busy, CommitLog, Fenced, RunDirectory, StorageError
from edgesweep.storage.arrays import create_array
from edgesweep.storage.atomic import put_if_absent, remove_strays, to_json
from edgesweep.storage.blocks import is_sound, make_receipt, move_unsound, write_block, write_file
from edgesweep.storage.readers import Committed, commits, committed_rows, scores
from edgesweep.storage.records import seal

RECEIPT = {"attempt": 1, "crc": 7, "rows": 4, "micro_batch": 4, "device": "cpu", "seconds": 0.1}
CHILD = multiprocessing.get_context("spawn")


def driver(run: RunDirectory) -> CommitLog:
    """The newest driver, also where an older one of this process is at work."""
    log = CommitLog(run, versions={"numpy": "2"})
    log.claim_epoch(take_over=True)
    return log


def segments(run: RunDirectory) -> list[Path]:
    """Of the stage `attribute`, in order."""
    return sorted((run.path / "commits/attribute").glob("*.jsonl"))


def test_a_record_says_what_was_done(run: RunDirectory) -> None:
    log = driver(run)
    assert log.commit("attribute", "s000", {**RECEIPT, "rows": np.int64(4)})
    told = {**RECEIPT, "stage": "attribute", "shard": "s000", "epoch": 1}
    versions, record = map(json.loads, segments(run)[0].read_text().splitlines())
    assert [len(line.pop("sha256")) for line in (versions, record)] == [64, 64]
    assert versions["versions"] == {"numpy": "2"}
    assert record == {**told, "versions": versions["as"]}
    whole = {**told, "versions": {"numpy": "2"}}
    assert list(CommitLog(run).records("attribute")) == [whole]
    assert CommitLog(run).record("attribute", "s000") == whole
    assert CommitLog(run).keys("attribute") == ["s000"]


def test_the_first_record_stays(run: RunDirectory) -> None:
    log = driver(run)
    assert log.commit("attribute", "s000", RECEIPT)
    assert not log.commit("attribute", "s000", {**RECEIPT, "crc": 8})
    assert log.record("attribute", "s000")["crc"] == 7


def test_a_receipt_is_whole(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match=r"receipt of a/s lacks crc, device"):
        driver(run).commit("a", "s", {k: RECEIPT[k] for k in RECEIPT if k not in ("crc", "device")})
    with pytest.raises(ValueError, match="Out of range float"):
        driver(run).commit("a", "s", {**RECEIPT, "loss": float("nan")})


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "a b", "x" * 201])
def test_names_are_file_names(run: RunDirectory, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a file name"):
        driver(run).commit("attribute", name, RECEIPT)
    with pytest.raises(ValueError, match="cannot be a file name"):
        driver(run).commit("bad", "s", RECEIPT)


def test_no_commit_without_an_epoch(run: RunDirectory) -> None:
    with pytest.raises(RuntimeError, match="claim_epoch"):
        CommitLog(run).commit("attribute", "s000", RECEIPT)


def test_the_older_of_two_drivers_is_fenced(run: RunDirectory) -> None:
    first = driver(run)
    first.commit("attribute", "s000", RECEIPT)
    second = driver(run)
    with pytest.raises(Fenced, match=r"another driver \(epoch 2\) .* \(epoch 1\) stops"):
        first.commit("attribute", "s001", RECEIPT)
    with pytest.raises(Fenced):
        first.quarantine("attribute", "s001", {"error": "x"})
    with pytest.raises(Fenced):
        first.uncommit("attribute", "s000", "x")
    with pytest.raises(Fenced):
        first.mend()
    assert second.commit("attribute", "s001", RECEIPT)
    assert CommitLog(run).keys("attribute") == second.keys("attribute") == ["s000", "s001"]
    assert CommitLog(run).quarantined("attribute") == {}


def _claim(path: Path, gate: Any, out: Any, take_over: bool) -> None:
    gate.wait()
    try:
        out.put(CommitLog(RunDirectory.open(path)).claim_epoch(take_over))
    except Busy as error:
        out.put(str(error))
    gate.wait()  # a driver that is dead keeps nobody from the next epoch


def claims(run: RunDirectory, take_over: bool) -> list[Any]:
    """What four processes get that claim an epoch at once."""
    gate, out = CHILD.Barrier(4), CHILD.Queue()
    given = (run.path, gate, out, take_over)
    children = [CHILD.Process(target=_claim, args=given) for _ in range(4)]
    for child in children:
        child.start()
    found = [out.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    return found


def test_of_drivers_that_start_at_once_one_gets_the_run(run: RunDirectory) -> None:
    found = claims(run, take_over=False)
    assert [x for x in found if isinstance(x, int)] == [1]
    assert sum("has a driver at work: process" in str(x) for x in found) == 3


def test_drivers_that_take_over_at_once_get_different_epochs(run: RunDirectory) -> None:
    assert sorted(claims(run, take_over=True)) == [1, 2, 3, 4]


def _put(folder: Path, gate: Any, out: Any, me: int) -> None:
    gate.wait()
    out.put((me, [put_if_absent(folder / f"{i}", b"%d" % me * 1000) for i in range(100)]))


def test_of_racing_writers_one_wins_each_file(tmp_path: Path) -> None:
    gate, out = CHILD.Barrier(3), CHILD.Queue()
    children = [CHILD.Process(target=_put, args=(tmp_path, gate, out, n)) for n in range(3)]
    for child in children:
        child.start()
    won = dict(out.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    for i in range(100):
        winners = [n for n in range(3) if won[n][i]]
        assert len(winners) == 1
        assert (tmp_path / str(i)).read_bytes() == b"%d" % winners[0] * 1000
    assert len(list(tmp_path.iterdir())) == 100


def test_quarantine_and_retry(run: RunDirectory) -> None:
    log = driver(run)
    log.quarantine("attribute", "s001", {"error": "ValueError: x", "attempts": 3})
    assert log.quarantined("attribute")["s001"]["error"] == "ValueError: x"
    assert log.keys("attribute") == []
    log.commit("attribute", "s001", RECEIPT)
    log.quarantine("attribute", "s002", {"error": "y"})
    assert list(CommitLog(run).quarantined("attribute")) == ["s002"]
    assert driver(run).quarantined("attribute") == {}, "the next driver tries again"
    assert CommitLog(run).quarantined("attribute") == {}


def digit(data: bytes) -> bytes:
    return data.replace(b'"crc":7', b'"crc":8')


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bit(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


HURTS: dict[str, Callable[[bytes], bytes]] = {
    "digit": digit,
    "half": half,
    "bit": bit,
    "empty": lambda data: b"",
    "another shape": lambda data: b"[3]",
    "a number": lambda data: b"3",
    "no text": lambda data: b"\xff\xfe",
    "brackets": lambda data: b"[" * 200_000,
    "of another shard": lambda data: seal({**RECEIPT, "stage": "attribute", "shard": "s001"}),
    "of another stage": lambda data: seal({**RECEIPT, "stage": "evaluate", "shard": "s000"}),
}


def write_shards(run: RunDirectory, log: CommitLog, *shards: int) -> None:
    create_array(run.attributions, "c/scores", (16, 5), (4, 5))
    for i in shards:
        values = np.random.default_rng(i).standard_normal((4, 5)).astype(np.float32)
        writes = [
            write_block(run, "attributions.zarr", "c/scores", 4 * i, values),
            write_file(run, f"fits/s{i}.json", to_json({"blocks": [i]})),
        ]
        receipt = make_receipt(writes, attempt=1, micro_batch=4, device="cpu", seconds=0.5)
        log.commit("attribute", f"s{i:03d}", receipt)


@pytest.mark.parametrize("damaged", ["attributions.zarr/c/scores/c/1/0", "fits/s1.json"])
def test_a_flipped_byte_is_found_and_the_shard_redone(run: RunDirectory, damaged: str) -> None:
    log = driver(run)
    write_shards(run, log, 0, 1, 2)
    before = (run.path / damaged).read_bytes()
    assert move_unsound(run, log, "attribute") == []
    flipped = bytearray(before)
    flipped[0] ^= 0x10
    (run.path / damaged).write_bytes(flipped)
    assert move_unsound(run, log, "attribute") == ["s001"]
    assert log.keys("attribute") == CommitLog(run).keys("attribute") == ["s000", "s002"]
    told = json.loads(segments(run)[-1].read_text())
    assert (told["shard"], told["uncommitted"]) == (
        "s001",
        "the data does not match the crc of the record",
    )
    write_shards(run, log, 1)
    assert log.keys("attribute") == CommitLog(run).keys("attribute") == ["s000", "s001", "s002"]
    assert move_unsound(run, log, "attribute") == []
    assert (run.path / damaged).read_bytes() == before


def test_a_shard_may_be_bad_twice(run: RunDirectory) -> None:
    log = driver(run)
    for crc in range(2):
        assert log.commit("attribute", "s000", {**RECEIPT, "crc": crc})
        log.uncommit("attribute", "s000", "test")
        assert CommitLog(run).keys("attribute") == log.keys("attribute") == []
    assert log.commit("attribute", "s000", {**RECEIPT, "crc": 2})
    assert CommitLog(run).record("attribute", "s000")["crc"] == 2


def test_a_record_of_nonsense_is_not_sound(run: RunDirectory) -> None:
    assert not is_sound(run, {"writes": [{"store": "attributions.zarr"}]})
    assert not is_sound(run, {"writes": 3})
    assert not is_sound(run, {"writes": [{"file": "fits/none.json", "crc": 0}]})


def test_readers_see_committed_rows_only(run: RunDirectory) -> None:
    log = driver(run)
    write_shards(run, log, 0, 2)
    nobody = np.ones((4, 5), np.float32)
    write_block(run, "attributions.zarr", "c/scores", 4, nobody)  # a zombie's chunk: no commit
    rows, values = scores(run, "c")
    assert rows.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert values.shape == (8, 5)
    assert not (values == 1).any()
    assert [start for start, _ in committed_rows(run, "attributions.zarr", "c/scores")] == [0, 8]
    assert commits(run)["shard"].tolist() == ["s000", "s002"]


def test_what_is_read_is_what_was_committed(run: RunDirectory) -> None:
    """Missing rows are NaN only where that is asked for; a deleted or exchanged chunk, never."""
    log = driver(run)
    write_shards(run, log, 0, 2)
    committed = Committed(run)
    with pytest.raises(StorageError, match=r"scores: \d+ of \d+ rows are not committed; resume"):
        committed.read("attributions.zarr", "c/scores")
    partly = committed.read("attributions.zarr", "c/scores", partly=True)
    assert np.isfinite(partly).all(1).nonzero()[0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    chunks = run.path / "attributions.zarr/c/scores/c"
    os.replace(chunks / "2/0", chunks / "0/0")  # sound by its own checksum
    with pytest.raises(StorageError, match=r"scores: rows 0\.\.4 are not what was committed"):
        committed.read("attributions.zarr", "c/scores", partly=True)
    (chunks / "0/0").unlink()
    with pytest.raises(StorageError, match="c/0/0: the chunk is missing; resume the run"):
        committed.read("attributions.zarr", "c/scores", partly=True)


def _write_for_ever(path: Path) -> None:
    run = RunDirectory.open(path)
    values = np.random.default_rng(1).standard_normal((4, 500_000)).astype(np.float32)
    while True:
        write_block(run, "attributions.zarr", "big/scores", 0, values)
        (run.path / "wrote").touch()


def test_a_killed_writer_leaves_nothing_that_counts(run: RunDirectory) -> None:
    """Killed at ten moments of an 8 MB write: the chunk is always whole, the strays are swept."""
    create_array(run.attributions, "big/scores", (4, 500_000), (4, 500_000))
    folder = run.path / "attributions.zarr/big/scores/c/0"
    strays = 0
    for i in range(10):
        (run.path / "wrote").unlink(missing_ok=True)
        child = CHILD.Process(target=_write_for_ever, args=(run.path,), daemon=True)
        child.start()
        while not (run.path / "wrote").exists():
            time.sleep(0.002)
        time.sleep(0.003 * i)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        names = [p.name for p in folder.iterdir()]
        strays = sum(name.endswith(".partial") for name in names)
        assert len((folder / "0").read_bytes()) == 4 * 500_000 * 4 + 4
    assert CommitLog(run).stages() == []
    assert remove_strays(run.path, time.time() + 60) >= strays
    assert [p.name for p in folder.iterdir()] == ["0"]


def test_strays_of_the_living_stay(tmp_path: Path) -> None:
    old, new, other = tmp_path / "0.aa.partial", tmp_path / ".tmp-1-b", tmp_path / "0"
    for path in (old, new, other):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    assert remove_strays(tmp_path, time.time() - 60) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-1-b", "0"]
