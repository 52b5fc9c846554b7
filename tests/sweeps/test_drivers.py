"""Drivers that meet on one directory, damaged records on the way from the command line, disks
without hard links, other versions: one line each, and the bytes of an undisturbed run."""

import errno
import json
import multiprocessing
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edgesweep.storage import CommitLog, Fenced, RunDirectory, epochs
from edgesweep.storage.atomic import TMP_PREFIX
from edgesweep.storage.commits.segments import decode, encode
from edgesweep.sweeps import launch as launch_module
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, reopen, start
from edgesweep.sweeps.progress import PlainProgress
from tests.sweeps.helpers import DATA, Faulty, committed, contents, run_tiny, tiny
from tests.sweeps.test_cli import command

CHILD = multiprocessing.get_context("spawn")
SMALL = tiny(
    sweep={"method": "eap", "task": "ioi"},
    evaluate={"threshold": 5, "ablation": "edge", "metric": "kl"},
)
N_RACES = 4


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """An undisturbed run, to compare with."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert run_tiny(out, SMALL).exit_code == 0
    return out


# --- two at once --------------------------------------------------------------------------------


def _race(root: Path, gate: Any, out: Any, me: int) -> None:
    """Runs of one driver of two: each begins at the same instant as the other's."""
    for i in range(N_RACES):
        take_over = i % 2 == 1
        gate.wait()
        try:
            ended = f"exit {run_tiny(root / str(i), SMALL, take_over=take_over).exit_code}"
        except Exception as error:
            ended = f"{type(error).__name__}: {error}"
        out.put((me, i, ended))


def test_two_drivers_that_begin_at_once(calm, tmp_path):
    """One does the run, the other is told in a line; neither dies otherwise, and never both."""
    gate, out = CHILD.Barrier(2), CHILD.Queue()
    children = [CHILD.Process(target=_race, args=(tmp_path, gate, out, me)) for me in range(2)]
    for child in children:
        child.start()
    ended = {(me, i): how for me, i, how in (out.get(timeout=200) for _ in range(2 * N_RACES))}
    for child in children:
        child.join()
    for i in range(N_RACES):
        first, second = sorted((ended[0, i], ended[1, i]), reverse=True)
        assert first == "exit 0", ended
        assert second.startswith(("Fenced: ", "Busy: ", "exit 0")), ended
        assert second.startswith("Fenced") <= (i % 2 == 1), "nobody took over"
        assert contents(tmp_path / str(i), *DATA) == contents(calm, *DATA)


def test_a_driver_without_commits_hears_of_the_next_by_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(epochs, "RENEW_S", 0.02)
    monkeypatch.setattr(CommitLog, "_write", lambda self, lines: None)

    def before(_):
        if len(worker.asked) == 2:
            CommitLog(RunDirectory.open(tmp_path / "run")).claim_epoch(take_over=True)
            heard.wait(60)

    heard, real = threading.Event(), epochs.Epochs._renewed
    monkeypatch.setattr(
        epochs.Epochs, "_renewed", lambda self, *a: real(self, *a) or heard.set() or False
    )
    worker = Faulty(before=before)
    with pytest.raises(Fenced, match="another driver"):
        run_tiny(tmp_path / "run", SMALL, worker)
    assert len(worker.asked) <= 3  # the flag is up right after it heard


def settled(out):
    """What is there, but for the lease, which its thread writes when it likes."""
    found = contents(out, ".")
    return {k: v for k, v in found.items() if "lease" not in k and TMP_PREFIX not in k}


def test_a_live_driver_is_said_and_exits_2(monkeypatch, capsys, tmp_path):
    out = tmp_path / "run"
    launch = start(parse_config(SMALL), out)
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(SMALL))  # JSON is YAML
    with CommitLog(launch.run).driving():
        before = settled(out)
        for arguments in (["resume", str(out)], ["run", str(config), "--out", str(out)]):
            code, _, error = command(monkeypatch, capsys, *arguments)
            assert (code, len(error.splitlines())) == (2, 1)
            assert f"error: {out} has a driver at work: process {os.getpid()} on" in error
        # One that looked before the other had begun finds it when it claims the run.
        assert cli.drive_and_tell(launch, Faulty()) == 2
        assert "has a driver at work" in capsys.readouterr().err
        assert settled(out) == before
        code, printed, _ = command(monkeypatch, capsys, "resume", str(out), "--take-over")
        assert code == 0
        assert str(out / "report.html") in printed


