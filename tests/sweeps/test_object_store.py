"""A run in a bucket: the bytes of one on a disk, whatever its server does, and no credentials."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesweep.storage import (
    Busy,
    CommitLog,
    Fenced,
    RunDirectory,
    StorageError,
    status,
    stores,
)
from edgesweep.storage.arrays import crc_of, create_array, make_store
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.storage.stores import place
from edgesweep.storage.tables.parquet import from_parquet
from edgesweep.sweeps.actor.context import WorkerSettings
from edgesweep.sweeps.actor.worker import Task, make_worker
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config.load import load_config, parse_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence
from tests.storage import servers
from tests.storage.conftest import CONFIG, PLAN
from tests.storage.servers import KEY_ID, SECRET, Door
from tests.storage.test_commits import RECEIPT
from tests.sweeps.helpers import Faulty, run_tiny, tiny
from tests.sweeps.test_cli import command

SMALL = tiny(
    sweep={"method": "eap", "task": "ioi"},
    evaluate={"threshold": 5, "ablation": "edge", "metric": "kl"},
)
SPAWN = multiprocessing.get_context("spawn")
#: who drove when, and how; all else is the run's result
TELLS = ("log/", "epochs/", "commits/", "manifest.json", "lease.json", "report.html")


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with servers.s3() as made:
        yield made


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("calm") / "run"
    assert run_tiny(out, SMALL).exit_code == 0
    return results(out)


def results(where: Path | str) -> dict[str, bytes]:
    found = {info.key: place(where) / info.key for info in place(where).list()}
    return {key: at.read() for key, at in found.items() if not key.startswith(TELLS)}


def test_in_memory_it_is_the_same_run(calm: dict[str, bytes]) -> None:
    where = "memory://same/run"
    assert run_tiny(where, SMALL).exit_code == 0
    assert results(where) == calm
    worker = Faulty()
    assert run_tiny(where, SMALL, worker).exit_code == 0
    assert worker.asked == []
    log = CommitLog(RunDirectory.open(where))
    for stage, most in {"attribute": 4, "references": 1, "evaluate": 1}.items():
        assert all(len(record["writes"]) <= most for record in log.records(stage)), stage


@pytest.mark.slow
def test_a_bad_server_changes_no_byte(calm: dict[str, bytes], door: Door) -> None:
    """A write in four answered by 500, 503 or 409, or done and not answered."""
    draw = random.Random(1)
    kinds = [None] * 12 + [500, 503, 409, "drop"]
    door.harms = (draw.choice(kinds) for _ in itertools.count())
    where = f"s3://{servers.BUCKET}/bad"
    try:
        assert run_tiny(where, SMALL).exit_code == 0
    finally:
        door.harms = iter(())
    assert results(where) == calm


def test_commands_take_addresses_and_no_credentials_are_kept(
    door: Door,
    calm: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = f"s3://{servers.BUCKET}/told"
    assert cli.drive_and_tell(start(parse_config(SMALL), where)) == 0
    said = capsys.readouterr().out
    assert f"{where}/report.html" in said
    for arguments in (["status", where], ["resume", where], ["report", where]):
        code, printed, error = command(monkeypatch, capsys, *arguments)
        assert (code, error) == (0, "")
        said += printed
    assert ": done" in said
    code, printed, _ = command(monkeypatch, capsys, "pull", where, str(tmp_path / "run"))
    assert code == 0
    assert status(RunDirectory.open(tmp_path / "run"))["state"] == "done"
    pulled = results(tmp_path / "run")
    left = {key for key in calm if "/scores/" in key or "/partials/" in key}
    assert pulled == {key: data for key, data in calm.items() if key not in left}
    assert_no_credentials(where, said + printed)
    code, _, error = command(monkeypatch, capsys, "status", f"s3://{servers.BUCKET}/none")
    assert (code, len(error.splitlines())) == (2, 1)


def assert_no_credentials(where: str, said: str) -> None:
    """In nothing that a run keeps (plan, config, epochs, receipts, failures, log, arrays, tables as
    they are read, page), nor in what was said."""
    kept = {info.key: (place(where) / info.key).read() for info in place(where).list()}
    for part in ("plan.json", "config.yaml", "epochs/", "commits/", "log/", ".zarr/", ".html"):
        assert any(part in key for key in kept), part
    tables = [from_parquet(data) for key, data in kept.items() if key.endswith(".parquet")]
    text = b"".join(kept.values()) + "".join(table.to_csv() for table in tables).encode()
    for secret in (SECRET, KEY_ID):
        assert secret.encode() not in text
        assert secret not in said


def test_a_failure_on_a_bucket_keeps_no_credentials(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard is given up for what a server answered, which is in commits, log and page."""
    where = f"s3://{servers.BUCKET}/refused"

    def before(task: Task) -> None:
        if task.stage == "evaluate":
            try:
                (place("s3://no-such-bucket/run") / "x").write(b"")
            except StorageError as error:  # by itself it stops the run
                raise RuntimeError("no input") from error

    assert cli.drive_and_tell(start(parse_config(SMALL), where), Faulty(before=before)) == 3
    said = capsys.readouterr()
    log = CommitLog(RunDirectory.open(where))
    (failure, *_) = log.quarantined("evaluate").values()
    assert "cannot write s3://no-such-bucket/run/x" in failure["traceback"]
    assert_no_credentials(where, said.out + said.err)


