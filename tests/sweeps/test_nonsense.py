"""What a stranger, or somebody who means harm, can hand us: one line at once, exit code 2, and
nothing is written."""

import sys

import pytest

from edgesweep.storage import RunDirectory
from edgesweep.storage.blocks import is_sound, read_file
from edgesweep.storage.errors import StorageError
from edgesweep.storage.records import seal
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.config.plainyaml import MAX_VALUES, PlainYamlError, read_plain
from edgesweep.sweeps.launch import reopen, start
from edgesweep.sweeps.stages.blockmodels.blocks import lacks_graph_tool
from tests.sweeps.helpers import BLOCKS, tiny
from tests.sweeps.test_config import refused

NINE = "[" + ", ".join(["{}"] * 9) + "]"
BOMB = "a0: &a0 " + NINE.format(*"xxxxxxxxx") + "\n"
BOMB += "".join(f"a{i}: &a{i} {NINE.format(*[f'*a{i - 1}'] * 9)}\n" for i in range(1, 20))
DEEP = 200_000 * "["

BAD_YAML = [
    (BOMB, "has more than 5000 values, aliases counted as written out"),
    (f"name: [{'1,' * 100_000}]", "has more than 5000 values"),
    (DEEP, "is nested more than 50 levels deep"),
    (f"name: {DEEP}", "is nested more than 50 levels deep"),
    (100_000 * "- ", "is nested more than 50 levels deep"),
    ("name: &a [*a]", "has an anchor that stands for a part of itself"),
    ("# " + 2**20 * "c", "has more than 1048576 characters"),
    ("name: x\nname: y", "has the key 'name' twice in one mapping"),
    ("name: 2020-99-99", "has a value that YAML cannot read: month must be in 1..12"),
    ("name: !!bool 7", "has a value that YAML cannot read"),
    ("name: " + 5000 * "9", "has a value that YAML cannot read"),
    ("name: !!python/object/apply:os.system [ls]", "is no YAML: could not determine a constr"),
    ("name: x\n\x07", "is no YAML: unacceptable character"),
]


