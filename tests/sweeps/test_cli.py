"""The command as a stranger meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import RESULTS, read_table
from edgesweep.sweeps.command import cli


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code and what was printed, in this process."""
    monkeypatch.setattr(sys, "argv", ["edgesweep", *arguments])
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--foo"], "No such option: --foo"),
        (["run"], "Missing argument 'CONFIG'."),
        (["list", "colours"], "'models', 'tasks', 'methods', 'presets'"),
        (["bogus"], "No such command 'bogus'."),
        (["resume", "x", "--set", "sweep.steps=3"], "a run's config is fixed"),
        (["resume", "x", "--set", "execution=5"], "5 is not a mapping"),
        (
            ["run", "smoke", "--set", "execution.num_gpus=77"],
            "execution.num_gpus: 77 for each actor, and this machine has ",
        ),
        (
            ["run", "smoke", "--set", "execution.gpus_per_actor=64"],
            "execution.gpus_per_actor: 64 for each actor, and this machine has ",
        ),
        (
            ["run", "smoke", "--set", "execution.memory_gb=1e5"],
            "execution.memory_gb: 100000 for each actor, and this machine has ",
        ),
        (
            ["run", "smoke", "--set", "execution.work_timeout_s=soon"],
            "execution.work_timeout_s: 'soon' is no time; allowed: auto, none, or seconds",
        ),
        (
            ["run", "smoke", "--set", "execution.address=the-cluster"],
            "execution.address: 'the-cluster' is no address; allowed: auto, or host:port",
        ),
        (
            ["run", "smoke", "--set", "execution.address=10.0.0.1:6379", "--out", "/dev/shm/run"],
            "/dev/shm/run lies in this machine's memory (tmpfs); all nodes must see the run",
        ),
        (
            [
                *("run", "smoke", "--set", "execution.address=10.0.0.1:6379"),
                *("--out", "/tmp/ray/x/working_dir_files/_ray_pkg_1/runs/a"),
            ],
            "lies in the job's own copy of its working directory; all nodes must see the run",
        ),
        (
            ["run", "smoke", "--set", "execution.start_timeout_s=auto"],
            "execution.start_timeout_s: 'auto' is no time; allowed: none, or seconds, more than 0",
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, error = command(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help(monkeypatch, capsys):
    for arguments in ([], ["--help"], ["run", "--help"]):
        code, out, _ = command(monkeypatch, capsys, *arguments)
        assert code == (0 if arguments else 2)
        assert "Usage" in out


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("models", "smollm2-135m"),
        ("tasks", "clean: 'When Mary and John"),
        ("methods", "Syed et al. 2023"),
        ("presets", "smollm2-mixture"),
    ],
)
def test_lists(kind, text, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "list", kind)
    assert code == 0
    assert text in out


def test_doctor_says_what_is_missing(monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "doctor")
    assert code == 0
    for word in ("python", "torch", "gpu", "ray", "graph-tool", "hub"):
        assert word in out


def test_a_dry_run_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(monkeypatch, capsys, "run", "smoke", "--dry-run")
    assert code == 0
    for word in ("cells: 2", "shards:", "passes:", "disk:", "memory:"):
        assert word in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.proof
def test_the_smoke_preset_through_ray(tmp_path):
    """As CI runs it: a process of its own, the page at the end."""
    done = subprocess.run(
        [sys.executable, "-m", "edgesweep.sweeps.command.cli", "run", "smoke"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/smoke/report.html"
    run = tmp_path / "runs" / "smoke"
    assert "<html" in (run / "report.html").read_text()
    assert len(read_table(RunDirectory.open(run), RESULTS)) > 100


@pytest.mark.proof
def test_resume_takes_more_actors(monkeypatch, capsys, tmp_path):
    out = tmp_path / "run"
    serial = ["--set", "execution.executor=serial"]
    code, _, error = command(monkeypatch, capsys, "run", "smoke", "--out", str(out), *serial)
    assert code == 0, error
    changed = ["--set", "execution.actors=3", "--set", "execution.executor=serial"]
    code, printed, _ = command(monkeypatch, capsys, "resume", str(out), *changed)
    assert code == 0
    assert str(out / "report.html") in printed
    code, printed, _ = command(
        monkeypatch, capsys, "report", str(out), "-o", str(tmp_path / "r.html")
    )
    assert (code, (tmp_path / "r.html").exists()) == (0, True)
