"""Who drives a run: asked of the process on its own machine, of its lease from another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgesweep.storage import Busy, CommitLog, Fenced, RunDirectory, StorageError, epochs, status
from edgesweep.storage.epochs import LEASE_S, process_began, read_lease
from edgesweep.storage.records import read_record, seal
from edgesweep.storage.stores import Place
from tests.storage.conftest import CONFIG, PLAN
from tests.storage.test_commits import HURTS, RECEIPT

LEASE = "lease.json"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """From now on, this process looks at runs from another machine."""
    monkeypatch.setattr(epochs.socket, "gethostname", lambda: "elsewhere")
    return monkeypatch


def rewrite(where: Place, **changes: object) -> None:
    """A sound record that says something else."""
    where.write(seal({**read_record(where), **changes}))


def kill_a_driver(run: RunDirectory) -> None:
    """A driver that begins, says so and is killed."""
    code = (
        "import os, sys; from edgesweep.storage import CommitLog, RunDirectory\n"
        "with CommitLog(RunDirectory.open(sys.argv[1])).driving(): os.kill(os.getpid(), 9)"
    )
    python = [sys.executable, "-c", code, str(run.path)]
    assert subprocess.run(python, check=False, cwd=Path(__file__).parents[2]).returncode == -9


def test_a_driver_at_work_is_named_and_not_written_over(run: RunDirectory) -> None:
    with CommitLog(run).driving():
        assert status(run)["state"] == "running"
        wait_for(run.path / LEASE)
        before = sorted(p.name for p in run.path.rglob("*"))
        line = rf"process {os.getpid()} on \S+ since \d{{4}}-.* wait for it, .* --take-over$"
        with pytest.raises(Busy, match=line):
            CommitLog(run).claim_epoch()
        assert sorted(p.name for p in run.path.rglob("*")) == before
        assert CommitLog(run).claim_epoch(take_over=True) == 2


def test_a_driver_that_ended_is_not_alive_though_its_process_is(run: RunDirectory) -> None:
    with CommitLog(run).driving():
        pass
    assert status(run)["state"] == "stopped"
    assert not (run.path / LEASE).exists()
    assert CommitLog(run).claim_epoch() == 2


def test_a_driver_that_failed_has_ended(run: RunDirectory) -> None:
    with pytest.raises(KeyboardInterrupt), CommitLog(run).driving():
        raise KeyboardInterrupt
    assert status(run)["state"] == "stopped"
    assert "stopped" not in (CommitLog(run).epochs.ended(1) or {})


def test_a_killed_driver_is_dead_at_once_here(run: RunDirectory) -> None:
    kill_a_driver(run)
    assert status(run)["state"] == "stopped"
    assert CommitLog(run).claim_epoch() == 2


def test_a_process_with_the_same_number_is_another(run: RunDirectory) -> None:
    log = CommitLog(run)
    log.claim_epoch()
    began = process_began(os.getpid())
    assert began is not None
    rewrite(log.epochs.path(1), process_began=began - 1)
    assert status(run)["state"] == "stopped"


def test_a_driver_elsewhere_lives_while_its_lease_is_young(
    run: RunDirectory, elsewhere: pytest.MonkeyPatch
) -> None:
    elsewhere.undo()
    with CommitLog(run).driving():
        wait_for(run.path / LEASE)
        rewrite(run.root / "epochs/0001.json", time=1.0)
        elsewhere.setattr(epochs.socket, "gethostname", lambda: "elsewhere")
        assert status(run)["state"] == "running"
        with pytest.raises(Busy):
            CommitLog(run).claim_epoch()
        rewrite(run.root / LEASE, time=time.time() - LEASE_S - 1)
        assert status(run)["state"] == "stopped"
    assert status(run)["state"] == "stopped"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_lease_is_renewed(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "RENEW_S", 0.05)
    with CommitLog(run).driving():
        wait_for(run.path / LEASE)
        first = read_record(run.root / LEASE)["time"]
        deadline = time.monotonic() + 60
        while read_record(run.root / LEASE)["time"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("where", ["file://{}/run", "memory://lost/{}"])
def test_a_driver_hears_with_its_next_lease_that_it_was_taken_over(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits nothing, and so looks at no epoch."""
    monkeypatch.setattr(epochs, "RENEW_S", 0.05)
    run = RunDirectory.create(where.format(tmp_path), CONFIG, PLAN)
    log, deadline = CommitLog(run), time.monotonic() + 60
    with log.driving():
        log.check_lease()
        assert CommitLog(run).claim_epoch(take_over=True) == 2
        while not log.epochs.lost:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(Fenced, match="another driver"):
            log.check_lease()