def _die(where: str, n_shards: int) -> None:
    def before(_: object) -> None:
        if len(worker.asked) == n_shards:
            os.kill(os.getpid(), signal.SIGKILL)

    worker = Faulty(before=before)
    run_tiny(where, SMALL, worker)


@pytest.mark.slow
def test_a_driver_killed_on_a_bucket_is_resumed(calm: dict[str, bytes], door: Door) -> None:
    where = f"s3://{servers.BUCKET}/killed"
    for n_shards in (2, 4):
        arguments = (where, n_shards)
        child = SPAWN.Process(target=_die, args=arguments)
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    assert run_tiny(where, SMALL).exit_code == 0
    assert results(where) == calm


@dataclass(frozen=True)
class Dying:
    """Makes workers whose process is killed at its first try of some shards."""

    of: int = 3

    def __call__(self, settings: WorkerSettings) -> Any:
        worker = make_worker(settings)

        def work(task: Task, attempt: int) -> dict[str, Any]:
            if attempt == 1 and zlib.crc32(task.key.encode()) % self.of == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return worker(task, attempt)

        return work


def _run_with_actors_that_die(where: str) -> None:
    raw = {**SMALL, "execution": {**SMALL["execution"], "executor": "ray", "actors": 2}}
    sys.exit(run_tiny(where, raw, Dying()).exit_code)


@pytest.mark.proof
def test_actors_killed_on_a_bucket_change_no_byte(calm: dict[str, bytes], door: Door) -> None:
    """In a process of its own: actors have the environment in which its Ray began."""
    where = f"s3://{servers.BUCKET}/actors"
    child = SPAWN.Process(target=_run_with_actors_that_die, args=(where,))
    child.start()
    child.join()
    assert child.exitcode == 0
    told = {key: data for key, data in calm.items() if key not in ("plan.json", "config.yaml")}
    assert {key: data for key, data in results(where).items() if key in told} == told
    log = CommitLog(RunDirectory.open(where))
    assert any(record["attempt"] > 1 for stage in log.stages() for record in log.records(stage))


@pytest.mark.slow
def test_a_driver_that_is_taken_over_on_a_bucket_stops(calm: dict[str, bytes], door: Door) -> None:
    """Another drives the run to its end while the first is at its second shard."""
    where = f"s3://{servers.BUCKET}/taken"

    def before(_: object) -> None:
        if len(worker.asked) == 2:
            with pytest.raises(Busy, match="has a driver at work"):
                run_tiny(where, SMALL)
            assert run_tiny(where, SMALL, take_over=True).exit_code == 0

    worker = Faulty(before=before)
    with pytest.raises(Fenced, match=r"another driver .* has taken over this run"):
        run_tiny(where, SMALL, worker)
    assert results(where) == calm
    assert run_tiny(where, SMALL).exit_code == 0
    assert results(where) == calm


