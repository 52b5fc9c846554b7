"""`edgesweep verify` reads all that is committed and un-commits nothing; a resume of a large run
reads some of it, and of a small one all."""

import shutil
from pathlib import Path

import pytest

from edgesweep.dashboards.report import write_report
from edgesweep.storage import CommitLog, RunDirectory, StorageError
from edgesweep.storage.layout import UNSOUND
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.command.addresses import finished
from edgesweep.sweeps.launch import drive, reopen
from edgesweep.sweeps.plan import estimates
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.soundness import finished as records
from edgesweep.sweeps.soundness import resume
from edgesweep.sweeps.soundness.noted import note
from tests.sweeps.helpers import DATA, Faulty, committed, contents, flip_a_bit, run_tiny

SCORES = "attributions.zarr/*/scores/c/0/*"


@pytest.fixture
def large(monkeypatch) -> None:
    """Every run is too large to be read each time it is resumed."""
    monkeypatch.setattr(estimates, "SMALL_SHARDS", 0)
    monkeypatch.setattr(resume, "LEAST", 0)
    monkeypatch.setattr(resume, "SHARE", 0.0)


@pytest.fixture
def run(tmp_path) -> Path:
    out = tmp_path / "run"
    assert run_tiny(out).exit_code == 0
    return out


def verified(capsys, *words: object) -> tuple[int, list[str]]:
    """The exit code of the command, and the lines that it prints of its own."""
    capsys.readouterr()
    code = 0
    try:
        cli.app(["verify", *map(str, words)], standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    lines = capsys.readouterr().out.splitlines()
    return code, [line for line in lines if "verification" not in line]


def hurt(run: Path, where: str) -> str:
    """Flips a bit of a chunk, and says whose shard it is."""
    chunk = sorted(f for f in run.glob(where) if f.is_file())[0]
    flip_a_bit(chunk)
    array = str(chunk.relative_to(run)).split("/c/")[0]
    log = CommitLog(RunDirectory.open(run))
    return next(
        f"{stage}/{record['shard']}"
        for stage in log.stages()
        for record in log.records(stage)
        for write in record["writes"]
        if f"{write['store']}/{write['array']}" == array and write["start"] == 0
    )


def redone(run: Path) -> list[str]:
    worker = Faulty()
    assert drive(reopen(run), Silence(), worker).exit_code == 0
    return worker.asked


def test_what_is_sound_is_said_in_one_line(run, capsys):
    before = contents(run, ".")
    n = sum(map(len, committed(run).values()))
    said = [f"all {n} committed shards are as they were committed"]
    assert verified(capsys, run) == (0, said)
    assert contents(run, ".") == before


def test_damage_is_named_and_resume_redoes_it(calm, run, capsys, large):
    """Of a large run that is done a resume reads nothing but what a verification has found."""
    shard = hurt(run, SCORES)
    assert redone(run) == []
    code, lines = verified(capsys, run)
    assert code == 3
    assert [line.split(": ")[:2] for line in lines[:-1]] == [["unsound", shard]]
    assert lines[-1].endswith(f"edgesweep resume {run}")
    assert redone(run) == [shard.split("/")[1]]
    assert contents(run, *DATA) == contents(calm, *DATA)
    assert not (run / UNSOUND).exists()
    assert verified(capsys, run)[0] == 0


def test_a_damaged_note_has_all_read(run, capsys, large):
    shard = hurt(run, SCORES)
    assert verified(capsys, run)[0] == 3
    flip_a_bit(run / UNSOUND)
    assert redone(run) == [shard.split("/")[1]]


def test_an_error_of_the_store_has_all_read(run, large):
    """What a driver fell over may be anywhere: the next reads everything."""
    shard = hurt(run, "evaluations.zarr/*/edge.counterfactual/values/c/0/*/*")
    (run / "manifest.json").unlink()
    with pytest.raises(StorageError, match="resume the run to redo"):
        drive(reopen(run), Silence())
    assert redone(run) == [shard.split("/")[1]]


def test_where_a_share_of_it_is_damaged_all_is_read(run, large, monkeypatch):
    monkeypatch.setattr(resume, "LEAST", 1)
    for chunk in run.glob("evaluations.zarr/*/*/values/c/**/*"):
        if chunk.is_file():
            flip_a_bit(chunk)
    (run / "manifest.json").unlink()
    assert sorted(redone(run)) == committed(run)["evaluate"]


HURTS = {
    "a segment": lambda run: flip_a_bit(next(run.glob("commits/reduce/*"))),
    "a segment is gone": lambda run: next(run.glob("commits/reduce/*")).unlink(),
    "a segment more": lambda run: shutil.copy(
        next(run.glob("commits/reduce/*")), run / "commits/reduce/000001-00000009.jsonl"
    ),
    "the log": lambda run: flip_a_bit(min(run.glob("log/*"))),
    "a table": lambda run: flip_a_bit(run / "results.parquet"),
    "the page": lambda run: (run / "report.html").unlink(),
    "the manifest": lambda run: flip_a_bit(run / "manifest.json"),
    "config.yaml": lambda run: flip_a_bit(run / "config.yaml"),
    "noted": lambda run: note(RunDirectory.open(run), {"reduce/x": "it is not sound"}),
}


def test_a_large_finished_run_is_known_by_its_records(run, capsys, monkeypatch):
    """Without a plan; and as soon as any of them is not what it was, it is not."""
    assert cli.drive_and_tell(reopen(run)) == 0  # with a page
    assert finished(run) is None, "a small one is read as a whole"
    monkeypatch.setattr(records, "SMALL_SHARDS", 0)
    before = contents(run, ".")
    capsys.readouterr()
    cli.app(["resume", str(run)], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[0].endswith("is finished")
    assert contents(run, ".") == before
    for name, hurt_it in HURTS.items():
        other = Path(shutil.copytree(run, run.parent / name))
        hurt_it(other)
        assert finished(other) is None, name
    with CommitLog(RunDirectory.open(run)).driving():
        assert finished(run) is None
    write_report(run)
    assert finished(run) is not None
    CommitLog(RunDirectory.open(run)).epochs.claim(take_over=True)
    assert finished(run) is None, "its driver is this process"


def test_there_must_be_a_run(tmp_path, capsys):
    with pytest.raises(cli.ConfigError, match="holds no run"):
        verified(capsys, tmp_path)
