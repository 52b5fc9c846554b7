"""Configs: every bad input is one clear line, exit code 2, and nothing is written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgesweep.engine.features.edges import TARGETS as ENGINE_TARGETS
from edgesweep.engine.graph import BY_SIZE, OF_EDGES
from edgesweep.engine.graph import SELECTIONS as ENGINE_SELECTIONS
from edgesweep.engine.graph.circuit_files import KNOWN as ENGINE_KNOWN
from edgesweep.engine.methods import METHODS as ENGINE_METHODS
from edgesweep.engine.methods.quadrature import RULES
from edgesweep.engine.metrics import METRICS as ENGINE_METRICS
from edgesweep.engine.model.tiny import write_tiny_random
from edgesweep.engine.patches import PATCHES as ENGINE_PATCHES
from edgesweep.storage.fold import AGGREGATIONS as FOLDED
from edgesweep.storage.layout import NO_MEMBERS
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config import grids
from edgesweep.sweeps.config import schema as sections
from edgesweep.sweeps.config.features import TARGETS
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config, parse_config, preset_names
from tests.sweeps.helpers import run_tiny, tiny


def refused(monkeypatch, capsys, *arguments: str) -> str:
    """The one line with which the command refuses, exit code 2."""
    monkeypatch.setattr(sys, "argv", ["edgesweep", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


BAD_SETTINGS = [
    ("swep.method=eap", "unknown key 'swep'; did you mean 'sweep'?"),
    ("sweep.stepps=3", "unknown key 'sweep.stepps'; did you mean 'steps'?"),
    ("sweep.steps=many", "sweep.steps: 'many' is not a whole number"),
    ("sweep.steps=0", "sweep.steps: 0 is out of range; allowed: 1 to 1000"),
    ("sweep.steps=[]", "sweep.steps: [] is empty"),
    (
        "sweep.model=smolm2-135m",
        "model 'smolm2-135m': no alias (smollm2-135m, tiny-random, wired-",
    ),
    ("sweep.model=./nowhere", "no such folder"),
    ("sweep.task=iio", "unknown task 'iio'; did you mean 'ioi'?"),
    ("sweep.task=ioi+ioi", "has the member 'ioi' twice"),
    ("sweep.task=nowhere.jsonl", "nowhere.jsonl is not there"),
    (
        "sweep.method=epa",
        "sweep.method: 'epa' is not known; allowed: eap, eap_patch, ",
    ),
    ("sweep.method=[eap, eap]", "has 'eap' twice"),
    ("sweep.nodes=features", "sweep.method: 'ig_inputs' is for nodes 'heads'"),
    ("sweep.nodes=neurons", "sweep.nodes: 'neurons' is not known; allowed: heads, features"),
    ("sweep.build_patch=noisy", "allowed: counterfactual, resample, mean, zero, noise"),
    ("data.noise_scale=0", "data.noise_scale: 0 is out of range; allowed: more than 0"),
    ("measures.level=1", "measures.level: 1 is out of range; allowed: more than 0 and less than 1"),
    ("evaluate.node_threshold=0", "evaluate.node_threshold: 0 has 0"),
    (
        "sweep.build_metric=kl",
        "sweep.build_metric: method 'eap' cannot use metric 'kl': its gradient is zero at the "
        "clean run; use ig_inputs, or metric logit_diff",
    ),
    ("sweep.build_metric=accuracy", "method 'eap' cannot use metric 'accuracy'; use logit_diff"),
    ("evaluate.threshold=[]", "evaluate.threshold: [] is an empty grid"),
    ("evaluate.threshold={log: [1, 10, 0]}", "log has 0 points; allowed: 1 to 1000"),
    ("evaluate.threshold={log: [0, 10, 3]}", "low must be above 0"),
    ("evaluate.threshold={lin: [1, 10, 3]}", "did you mean 'linear'?"),
    ("evaluate.threshold=0.5", "a threshold of topk_abs is a number of edges, 1 or more"),
    ("evaluate.threshold=ten", "'ten', which is no number"),
    ("evaluate.threshold=mbi", "'mbi', which is no number; did you mean 'mib'?"),
    ("evaluate.threshold={share: [0.1, 2]}", "has 2; a share is more than 0 and at most 1"),
    ("evaluate.threshold={shar: [0.1]}", "did you mean 'share'?"),
    ("evaluate.threshold={topk_abs: mib, value: mib}", "evaluate.threshold: "),
    ("evaluate.node_threshold={share: 0}", "evaluate.node_threshold: {'share': 0} has 0"),
    ("evaluate.metric=logit", "evaluate.metric: 'logit' is not known"),
    ("evaluate.aggregation=median", "allowed: mean, max, rms, mean_abs, max_abs"),
    ("blocks.fit=nsted", "did you mean 'nested'?"),
    ("execution.graph_tool=/no/python", "execution.graph_tool: "),
    ("report.headline.method=exact", "report.headline.method: 'exact' is not of this run; allowed"),
    ("report.headline.choose=half", "report.headline.choose: 'half' is not known; allowed: third"),
    ("report.headline.levl=0.9", "did you mean 'level'?"),
    ("execution.actors=0", "execution.actors: 0 is out of range"),
    ("execution.max_slot_deaths=2", "it must be more than max_attempts, 3"),
    (
        "execution={gpus_per_actor: 2, num_gpus: 1}",
        "gpus_per_actor is 2 and num_gpus is 1; allowed: equal numbers, or no num_gpus",
    ),
    ("execution.gpus_per_actor=1.5", "execution.gpus_per_actor: "),
    ("execution=fast", "execution: 'fast' is not a mapping of keys"),
    ("seed=on", "seed: True is a yes or no"),
    ("name=Über", "name: 'Über' is no name"),
    ("name=../up", "name: '../up' is no name"),
    ("nonsense", "--set 'nonsense' is not of the form key=value"),
]


@pytest.mark.parametrize(("setting", "message"), BAD_SETTINGS, ids=[s for s, _ in BAD_SETTINGS])
def test_a_bad_setting_is_one_line_and_writes_nothing(
    setting, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    line = refused(monkeypatch, capsys, "run", "smoke", "--set", setting)
    assert message in line
    assert list(tmp_path.iterdir()) == []


LINE = {"clean": [1, 2, 3], "patch": [1, 2, 4], "good": [4], "bad": [5]}
BAD_LINES = [
    ({"clean": [1, 2], "patch": [1, 2], "good": [4], "bad": [5]}, "are the same 2 tokens"),
    (
        {"clean": [1, 2, 3], "patch": [1, 2], "good": [4], "bad": [5]},
        "clean has 3 tokens and patch has 2",
    ),
    ({"clean": "When Mary", "patch": "When John", "good": " is was", "bad": " are"}, "one token"),
    ({"clean": [1, 2], "patch": [1, 3], "good": [4]}, "bad"),
]


@pytest.mark.parametrize(("prompt", "message"), BAD_LINES)
def test_a_bad_prompt_file_names_its_line(prompt, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, [LINE, prompt])))
    line = refused(monkeypatch, capsys, "run", "smoke", "--set", "sweep.task=mine.jsonl")
    assert message in line
    assert "line 2" in line or ":2" in line
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("member", [*sorted(NO_MEMBERS - {"zarr.json"}), "Interval"])
def test_a_task_may_not_have_the_name_of_what_lies_beside_it(member, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"{member}.jsonl"
    file.write_text("\n".join(json.dumps(LINE | {"clean": [i, 2, 3]}) for i in (6, 7, 8, 9)))
    settings = [f"sweep.task=ioi+{file.name}", "data.n_build=2", "data.n_eval=2"]
    line = refused(monkeypatch, capsys, *_run_smoke(settings))
    assert f"sweep.task: {member!r} cannot name a task: in the run directory something" in line
    assert list(tmp_path.iterdir()) == [file]


def _run_smoke(settings: list[str]) -> list[str]:
    return ["run", "smoke", *(part for s in settings for part in ("--set", s))]


def test_nothing_else_lies_beside_the_members(tmp_path):
    """What a cell's group holds that is no member's; over features too. Few shards have no
    subtrees."""
    raw = tiny(
        sweep={"method": "eap", "nodes": ["heads", "features"]},
        features={"dictionaries": {"resid0": "identity"}, "keep": 100, "edges": 50},
        evaluate={"threshold": 5, "ablation": "edge", "metric": "logit_diff"},
    )
    run_tiny(tmp_path / "run", raw)
    inside = (tmp_path / "run" / "aggregates.zarr").glob("*/*")
    assert {path.name for path in inside} - {"ioi", "agreement"} == (
        NO_MEMBERS - {"all", "shared", "subtrees"}
    )


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[a/mine.jsonl, b/mine.jsonl]", "sweep.task: the name 'mine' is there twice; rename one"),
        ("[a/mine.jsonl, b/Mine.jsonl]", "the name 'Mine' and 'mine' differ in case only; rename"),
        (
            "a/mine.jsonl+b/Mine.jsonl",
            "has the member 'Mine' beside 'mine', which differs in case only",
        ),
        ("[ioi, a/ioi.jsonl]", "ioi.jsonl has the name of the built-in task 'ioi' and would be"),
    ],
)
def test_names_are_apart_on_every_disk(tasks, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("a/mine", "b/mine", "b/Mine", "a/ioi"):
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(json.dumps(LINE | {"clean": [i, 2, 3]}) for i in (6, 7, 8, 9)))
    settings = [f"sweep.task={tasks}", "data.n_build=2", "data.n_eval=2"]
    assert message in refused(monkeypatch, capsys, *_run_smoke(settings))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_one_model_under_two_names(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_tiny_random(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    shutil.copytree(tmp_path / "first", tmp_path / "more" / "First")
    capsys.readouterr()  # the loader's own progress bar
    line = refused(monkeypatch, capsys, *_run_smoke(["sweep.model=[./first, ./second]"]))
    assert "sweep.model: 'first' and 'second' are the same model, weight by weight" in line
    line = refused(monkeypatch, capsys, *_run_smoke(["sweep.model=[./first, ./more/First]"]))
    assert "sweep.model: the name 'First' and 'first' differ in case only" in line


def test_a_model_folder_without_weights(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_tiny_random(tmp_path / "model")
    for weights in (tmp_path / "model").glob("*.safetensors"):
        weights.unlink()
    capsys.readouterr()  # the loader's own progress bar
    line = refused(monkeypatch, capsys, "run", "smoke", "--set", "sweep.model=./model")
    assert "has no *.safetensors weights" in line
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_means_that_no_build_prompt_stands_for(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = ["evaluate.eval_patch=mean", "data.n_build=1", "data.n_eval=40"]
    line = refused(monkeypatch, capsys, *_run_smoke(settings))
    assert "raise data.n_build (now 1) or set data.mean_positions to pooled" in line
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_another_run(monkeypatch, capsys, tmp_path):
    run_tiny(tmp_path / "run", tiny(sweep={"method": "eap", "task": "ioi"}))
    before = sorted(p for p in tmp_path.rglob("*"))
    config_file = tmp_path / "other.yaml"
    config_file.write_text(
        yaml.safe_dump(tiny(sweep={"method": "eap", "task": "ioi"}) | {"seed": 1})
    )
    line = refused(monkeypatch, capsys, "run", str(config_file), "--out", str(tmp_path / "run"))
    assert "holds another run" in line
    assert "seed: 1 here, 0 there" in line
    assert sorted(p for p in tmp_path.rglob("*") if p != config_file) == before


def test_a_folder_with_other_things_in_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    line = refused(monkeypatch, capsys, "run", "smoke", "--out", str(tmp_path))
    assert "is not empty and holds no run" in line


@pytest.mark.parametrize("command", ["resume", "status", "report"])
def test_no_run_there(command, monkeypatch, capsys, tmp_path):
    assert "holds no run" in refused(monkeypatch, capsys, command, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_configs_that_are_none(monkeypatch, capsys, tmp_path):
    line = refused(monkeypatch, capsys, "run", "dmeo")
    assert "no file and no preset; presets: cifar-lib, " in line
    assert "; did you mean 'demo'?" in line
    file = tmp_path / "c.yaml"
    for text, message in [
        ("", "holds nothing; a mapping of keys is wanted"),
        ("- a", "holds a list"),
        ("a: [", "is no YAML"),
        ("sweep: {}", "name is missing"),
    ]:
        file.write_text(text)
        assert message in refused(monkeypatch, capsys, "run", str(file))


def test_yaml_writes_numbers_as_texts():
    settings = ["evaluate.selection=value", "evaluate.threshold=[1e-3, 0]", 'sweep.steps="8"']
    loaded = load_config("smoke", settings)
    assert loaded.evaluate.thresholds(9, of_nodes=False) == {"value": (0.0, 0.001)}
    assert loaded.sweep.steps == (8,)


def test_grids():
    def thresholds(of_nodes=False, n=1000, **evaluate):
        told = parse_config({"name": "x", "evaluate": evaluate}).evaluate
        return told.thresholds(n, of_nodes=of_nodes)

    assert thresholds(threshold={"log": [10, 1000, 3]}) == {"topk_abs": (10, 100, 1000)}
    assert thresholds(threshold={"linear": [0, 1, 3]}, selection="abs") == {"abs": (0, 0.5, 1)}
    assert thresholds(threshold=[7, 3, 3.2]) == {"topk_abs": (3, 7)}
    both = {"topk_value": 5, "value": [0.1]}
    assert thresholds(threshold=both, selection=["value", "topk_value"]) == {
        "value": (0.1,),
        "topk_value": (5,),
    }
    with pytest.raises(ConfigError, match="give one grid for each selection"):
        thresholds(threshold=both, selection="value")
    ten = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    assert thresholds(threshold="mib") == {"topk_abs": ten}
    assert thresholds(threshold={"share": [0.5, 0.001, 0.0001]}) == {"topk_abs": (1, 500)}
    assert thresholds(threshold={"share": {"log": [0.01, 1, 3]}}, n=70_651) == {
        "topk_abs": (706, 7065, 70_651)
    }
    with pytest.raises(ConfigError, match="'value' keeps scores above a threshold"):
        thresholds(threshold="mib", selection=["topk_abs", "value"])
    mixed = {"topk_abs": "mib", "value": 0.1}
    found = thresholds(threshold=mixed, selection=["topk_abs", "value"])
    assert found == {"topk_abs": ten, "value": (0.1,)}


def test_grids_of_nodes():
    def thresholds(**evaluate):
        told = parse_config({"name": "x", "evaluate": evaluate}).evaluate
        return told.thresholds(10, of_nodes=True)

    assert thresholds(threshold=[7, 100]) == {"topk_abs": (1, 2, 3, 4, 5, 6, 8, 10)}  # up to all
    assert thresholds(threshold="mib") == {"topk_abs": (1, 2, 5, 10)}  # shares of nodes
    assert thresholds(threshold="mib", node_threshold=[4, 99]) == {"topk_abs": (4, 10)}
    assert thresholds(node_threshold={"share": [0.3]}) == {"topk_abs": (3,)}
    assert thresholds(threshold=0.1, selection="value", node_threshold=3) == {"value": (0.1,)}


def test_a_config_is_read_back_from_what_it_resolves_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ("grok/step-0", "cifar-mlp/seed0"):
        (tmp_path / model).mkdir(parents=True)  # what patterns of presets match
    for loaded in map(load_config, preset_names()):
        assert parse_config(loaded.model_dump(mode="json")) == loaded


def test_paths_are_relative_to_the_config_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m").mkdir()
    file = tmp_path / "sub" / "c.yaml"
    file.write_text("name: x\nsweep: {model: [./m, a/b], task: 'ioi+mine.jsonl'}")
    monkeypatch.chdir(tmp_path)
    sweep = load_config("sub/c.yaml").sweep
    assert sweep.model == (str(Path(tmp_path, "sub", "m")), "a/b")
    assert sweep.task == (f"ioi+{tmp_path}/sub/mine.jsonl",)


def test_the_config_knows_what_the_engine_knows():
    """The config spells these names itself, so that a refusal needs no torch."""
    assert set(ENGINE_METHODS) == {*sections.METHODS, "given"}  # by evaluate.circuits
    assert ENGINE_KNOWN == sections.KNOWN
    assert set(RULES) == set(sections.RULES)
    assert ENGINE_TARGETS == TARGETS
    assert set(ENGINE_PATCHES) == set(sections.PATCHES)
    assert set(ENGINE_METRICS) == set(sections.METRICS)
    assert ENGINE_SELECTIONS == sections.SELECTIONS
    assert (set(grids.BY_SIZE), set(grids.OF_EDGES)) == (BY_SIZE, OF_EDGES)
    assert FOLDED == sections.AGGREGATIONS


def test_help_and_refusals_load_neither_torch_nor_ray():
    code = (
        "import sys, edgesweep.sweeps.command.cli; "
        "heavy = {'torch', 'ray', 'transformers', 'zarr'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