# --- requests ------------------------------------------------------------------------------------


def test_a_block_is_one_request(door: Door) -> None:
    run = RunDirectory.create(f"s3://{servers.BUCKET}/blocks", CONFIG, PLAN)
    make_store(run.evaluations)
    values = np.zeros((4, 3), np.float32)

    def asked(act: Callable[[], object]) -> dict[str, int]:
        door.seen.clear()
        act()
        return dict(door.seen)

    assert asked(lambda: create_array(run.evaluations, "x", (8, 3), (4, 3))) == {"PUT": 1}
    assert asked(lambda: write_block(run, "evaluations.zarr", "x", 0, values)) == {
        "GET": 1,  # of the metadata, once a worker
        "PUT": 1,
    }
    assert asked(lambda: write_block(run, "evaluations.zarr", "x", 4, values)) == {"PUT": 1}
    write = {"store": "evaluations.zarr", "array": "x", "start": 4, "rows": 4}
    assert asked(lambda: read_block(run, {**write, "crc": crc_of(values)})) == {"GET": 1}


def test_commits_do_not_wait_for_the_server(door: Door) -> None:
    """No write gets on before all is committed: a hundred lines are one."""
    run = RunDirectory.create(f"s3://{servers.BUCKET}/slow", CONFIG, PLAN)
    log, n = CommitLog(run), 1500
    with log.driving():
        door.seen.clear()
        door.is_open.clear()
        try:
            for i in range(n):
                log.commit("attribute", f"s{i:04d}", RECEIPT)
        finally:
            door.is_open.set()
        log.flush()
        assert door.seen["PUT"] <= n / 100 + 4
    assert len(CommitLog(run).index("attribute")) == n


def test_a_finished_run_is_resumed_by_few_requests(
    door: Door, calm: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large run nothing is read but what says that it is finished."""
    where = f"s3://{servers.BUCKET}/finished"
    assert run_tiny(where, SMALL).exit_code == 0
    monkeypatch.setattr("edgesweep.sweeps.launch.is_small", lambda plan: False)
    stores._objects.cache_clear()  # a process that remembers nothing
    door.seen.clear()
    assert run_tiny(where, SMALL).exit_code == 0
    assert sum(door.seen.values()) <= 60
    assert results(where) == calm


def test_a_finished_run_with_many_segments_too(
    door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commits are listed and not read."""
    where = f"s3://{servers.BUCKET}/segments"
    monkeypatch.setattr("edgesweep.storage.commits.log.MOST", 1)
    assert cli.drive_and_tell(start(parse_config(SMALL), where)) == 0
    log = CommitLog(RunDirectory.open(where))
    with log.driving():  # as a stage that this plan does not have
        for i in range(70):
            log.commit("attribute", f"s{i:03d}", RECEIPT)
    assert cli.drive_and_tell(start(parse_config(SMALL), where)) == 0
    monkeypatch.setattr("edgesweep.sweeps.soundness.finished.SMALL_SHARDS", 0)
    stores._objects.cache_clear()
    door.seen.clear()
    code, said, _ = command(monkeypatch, capsys, "resume", where)
    assert (code, "is finished" in said) == (0, True)
    assert sum(door.seen.values()) <= 30


@pytest.mark.proof
def test_smoke_is_the_same_on_a_bucket_by_so_many_requests(door: Door, tmp_path: Path) -> None:
    config = load_config("smoke", ["execution.executor=serial"])
    where = f"s3://{servers.BUCKET}/smoke"
    for out in (where, tmp_path / "run"):
        door.seen.clear()
        assert drive(start(config, out), Silence(), page=cli.make_page).exit_code == 0
        if out == where:
            assert sum(door.seen.values()) <= 1500
    assert results(where) == results(tmp_path / "run")
