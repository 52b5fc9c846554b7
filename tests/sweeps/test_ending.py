"""The end of a run: tables, page, manifest. Killed anywhere between them it is not done, and what
is not what was written is not shown."""

import shutil
from pathlib import Path

import pytest

from edgesweep.dashboards.report import write_report
from edgesweep.storage import CommitLog, Fenced, RunDirectory, StorageError
from edgesweep.storage.manifest import MANIFEST, read_manifest
from edgesweep.storage.stores import Place
from edgesweep.storage.tables import MEASURES, RESULTS, TABLES, read_table
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.command.watching import run_status
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, reopen, start
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.stages.base import Task
from tests.sweeps.helpers import Faulty, contents, flip_a_bit, run_tiny, tiny

FILES = tuple(table.file for table in TABLES)


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """A run with its page."""
    out = tmp_path_factory.mktemp("shown") / "run"
    assert cli.drive_and_tell(start(parse_config(tiny()), out)) == 0
    return out


@pytest.fixture
def run(shown, tmp_path) -> Path:
    """A copy of it, to be hurt."""
    return Path(shutil.copytree(shown, tmp_path / "run"))


def test_the_page_of_a_finished_run_says_so(run):
    """The page that the driver itself wrote, in its head and among its facts."""
    page = (run / "report.html").read_text()
    assert "</code>, done." in page
    assert "<dt>state</dt><dd>done</dd>" in page
    assert run_status(run)["state"] == "done"
    told = set(read_manifest(RunDirectory.open(run)))
    logs = {name for name in told if name.startswith("log/")}
    assert logs
    assert told - logs == {*FILES, "report.html", "config.yaml"}


def test_the_page_of_a_run_with_quarantined_shards_says_so(tmp_path):
    out = tmp_path / "run"
    launch = start(parse_config(tiny()), out)
    poison = launch.plan.stages["attribute"][0].key
    assert cli.drive_and_tell(launch, Faulty(poison=poison)) == 3
    assert "</code>, quarantined." in (out / "report.html").read_text()
    assert run_status(out)["state"] == "quarantined"


class Killed(BaseException):
    """What a SIGKILL looks like from within."""


def test_killed_between_any_two_files_it_is_not_done(shown, run, monkeypatch):
    """After the last commit, between tables, before and after the page."""
    whole, real = contents(shown, *FILES), Place.write
    for kills in (0, 2, *range(len(FILES), len(FILES) + 3)):
        for name in (*FILES, "report.html", MANIFEST):
            (run / name).unlink(missing_ok=True)
        left = iter(range(kills))

        def write(place, data, left=left):
            if place.name in {*FILES, "report.html", MANIFEST} and next(left, None) is None:
                raise Killed
            real(place, data)

        with monkeypatch.context() as patch:
            patch.setattr(Place, "write", write)
            with pytest.raises(Killed):
                cli.drive_and_tell(reopen(run))
        opened = RunDirectory.open(run)
        assert run_status(run)["state"] == "stopped"
        n_rows = {len(read_table(opened, table)) for table in (RESULTS, MEASURES)}
        assert n_rows == {0} or kills > len(FILES)
    assert drive(reopen(run), Silence()).exit_code == 0
    assert contents(run, *FILES) == whole
    assert run_status(run)["state"] == "done"


def test_before_a_commit_the_manifest_goes(run):
    """A killed resume leaves tables of what was committed before: they are not shown, but for the
    rows of cells that are as they were."""
    scores = sorted(run.glob("attributions.zarr/*/scores/c/0/0"))[0]
    flip_a_bit(scores)

    def kill(task: Task) -> None:
        raise Killed

    with pytest.raises(Killed):
        drive(reopen(run), Silence(), Faulty(before=kill))
    assert not (run / MANIFEST).exists()
    assert run_status(run)["state"] == "stopped"
    there = RunDirectory.open(run)
    hurt = scores.relative_to(run / "attributions.zarr").parts[0]
    told = set(read_table(there, RESULTS)["cell"])
    assert told == {cell["key"] for cell in there.plan["cells"]} - {hurt}


def test_a_flipped_bit_is_told_and_mended(shown, run, capsys):
    log = f"log/{min(path.name for path in (run / 'log').iterdir())}"
    names = (*FILES, "config.yaml", log, MANIFEST)
    for name in names:
        sound = (run / name).read_bytes()
        flip_a_bit(run / name)
        assert run_status(run)["state"] == "stopped"
        with pytest.raises(StorageError, match=rf"{name} is not as it was written.*resume"):
            write_report(run)
        (run / name).write_bytes(sound)
    for name in names[:-1]:
        flip_a_bit(run / name)
    assert cli.drive_and_tell(reopen(run), page=None) == 0
    said = capsys.readouterr().out
    assert all(f"{name} is not as it was written; it is mended" in said for name in FILES)
    assert "config.yaml was not what the plan holds; it is written again" in said
    assert f"{log} is not as it was written" in said
    assert contents(run, *FILES, "config.yaml") == contents(shown, *FILES, "config.yaml")


def test_report_writes_the_page_anew_and_elsewhere_touches_nothing(run, tmp_path):
    before = contents(run, *FILES, MANIFEST, "report.html")
    flip_a_bit(run / "report.html")
    assert run_status(run)["state"] == "stopped"
    hurt = contents(run, MANIFEST, "report.html")
    write_report(run, tmp_path / "elsewhere.html")
    assert contents(run, MANIFEST, "report.html") == hurt
    write_report(run)
    assert run_status(run)["state"] == "done"
    assert (run / "report.html").read_bytes() == (tmp_path / "elsewhere.html").read_bytes()
    assert contents(run, *FILES) == {k: v for k, v in before.items() if k in FILES}


def test_a_resumed_run_leaves_its_tables_alone(run):
    times = {name: (run / name).stat().st_mtime_ns for name in FILES}
    assert drive(reopen(run), Silence()).exit_code == 0
    assert {name: (run / name).stat().st_mtime_ns for name in FILES} == times


def test_a_fenced_driver_never_writes_over_newer_tables(run, monkeypatch):
    """It is taken over while it writes: the looks at the fence come before each file."""
    for name in (*FILES, MANIFEST):
        (run / name).unlink()
    real, written = Place.write, []

    def write(place, data):
        real(place, data)
        written.extend([place.name] * (place.name in FILES))
        if len(written) == 2 and place.name in FILES:
            CommitLog(RunDirectory.open(run)).claim_epoch(take_over=True)

    monkeypatch.setattr(Place, "write", write)
    with pytest.raises(Fenced):
        drive(reopen(run), Silence())
    assert len(written) == 2
    assert not (run / MANIFEST).exists()


def test_tables_do_not_depend_on_the_page(tmp_path):
    """A run without a page, and one whose page fails, have their tables."""
    out = tmp_path / "run"
    assert run_tiny(out).exit_code == 0
    assert run_status(out)["state"] == "done"
    assert len(read_table(RunDirectory.open(out), RESULTS))

    def fails(run: RunDirectory, state: str) -> bytes:
        raise ValueError("no page")

    with pytest.raises(ValueError, match="no page"):
        drive(reopen(out), Silence(), page=fails)
    assert len(read_table(RunDirectory.open(out), RESULTS))