@pytest.mark.parametrize(("text", "message"), BAD_YAML, ids=[m for _, m in BAD_YAML])
def test_a_config_that_is_a_trap(text, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert message in refused(monkeypatch, capsys, "run", str(file))
    if len(text) < 2**20:
        line = refused(monkeypatch, capsys, "run", "smoke", "--set", f"sweep={text}")
        assert message in line
        assert len(line) < 500
    assert list(tmp_path.iterdir()) == [file]


def test_anchors_are_read_as_far_as_a_config_needs_them():
    assert read_plain("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }
    half = f"a: &a [{'1,' * (MAX_VALUES // 2)}]\nb: "
    assert len(read_plain(half + "1")["a"]) == MAX_VALUES // 2
    with pytest.raises(PlainYamlError, match="aliases counted as written out"):
        read_plain(half + "*a")


BAD_COMMANDS = [
    (["run", "smoke", "--out", "s4://bucket/run"], "s4://… is no address that a run can have"),
    (["resume", "s3://me:sesame@bucket/run"], "has a user, a password or a query in it"),
    (["report", "x", "-o", "gs://bucket/page"], "is an address"),
    (["train", "dictionary", "--site", "resid0", "--out", "s3://b/d.safetensors"], "is an addr"),
    (["run", "smoke", "--out", ""], "'' is no path"),
    (["run", "smoke", "--out", 5000 * "x"], "cannot be used: File name too long"),
    (["status", 5000 * "x"], "cannot be used: File name too long"),
    (["run", 5000 * "x"], "cannot be read: "),
    (["run", "a\0b"], "is no file and no preset"),
    (["run", "smoke", "--set", f"{5000 * 'a.'}b=1"], "is not of the form key=value"),
    (["list"], "Missing argument 'kind'. Choose from: models, tasks, methods, presets"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_COMMANDS)
def test_arguments_that_are_no_paths(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("act", ["run", "resume", "status", "report", "verify"])
def test_a_bucket_without_obstore_is_one_line(act, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "edgesweep.storage.stores.objects", None)
    where = "s3://bucket/never-asked"
    arguments = [act, "smoke", "--out", where] if act == "run" else [act, where]
    line = refused(monkeypatch, capsys, *arguments)
    assert f"{where} needs obstore: pip install 'edgesweep[cloud]'" in line
    assert list(tmp_path.iterdir()) == []


BAD_VALUES = [
    (f"sweep.model=../{5000 * 'x'}", "a path in the config cannot be used: [Errno 36] File name"),
    ("sweep.model=~nobody-at-all/x", "a path in the config cannot be used: Could not determine"),
    (f"sweep.task={5000 * 'x'}.jsonl", "File name too long"),
    (r'sweep.task="a\0.jsonl"', "has a character that no name can have"),
    (r'sweep.model="\ud800"', "has a character that no name can have"),
    (r'execution.address="\0"', "has a character that no name can have"),
    ("execution.memory_gb=1e300", "execution.memory_gb: '1e300' is out of range; allowed: at most"),
    ("execution.num_gpus=1e300", "execution.num_gpus: '1e300' is out of range; allowed: at most"),
]


@pytest.mark.parametrize(("setting", "message"), BAD_VALUES, ids=[m for _, m in BAD_VALUES])
def test_values_that_no_machine_can_use(setting, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = refused(monkeypatch, capsys, "run", "smoke", "--set", setting)
    assert message in line
    assert len(line) < 600
    assert list(tmp_path.iterdir()) == []


BAD_PLANS = [
    b"",
    b"[]",
    DEEP.encode(),
    b"\xff\xfe",
    seal({"run_id": 1, "config": []}),
    seal({"config": {}}),
    b'{"run_id": ' + 5000 * b"9" + b', "config": {}}',
]


@pytest.mark.parametrize("command", ["resume", "status"])
@pytest.mark.parametrize("plan", BAD_PLANS, ids=range(len(BAD_PLANS)))
def test_a_plan_that_is_none(plan, command, monkeypatch, capsys, tmp_path):
    (tmp_path / "plan.json").write_bytes(plan)
    assert "plan.json is damaged" in refused(monkeypatch, capsys, command, str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


# --- directories from elsewhere ---------------------------------------------------------------


def received(tmp_path, **execution) -> RunDirectory:
    """A run directory whose maker chose how it is to be run."""
    raw = tiny(blocks=BLOCKS)
    plan = start(parse_config(raw), tmp_path / "mine").plan
    config = {**plan.config.model_dump(mode="json"), "execution": raw["execution"] | execution}
    return RunDirectory.create(tmp_path / "theirs", config, plan.document())


def test_a_directory_starts_no_program(tmp_path, monkeypatch):
    evil = tmp_path / "evil.sh"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path / 'was-here'}\n")
    evil.chmod(0o755)
    run = received(tmp_path, graph_tool=str(evil))
    launch = reopen(run.path)
    lacks_graph_tool(launch.plan)
    assert launch.plan.config.execution.graph_tool is None
    assert not (tmp_path / "was-here").exists()
    with pytest.raises(
        ConfigError, match="graph-tool interpreter"
    ):  # what a person names is started
        lacks_graph_tool(reopen(run.path, {"graph_tool": str(evil)}).plan)
    assert (tmp_path / "was-here").exists()


def test_a_program_is_named_again_and_not_kept(tmp_path):
    raw = tiny(execution={"graph_tool": "/opt/my python", "address": "ray://mine:1"})
    launch = start(parse_config(raw), tmp_path / "run")
    assert "graph_tool" not in (tmp_path / "run" / "plan.json").read_text()
    assert launch.how_to_resume.endswith(
        "run --set execution.graph_tool='/opt/my python' --set execution.address=ray://mine:1"
    )


def test_a_directory_joins_no_cluster_but_this_machines(tmp_path):
    run = received(tmp_path, address="ray://evil:10001")
    with pytest.raises(ConfigError) as caught:
        reopen(run.path)
    assert "execution.address: 'ray://evil:10001' stands in the run directory" in str(caught.value)
    assert "--set execution.address=null to run on this machine" in str(caught.value)
    assert reopen(run.path, {"address": None}).plan.config.execution.address is None
    own = received(tmp_path / "own", address="auto")
    assert reopen(own.path).plan.config.execution.address == "auto"


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "blocks/../../secret"])
def test_a_record_names_nothing_outside_of_the_run(name, tmp_path):
    run = RunDirectory.create(tmp_path / "run", {}, {"run_id": "x"})
    (tmp_path / "secret").write_bytes(b"")
    write = {"file": name, "bytes": 0, "crc": 0}
    with pytest.raises(StorageError, match="which is not in"):
        read_file(run, write)
    assert not is_sound(run, {"writes": [write]})
    assert not is_sound(run, {"writes": [{"store": name, "array": "x", "start": 0, "rows": 1}]})


def test_nothing_is_written_through_a_link(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {}, {"run_id": "x"})
    victim = tmp_path / "profile"
    victim.write_text("mine\n")
    (run.path / "config.yaml").symlink_to(victim)
    assert run.mend_config()
    assert not (run.path / "config.yaml").is_symlink()
    assert victim.read_text() == "mine\n"


def test_a_line_of_brackets_in_the_log_is_no_event(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {}, {"run_id": "x"})
    (run.path / "log").mkdir()
    (run.path / "log/0.jsonl").write_text(f"{DEEP}\n")
    run.log("driver_started", epoch=1)
    assert [event["event"] for event in run.read_log()] == ["driver_started"]
