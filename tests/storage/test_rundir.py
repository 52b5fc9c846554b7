"""Whose run a directory holds, how far it is, and what a bad disk does."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgesweep.storage import (
    CommitLog,
    OtherRunError,
    RunDirectory,
    StorageError,
    differences,
    status,
)
from edgesweep.storage.arrays import create_array, open_array, write_rows
from edgesweep.storage.atomic import put_if_absent, replace
from edgesweep.storage.errors import Fenced, storage_errors
from edgesweep.storage.manifest import remove_manifest, write_manifest
from tests.storage.conftest import CONFIG, PLAN, Disk
from tests.storage.test_commits import HURTS, RECEIPT, driver


def test_a_new_run(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs/toy", CONFIG, PLAN)
    assert run.run_id == PLAN["run_id"]
    assert not run.mend_config()
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == CONFIG
    assert RunDirectory.open(run.path).plan == run.plan == {**PLAN, "config": CONFIG}


def test_the_same_run_is_opened_and_its_files_stay(run: RunDirectory) -> None:
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    other = {**CONFIG, "execution": {"actors": 8}}
    assert RunDirectory.create(run.path, other, PLAN).config == CONFIG
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before


def test_another_run_is_refused_with_the_fields_that_differ(run: RunDirectory) -> None:
    identity = {"model": {"name": "tiny", "digest": "bb"}, "seeds": [1, 3], "steps": 5}
    plan = {**PLAN, "run_id": "toy-ba9876543210", "identity": identity}
    with pytest.raises(OtherRunError) as error:
        RunDirectory.create(run.path, CONFIG, plan)
    assert error.value.differences == (
        ("dtype", "(missing)", "float32"),
        ("model.digest", "bb", "aa"),
        ("seeds.1", 3, 2),
        ("steps", 5, "(missing)"),
    )
    assert "model.digest: 'bb' here, 'aa' there; " in str(error.value)
    assert "\n" not in str(error.value)
    assert pickle.loads(pickle.dumps(error.value)).differences == error.value.differences


def test_differences_of_equal_and_unequal_lists() -> None:
    assert list(differences({"a": [1, {"b": 2}]}, {"a": (1, {"b": 2})})) == []
    assert list(differences({"a": [1, 2]}, {"a": [1]})) == [("a", [1, 2], [1])]
    assert list(differences({"a": {"b": 1}}, {"a": 1})) == [("a", {"b": 1}, 1)]


@pytest.mark.parametrize("hurt", [None, b"", b"name: other"])
def test_config_yaml_is_a_copy_that_a_driver_mends(run: RunDirectory, hurt: bytes | None) -> None:
    path = run.path / "config.yaml"
    if hurt is not None:
        path.write_bytes(hurt)
    found = RunDirectory.open(run.path)
    assert found.config == CONFIG
    assert path.exists() == (hurt is not None), "a reader changes nothing"
    assert found.mend_config() == (hurt is not None)
    assert yaml.safe_load(path.read_text()) == CONFIG
    assert not found.mend_config()


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"holds no run: there is no plan\.json"):
        RunDirectory.open(tmp_path / "none")
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(
        StorageError, match=r"is not empty and holds no run \(there is 'letter.txt'"
    ):
        RunDirectory.create(tmp_path, CONFIG, PLAN)
    with pytest.raises(StorageError, match=r"letter\.txt is a file; name a folder"):
        RunDirectory.create(tmp_path / "letter.txt", CONFIG, PLAN)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("hurt", [*HURTS, "no checksum"])
def test_a_damaged_plan_is_one_line(run: RunDirectory, hurt: str) -> None:
    path = run.path / "plan.json"
    data = path.read_bytes()
    if hurt == "digit":
        path.write_bytes(data.replace(b'"seed": 1', b'"seed": 7'))
    elif hurt == "no checksum":
        path.write_bytes(data.replace(b"sha256", b"sha257"))
    elif not hurt.startswith("of another"):
        path.write_bytes(HURTS[hurt](data))
    else:
        path.write_bytes(b"{}")
    assert path.read_bytes() != data
    for act in (RunDirectory.open, lambda path: RunDirectory.create(path, CONFIG, PLAN)):
        with pytest.raises(StorageError, match=r"plan\.json is damaged") as error:
            act(run.path)
        assert "\n" not in str(error.value)


def test_a_run_of_before_is_named(tmp_path: Path) -> None:
    """Made by version 0.1.0 when records carried no checksums; its arrays and tables left out."""
    old = tmp_path / "old"
    shutil.copytree(Path(__file__).parent / "run_without_checksums", old)
    before = {p: p.read_bytes() for p in old.rglob("*") if p.is_file()}
    line = (
        r"old was made by edgesweep 0\.1\.0 \(schema 2\), .* run it again with: .*old/config.yaml"
    )
    for act in (RunDirectory.open, lambda path: RunDirectory.create(path, CONFIG, PLAN)):
        with pytest.raises(StorageError, match=line):
            act(old)
    assert {p: p.read_bytes() for p in old.rglob("*") if p.is_file()} == before


def test_a_run_of_another_schema_is_named(tmp_path: Path) -> None:
    """Its numbers lie elsewhere: what made it and what to do are said, and nothing is written."""
    plan = {**PLAN, "schema_version": 2, "versions": {"edgesweep": "0.0.9"}}
    old = RunDirectory.create(tmp_path / "old", CONFIG, plan).path
    before = {p: p.read_bytes() for p in old.rglob("*") if p.is_file()}
    line = r"old was made by edgesweep 0\.0\.9 \(schema 2\); .* run it again with: .*config.yaml"
    for act in (RunDirectory.open, lambda path: RunDirectory.create(path, CONFIG, PLAN)):
        with pytest.raises(StorageError, match=line) as error:
            act(old)
        assert "\n" not in str(error.value)
    assert {p: p.read_bytes() for p in old.rglob("*") if p.is_file()} == before


def log_segments(run: RunDirectory) -> list[Path]:
    return sorted((run.path / "log").iterdir())


def test_the_log_survives_a_torn_line(run: RunDirectory) -> None:
    assert run.read_log() == []
    run.log("begin", actors=2)
    run.log("end")
    with open(log_segments(run)[-1], "ab") as file:
        file.write(b'{"event": "to')
    assert [event["event"] for event in run.read_log()] == ["begin", "end"]
    assert run.damaged_log_lines() == 1


def test_a_damaged_line_of_the_log_is_counted_and_taken_out(run: RunDirectory) -> None:
    for name in "abc":
        run.log(name)
    path = log_segments(run)[1]
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"x"') + b"3\n")
    assert [event["event"] for event in run.read_log()] == ["a", "c"]
    assert status(run)["damaged"] == 2
    assert run.mend_log() == 2
    assert [event["event"] for event in run.read_log()] == ["a", "c"]
    assert status(run)["damaged"] == 0


def test_status_from_new_to_done(run: RunDirectory) -> None:
    assert status(run)["state"] == "stopped"
    log = driver(run)
    found = status(run)
    assert (found["run_id"], found["state"]) == (PLAN["run_id"], "running")
    assert found["shards"] == {"total": 6, "committed": 0, "quarantined": 0}
    for i in range(3):
        log.commit("attribute", f"s{i:03d}", RECEIPT)
    log.quarantine("attribute", "s003", {"error": "x"})
    log.commit("evaluate", "e0", RECEIPT)
    log.commit("evaluate", "e1", RECEIPT)
    assert status(run)["stages"] == {
        "attribute": {"total": 4, "committed": 3, "quarantined": 1},
        "evaluate": {"total": 2, "committed": 2, "quarantined": 0},
    }
    with CommitLog(run).driving(take_over=True) as end:
        end["stopped"] = True
    assert status(run)["state"] == "stopped"
    log = driver(run)
    log.quarantine("attribute", "s003", {"error": "x"})
    with log.epochs.leased(log.epochs.newest()) as end:
        end["stopped"] = False
    assert status(run)["state"] == "stopped"
    write_manifest(run, {})
    assert status(run)["state"] == "quarantined"
    log.commit("attribute", "s003", RECEIPT)
    assert status(run)["state"] == "stopped"
    write_manifest(run, {})
    assert status(run)["state"] == "done"
    remove_manifest(run.root)
    assert status(run)["state"] == "stopped"


def test_a_damaged_log_changes_no_state(run: RunDirectory) -> None:
    log = CommitLog(run)
    with log.driving(left_out={"evaluate": "no graph-tool"}) as end:
        for i in range(4):
            log.commit("attribute", f"s{i:03d}", RECEIPT)
        write_manifest(run, {})
        run.log("driver_started", left_out={})
        end["stopped"] = False
    assert status(run)["state"] == "done"
    assert status(run)["left_out"] == {"evaluate": "no graph-tool"}
    log_segments(run)[-1].write_bytes(b"{}\n")
    assert status(run)["state"] == "done"


BLOCK = np.random.default_rng(0).standard_normal((4, 250_000)).astype(np.float32)  # 4 MB


def everything(root: Path) -> dict[str, Callable[[], Any]]:
    """Every way in which a run directory is written."""
    run = RunDirectory.create(root, CONFIG, PLAN)
    create_array(run.attributions, "c/scores", BLOCK.shape, BLOCK.shape)
    array = open_array(run.attributions, "c/scores", "r+")
    log = driver(run)
    huge = {**RECEIPT, "note": "x" * 4_000_000}

    def create_many() -> None:
        for i in range(999):
            create_array(run.root / "b.zarr", f"{i}", (4,), (4,))

    return {
        "array": lambda: write_rows(array, 0, BLOCK),
        "commit": lambda: log.commit("attribute", "s000", huge),
        "quarantine": lambda: log.quarantine("attribute", "s001", huge),
        "log": lambda: run.log("x" * 4_000_000),
        "file": lambda: replace(run.path / "fits/a.json", b"x" * 4_000_000),
        "create": create_many,
    }


WAYS = ["array", "commit", "quarantine", "log", "file", "create"]


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_one_clear_line(disk: Disk, way: str) -> None:
    root = disk("3m") / "run"
    write = everything(root)[way]
    with pytest.raises(StorageError) as error:
        write()
    message = str(error.value)
    assert message.startswith(f"cannot write {root}")
    assert message.endswith("the disk is full; free space there, then resume the run")
    assert "\n" not in message
    assert error.value.stops_run
    assert CommitLog(RunDirectory.open(root)).keys("attribute") == []


@pytest.mark.parametrize("way", WAYS)
def test_a_read_only_folder_is_one_clear_line(disk: Disk, way: str) -> None:
    root = disk("30m") / "run"
    write = everything(root)[way]
    disk(root.parent, "ro")
    with pytest.raises(StorageError, match=r"read-only; choose another folder with --out$"):
        write()
    RunDirectory.create(root, CONFIG, PLAN)  # the same run may still be looked at
    with pytest.raises(StorageError, match=f"cannot write {root.parent}/b.*read-only"):
        RunDirectory.create(root.parent / "b", CONFIG, PLAN)


def test_a_limit_on_file_size_is_one_clear_line(tmp_path: Path) -> None:
    """Needs no mount: the kernel refuses at a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = everything(tmp_path / "run")["array"]
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"larger than is allowed here; raise the limit"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_permission_denied_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root is refused nothing, so the refusal is made."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match=r"cannot write .*x: permission denied; choose a folder"):
        put_if_absent(tmp_path / "x", b"")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_disk_error_keeps_its_name() -> None:
    line = "cannot read /x: Stale file handle; check that folder"
    with pytest.raises(StorageError, match=line), storage_errors("/x", "read"):
        raise OSError(116, "Stale file handle")


@pytest.mark.parametrize("kind", [StorageError, Fenced, OtherRunError])
def test_errors_survive_pickling(kind: type[StorageError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a line")))
    assert (type(error), str(error)) == (kind, "a line")


def test_status_tells_what_happened_to_nodes(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {}, {"run_id": "a", "identity": {}})
    assert status(run)["pool"] == {"shut_out": [], "lost": 0, "backups": 0}
    run.log("node_shut_out", node="77", host="gpu7", error="OSError: no such folder")
    for node in "ab":
        run.log("node_lost", node=node, host="spot")
    run.log("backup", work="reduce.eap")
    assert status(run)["pool"] == {
        "shut_out": [{"host": "gpu7", "error": "OSError: no such folder"}],
        "lost": 2,
        "backups": 1,
    }
