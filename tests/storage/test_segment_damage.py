"""A damaged line of the commit log is one shard's, is told, and taken out by the next driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesweep.storage import CommitLog, RunDirectory, StorageError, status
from tests.storage.test_commits import HURTS, RECEIPT, driver, segments


def commit_three(run: RunDirectory) -> Path:
    """In one segment: a line of versions, then three records."""
    log = CommitLog(run, versions={"numpy": "2"})
    with log.driving(take_over=True):
        for shard in ("s000", "s001", "s002"):
            log.commit("attribute", shard, RECEIPT)
    (segment,) = segments(run)
    return segment


def hurt_line(segment: Path, number: int, hurt: str) -> bytes:
    """The segment's bytes with one line hurt."""
    lines = segment.read_bytes().split(b"\n")
    lines[number] = HURTS[hurt](lines[number]).rstrip(b"\n")
    assert lines != segment.read_bytes().split(b"\n")
    segment.write_bytes(b"\n".join(lines))
    return segment.read_bytes()


@pytest.mark.parametrize("hurt", HURTS)
def test_a_damaged_line_is_one_shard_s(run: RunDirectory, hurt: str) -> None:
    segment = commit_three(run)
    before, hurt_data = segment.read_bytes(), hurt_line(segment, 3, hurt)
    n_damaged = hurt != "of another shard"  # a sound line of a shard that is committed already
    assert CommitLog(run).keys("attribute") == ["s000", "s001"]
    found = status(run)
    assert (found["damaged"], found["shards"]["committed"]) == (n_damaged, 2)
    with pytest.raises(StorageError, match=r"attribute/s002 is not committed; resume the run"):
        CommitLog(run).record("attribute", "s002")
    assert segment.read_bytes() == hurt_data, "a reader changes nothing"
    log = driver(run)
    assert log.mend() == ({f"commits/attribute/{segment.name}": 1} if n_damaged else {})
    if n_damaged:
        kept = run.path / "commits/bad/attribute" / f"{segment.name}.1"
        assert kept.read_bytes() == hurt_data
        assert set(segment.read_bytes().split(b"\n")) < set(before.split(b"\n"))
    assert log.stages() == ["attribute"]
    assert log.commit("attribute", "s002", RECEIPT)
    assert CommitLog(run).keys("attribute") == ["s000", "s001", "s002"]
    assert status(run)["damaged"] == 0


def test_where_the_line_of_versions_is_damaged_they_are_not_known(run: RunDirectory) -> None:
    segment = commit_three(run)
    hurt_line(segment, 0, "bit")
    assert [r["versions"] for r in CommitLog(run).records("attribute")] == [{}, {}, {}]
    assert status(run)["damaged"] == 1


@pytest.mark.parametrize("keep", [0, 1, 200, -1])
def test_a_torn_segment_counts_as_far_as_its_lines_are_whole(run: RunDirectory, keep: int) -> None:
    segment = commit_three(run)
    data = segment.read_bytes()
    segment.write_bytes(data[:keep])
    n = max(0, data[:keep].count(b"\n") - 1)
    assert CommitLog(run).keys("attribute") == ["s000", "s001", "s002"][:n]
    assert status(run)["damaged"] == 1
    log = driver(run)
    assert sum(log.mend().values()) == 1
    assert segment.exists() == (n > 0 or b"\n" in data[:keep])
    assert status(run)["damaged"] == 0


@pytest.mark.parametrize("hurt", [h for h in HURTS if h != "of another shard"])
def test_a_damaged_line_of_a_failure_is_told_and_the_shard_tried_again(
    run: RunDirectory, hurt: str
) -> None:
    log = driver(run)
    log.quarantine("attribute", "s000", {"error": "ValueError: x", "crc": 7})
    segment = segments(run)[0]
    segment.write_bytes(HURTS[hurt](segment.read_bytes()))
    found = status(run)
    assert (found["damaged"], found["shards"]["quarantined"]) == (1, 0)
    assert sum(driver(run).mend().values()) == 1
    assert status(run)["damaged"] == 0


def test_files_of_others_among_the_segments_are_let_be(run: RunDirectory) -> None:
    commit_three(run)
    for name in ("attribute/a b.jsonl", "attribute/.x.jsonl", "attribute/000009-00000000.jsonl~"):
        (run.path / "commits" / name).write_bytes(b"x")
    (run.path / "commits/a b").mkdir()
    (run.path / "commits/a b/000001-00000000.jsonl").write_bytes(b"x")
    log = CommitLog(run)
    assert (log.stages(), log.keys("attribute")) == (["attribute"], ["s000", "s001", "s002"])
    assert status(run)["damaged"] == 0
