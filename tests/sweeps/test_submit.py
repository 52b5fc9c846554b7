"""A run as a job of a cluster: what is sent, what is refused before, and a real one resumed."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgesweep.engine.runtime.outside import Job
from edgesweep.sweeps.command import submit as submitting
from edgesweep.sweeps.command.submit import check_cluster, files, pack
from edgesweep.sweeps.config.fields import ConfigError
from tests.sweeps.test_cli import command

NOWHERE = "http://127.0.0.1:9"
CONFIG = """\
name: sent
sweep: {model: tiny-random, task: ./mine.jsonl}
evaluate: {threshold: [5]}
data: {n_build: 4, n_eval: 4}
blocks: {fit: none}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "work"
    found.mkdir()
    (found / "c.yaml").write_text(CONFIG)
    lines = [
        f'{{"clean": [{i}, 6], "patch": [7, 6], "good": 8, "bad": 9}}\n' for i in range(10, 30)
    ]
    (found / "mine.jsonl").write_text("".join(lines))
    monkeypatch.chdir(found)
    return found


REFUSED = {
    "no address": (["--cluster", "head:8265", "--out", "/r"], "--cluster: 'head:8265' is no addr"),
    "a password": (["--cluster", "http://me:pw@h:1", "--out", "/r"], "Ray takes RAY_AUTH_TOKEN"),
    "no path": (["--cluster", NOWHERE, "--out", "runs/r"], "--out: 'runs/r' would lie in the job"),
    "no scheme": (["--cluster", NOWHERE, "--out", "s4://b/r"], "--out: s4://… is no address"),
    "memory": (["--cluster", NOWHERE, "--out", "memory://b"], "memory:// ends with the job"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_before_anything_is_sent(
    what: str, folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    arguments, message = REFUSED[what]
    code, _, error = command(monkeypatch, capsys, "submit", "c.yaml", *arguments)
    assert (code, len(error.splitlines())) == (2, 1)
    assert message in error
    assert "pw" not in error


def test_a_run_directory_that_would_be_sent(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    where = ["--cluster", NOWHERE, "--out", str(folder / "runs/r")]
    code, _, error = command(monkeypatch, capsys, "submit", "c.yaml", *where)
    assert (code, "which is sent to the cluster; give a path outside it" in error) == (2, True)


def test_a_config_that_is_not_sent(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    (folder.parent / "other.yaml").write_text(CONFIG)
    where = ["--cluster", NOWHERE, "--out", "/r"]
    code, _, error = command(monkeypatch, capsys, "submit", "../other.yaml", *where)
    assert (code, "../other.yaml is not sent to the cluster" in error) == (2, True)


def test_a_cluster_that_does_not_answer(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    where = ["--cluster", NOWHERE, "--out", "/r"]
    code, _, error = command(monkeypatch, capsys, "submit", "c.yaml", *where)
    assert (code, len(error.splitlines())) == (1, 1)
    assert error.startswith(f"error: {NOWHERE} takes no jobs: ")


def test_plain_text_beyond_this_machine_is_said() -> None:
    said: list[str] = []
    for quiet in (
        "http://127.0.0.1:8265",
        "http://localhost:8265",
        "https://head",
        "http://[::1]:8",
    ):
        check_cluster(quiet, said.append)
    assert said == []
    check_cluster("http://10.0.0.5:8265", said.append)
    assert said[0].startswith("warning: 10.0.0.5 is reached in plain text")


def test_a_package_has_what_git_does_not_ignore(folder: Path, tmp_path: Path) -> None:
    for name in ("runs/x/plan.json", ".venv/bin/python", "big.bin", "sub/other.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    everything = {"big.bin", "c.yaml", "mine.jsonl", "sub/other.jsonl"}
    assert {*files(folder)} == everything
    (folder / ".gitignore").write_text("*.bin\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    package = pack(folder, tmp_path / "job.zip")
    names = {*zipfile.ZipFile(package).namelist()}
    assert names == everything - {"big.bin"} | {".gitignore"}


def test_a_package_of_many_megabytes(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.bin").write_bytes(os.urandom(5_100_000))
    with pytest.raises(ConfigError, match=r"has 5\.1 MB to send \(at most 5\).*weights\.bin"):
        pack(folder, tmp_path / "job.zip")


@pytest.mark.parametrize("name", ["edgesweep/__init__.py", "edgesweep.py"])
def test_a_folder_that_would_hide_us(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")
    with pytest.raises(ConfigError, match="would hide the installed edgesweep"):
        pack(folder, tmp_path / "job.zip")


def test_a_run_is_one_job_at_a_time() -> None:
    assert submitting._next("r-1", []) == "r-1-e1"
    assert submitting._next("r-1", [Job("r-1-e1", "FAILED"), Job("r-1-e9", "STOPPED")]) == "r-1-e10"
    with pytest.raises(ConfigError, match="as job r-1-e2; let it end, or stop it"):
        submitting._next("r-1", [Job("r-1-e2", "RUNNING")])