def test_a_lease_is_not_written_over_a_newer_one(run: RunDirectory) -> None:
    """Though its driver began after the older one had looked."""
    older, newer = CommitLog(run).epochs, CommitLog(run).epochs
    with older.leased(older.claim()), newer.leased(newer.claim(take_over=True)):
        looks = iter((1, 2))
        older.newest = lambda: next(looks, 2)  # type: ignore[method-assign]
        assert not older._renewed(1, dict)
        assert read_lease(run.root)["epoch"] == 2


def test_a_lease_that_was_taken_away_is_written_again(run: RunDirectory) -> None:
    ours = CommitLog(run).epochs
    with ours.leased(ours.claim()):
        (run.root / LEASE).delete()
        assert ours._renewed(1, dict)
        assert ours._renewed(1, dict)
        assert read_lease(run.root)["epoch"] == 1


def test_a_lease_tells_the_run_and_how_far_it_is(run: RunDirectory) -> None:
    """A worker that was told the nonce knows the driver's folder from another of that name."""
    log = CommitLog(run)
    log.claim_epoch()
    log.commit("attribute", "s000", RECEIPT)
    with CommitLog(run).driving(take_over=True):
        lease = read_lease(run.root)
    assert (lease["nonce"], lease["committed"]) == (run.nonce, {"attribute": 1})
    assert RunDirectory.open(run.path).nonce != run.nonce
    with pytest.raises(StorageError, match=r"lease\.json"):
        read_lease(run.root)


def test_a_driver_that_was_taken_over_leaves_the_newer_one_s_lease(run: RunDirectory) -> None:
    with CommitLog(run).driving():
        wait_for(run.path / LEASE)
        with CommitLog(run).driving(take_over=True):
            rewrite(run.root / LEASE, epoch=2)
            older = CommitLog(run)
            with older.epochs.leased(1):
                pass
            assert read_record(run.root / LEASE)["epoch"] == 2
            assert status(run)["state"] == "running"


def test_without_a_lease_a_driver_elsewhere_is_believed_as_long(
    run: RunDirectory, elsewhere: pytest.MonkeyPatch
) -> None:
    """Killed before its first lease, or the lease deleted; another's lease says nothing of it."""
    elsewhere.undo()
    kill_a_driver(run)
    elsewhere.setattr(epochs.socket, "gethostname", lambda: "elsewhere")
    (run.path / LEASE).unlink(missing_ok=True)
    assert status(run)["state"] == "running"
    rewrite(run.root / "epochs/0001.json", time=time.time() - LEASE_S - 1)
    assert status(run)["state"] == "stopped"
    (run.root / LEASE).write(seal({"epoch": 7, "time": time.time()}))
    assert status(run)["state"] == "stopped"


@pytest.mark.parametrize("hurt", HURTS)
def test_a_damaged_lease_has_the_time_of_its_file(
    run: RunDirectory, elsewhere: pytest.MonkeyPatch, hurt: str
) -> None:
    elsewhere.undo()
    kill_a_driver(run)
    elsewhere.setattr(epochs.socket, "gethostname", lambda: "elsewhere")
    rewrite(run.root / "epochs/0001.json", time=1.0)
    lease = run.path / LEASE
    lease.write_bytes(seal({"epoch": 1, "crc": 7, "time": time.time()}))
    lease.write_bytes(b"x" if hurt.startswith("of another") else HURTS[hurt](lease.read_bytes()))
    assert (status(run)["state"], status(run)["damaged"]) == ("running", 1)
    os.utime(lease, (1, 1))
    assert status(run)["state"] == "stopped"


@pytest.mark.parametrize("kind", ["", ".end"])
@pytest.mark.parametrize("hurt", HURTS)
def test_a_damaged_epoch_keeps_its_number(run: RunDirectory, hurt: str, kind: str) -> None:
    log = CommitLog(run)
    with log.driving(crc=7) as end:
        end.update(stopped=False, crc=7)
    place = log.epochs.path(1, kind)
    path = Path(str(place))
    path.write_bytes(b"x" if hurt.startswith("of another") else HURTS[hurt](path.read_bytes()))
    assert (status(run)["state"], status(run)["damaged"]) == ("stopped", 1)
    assert log.claim_epoch() == 2
    assert log.epochs.move_damaged() == [place]
    assert status(run)["damaged"] == 0
    assert (run.path / "epochs/bad" / path.name).exists()


def test_who_drives_is_unknown_where_the_record_is_damaged(run: RunDirectory) -> None:
    log = CommitLog(run)
    log.claim_epoch()
    log.epochs.path(1).write(b"")
    assert status(run)["state"] == "stopped"
    assert CommitLog(run).claim_epoch() == 2


def test_other_files_among_the_epochs_are_let_be(run: RunDirectory) -> None:
    log = CommitLog(run)
    with log.driving():
        pass
    for name in ("x.json", "0001.json~", "-002.json", "0003.end.json.bak"):
        (run.path / "epochs" / name).write_bytes(b"x")
    assert log.epochs.newest() == 1
    assert status(run)["damaged"] == 0