# --- damaged records ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "commits/attribute/*.jsonl",
        "epochs/0001.json",
        "epochs/0001.end.json",
        "config.yaml",
        "log/*.jsonl",
    ],
)
def test_a_damaged_record_is_said_and_healed(calm, tmp_path, monkeypatch, capsys, where):
    out = tmp_path / "run"
    shutil.copytree(calm, out)
    path = sorted(out.glob(where))[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\n")
    before = contents(out, ".")
    code, printed, _ = command(monkeypatch, capsys, "status", str(out))
    assert code == 0
    assert ("damaged records: 1; resume the run" in printed) == (where != "config.yaml")
    assert contents(out, ".") == before, "a reader changes nothing"
    assert drive(reopen(out), PlainProgress()).exit_code == 0
    assert capsys.readouterr().out.count(path.stem) >= 1, "the driver says what it mended"
    assert contents(out, *DATA, "config.yaml") == contents(calm, *DATA, "config.yaml")
    assert committed(out) == committed(calm)
    code, printed, _ = command(monkeypatch, capsys, "status", str(out))
    assert "damaged" not in printed


@pytest.mark.parametrize("act", ["status", "report", "resume"])
def test_a_damaged_plan_and_an_old_run_are_one_line(calm, tmp_path, monkeypatch, capsys, act):
    hurt, old = tmp_path / "hurt", tmp_path / "old"
    hurt.mkdir()
    shutil.copytree(Path(__file__).parents[1] / "storage" / "run_without_checksums", old)
    plan = (calm / "plan.json").read_bytes()
    (hurt / "plan.json").write_bytes(plan.replace(b'"seed": 0', b'"seed": 1', 1))
    assert (hurt / "plan.json").read_bytes() != plan
    for out, said in ((hurt, "plan.json is damaged"), (old, "was made by edgesweep 0.1.0")):
        before = contents(out, ".")
        code, _, error = command(monkeypatch, capsys, act, str(out))
        assert code in (1, 2)
        assert said in error
        assert len(error.splitlines()) == 1
        assert contents(out, ".") == before


def test_a_damaged_failure_is_tried_again(calm, tmp_path, capsys):
    out = tmp_path / "run"
    poison = committed(calm)["attribute"][0]
    assert run_tiny(out, SMALL, Faulty(poison=poison)).exit_code == 3
    (segment,) = [p for p in out.glob("commits/attribute/*") if b"gave_up" in p.read_bytes()]
    segment.write_bytes(segment.read_bytes().replace(b"gave_up", b"took_up"))
    assert drive(reopen(out), PlainProgress()).exit_code == 0
    told = f"commits/attribute/{segment.name} had 1 damaged lines; their shards are done again"
    assert told in capsys.readouterr().out
    assert contents(out, *DATA) == contents(calm, *DATA)


# --- the disk, and other versions ---------------------------------------------------------------


def no_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_disk_without_hard_links_will_do(calm, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    assert run_tiny(tmp_path / "run", SMALL).exit_code == 0
    assert contents(tmp_path / "run", *DATA) == contents(calm, *DATA)


def test_a_disk_without_links_and_renames_is_refused_before_work(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    launch = start(parse_config(SMALL), out)
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr("edgesweep.storage.atomic._rename_if_free", lambda source, target: False)
    before, worker = contents(out, "."), Faulty()
    assert cli.drive_and_tell(launch, worker) == 2
    error = capsys.readouterr().err
    assert "the disk has no hard links, nor a rename that replaces nothing; choose" in error
    assert len(error.splitlines()) == 1
    assert (worker.asked, contents(out, ".")) == ([], before)
    monkeypatch.setattr(sys, "argv", ["edgesweep", "run", "smoke", "--out", str(tmp_path / "b")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "no hard links" in capsys.readouterr().err


def test_other_versions_are_said(calm, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    shutil.copytree(calm, out)
    path = sorted(out.glob("commits/attribute/*.jsonl"))[0]
    records = [line for line in decode(path.read_bytes(), "attribute") if line is not None]
    records[0]["versions"] = {**records[0]["versions"], "torch": "2.12.0"}
    path.write_bytes(encode(records))
    monkeypatch.setattr(
        launch_module, "versions", lambda: {**RunDirectory.open(calm).plan["versions"], "ray": "3"}
    )
    assert drive(reopen(out), PlainProgress()).exit_code == 0
    warnings = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning: ")]
    torch, ray = (RunDirectory.open(calm).plan["versions"][name] for name in ("torch", "ray"))
    said = f"warning: attribute was done with torch 2.12.0; this is {torch}: bits may differ"
    assert said in warnings
    other = [x for x in warnings if f"were done with ray {ray}; this is 3: bits may" in x]
    assert len(other) == 1
    assert "planning, attribute" in other[0]


def test_a_run_s_own_versions_are_no_matter(calm, capsys):
    assert drive(reopen(calm), PlainProgress()).exit_code == 0
    assert "done with" not in capsys.readouterr().out
