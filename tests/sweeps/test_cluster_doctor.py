"""What the doctor makes of what nodes say; a real cluster is asked in test_on_a_cluster.py."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesweep.engine.model import resolve_model
from edgesweep.engine.runtime.outside import Answer
from edgesweep.storage.stores import open_store
from edgesweep.sweeps.actor.admission import decisive_versions
from edgesweep.sweeps.command import cluster_doctor as doctor
from edgesweep.sweeps.command.cluster_doctor import Load, Question, look, table
from tests.sweeps.test_cli import command

CARD = ("H100", 80 * 10**9)


@pytest.fixture
def question(tmp_path: Path) -> Question:
    """Of a run directory with the doctor's word in it, and a model that is here."""
    found = Question(str(tmp_path / "run"), "w", (resolve_model("tiny-random"),))
    open_store(tmp_path / "run").put(doctor._key(found, "head"), b"")
    return found


def faults(question: Question, load: Load | None = None, **said: Any) -> list[str]:
    node = secrets.token_hex(4)
    told = {**look(question, node), **said}
    assert question.out is not None
    answer = Answer(node, "10.0.0.1", told=told)
    return doctor._row(answer, question, open_store(question.out), load).faults


def test_a_node_that_has_all(question: Question) -> None:
    assert faults(question) == []


def test_a_node_that_sees_another_folder_of_that_name(question: Question, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run")
    assert faults(question) == ["run directory: does not see it"]
    assert not (tmp_path / "run").exists()


def test_a_node_whose_word_is_not_found(question: Question, tmp_path: Path) -> None:
    told = look(question, "n1")
    (tmp_path / "run" / doctor._key(question, "n1")).unlink()
    row = doctor._row(Answer("n1", "h", told=told), question, open_store(tmp_path / "run"), None)
    assert row.faults == ["run directory: what it writes there is not seen from here"]


def test_a_disk_that_cannot_create_once(question: Question, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgesweep.storage.stores.LocalStore.create", lambda *_: True)
    assert faults(question)[0] == "run directory: its disk cannot create a file once (hard links)"


def test_other_versions_full_disks_and_missing_models(question: Question) -> None:
    versions = {**decisive_versions(), "torch": "1.0"}
    assert faults(question, versions=versions)[0].startswith("torch is 1.0, here ")
    assert faults(question, free=5) == ["its cache's disk is full"]
    (source,) = question.sources
    away = replace(source, name="./m", path=source.path / "nowhere")
    assert faults(replace(question, sources=(away,))) == ["model ./m: not to be had"]


@pytest.mark.parametrize(
    ("share", "n_bytes", "is_too_much"),
    [(1, 60e9, False), (1, 90e9, True), (0.5, 39e9, False), (0.5, 41e9, True), (2, 150e9, False)],
)
def test_shares_of_a_card_that_do_not_fit(
    share: float, n_bytes: float, is_too_much: bool, question: Question
) -> None:
    found = faults(question, Load(share, int(n_bytes)), gpus=[CARD])
    assert bool(found) == is_too_much
    assert all("do not fit H100, 80 GB; raise execution.num_gpus" in line for line in found)


def test_the_table() -> None:
    rows = [doctor.Node("10.0.0.1", ["8", "none", "9 GB", "yes", "-"])]
    rows.append(doctor._row(Answer("n", "10.0.0.22", failed="it is gone"), Question(), None, None))
    assert list(table(rows)) == [
        "node       cpus  gpus  free  run  model",
        "10.0.0.1   8     none  9 GB  yes  -",
        "10.0.0.22  -     -     -     -    -",
        "  wrong: it is gone",
    ]


def test_questions_need_a_cluster(monkeypatch: Any, capsys: Any) -> None:
    code, _, error = command(monkeypatch, capsys, "doctor", "--out", "/x")
    assert (code, "give --cluster" in error) == (2, True)


def test_stage_says_how_runs_take_it(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    stage = ["stage", "smoke", "--to", str(tmp_path / "staged")]
    code, printed, _ = command(monkeypatch, capsys, *stage)
    digest = resolve_model("tiny-random").digest
    assert (code, f"tiny-random: {digest} is staged in {tmp_path}" in printed) == (0, True)
    assert f"--set execution.models_url={tmp_path / 'staged'}" in printed
    assert (tmp_path / "staged" / digest / "manifest.json").is_file()
    assert "was staged" in command(monkeypatch, capsys, *stage)[1]
    code, _, error = command(monkeypatch, capsys, "stage", "smoke", "--to", "s4://x/y")
    assert (code, error.startswith("error: --to: s4://")) == (2, True)


@pytest.mark.parametrize(
    ("value", "message"),
    [("models", "'models' is no place that every node finds"), ("s4://b", "s4://… is no address")],
)
def test_a_models_url_that_no_node_finds(
    value: str, message: str, monkeypatch: Any, capsys: Any
) -> None:
    sets = ["--set", f"execution.models_url={value}"]
    code, _, error = command(monkeypatch, capsys, "run", "smoke", "--dry-run", *sets)
    assert (code, message in error) == (2, True)
