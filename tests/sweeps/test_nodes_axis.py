"""Ways to take a model apart are an axis: heads, features, several sets of dictionaries by name."""

import pytest

from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start
from edgesweep.sweeps.plan.estimates import describe
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from tests.sweeps.helpers import DATA, Faulty, contents, run_tiny, tiny

WHOLE = {"dictionaries": {"embed": "identity", "resid2": "identity"}, "keep": 300, "edges": 300}
PART = {"dictionaries": {"resid1": {"kind": "pca", "prompts": 8}}, "keep": 300, "edges": 200}
BASIS = {"kind": "lib", "features": 8, "prompts": 8, "jacobians": 3}
LIB = {"dictionaries": {"resid0": BASIS, "resid2": BASIS}, "keep": 300, "edges": 200}


def config(nodes, features=None, **changes) -> dict:
    sections = {
        "sweep": {"nodes": nodes, "task": "ioi", "method": "eap"},
        "evaluate": {"threshold": [5, 40], "metric": "logit_diff"},
        "data": {"n_build": 4, "n_eval": 4},
        **({"features": features} if features else {}),
    }
    return tiny(**{s: {**values, **changes.get(s, {})} for s, values in sections.items()})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("axis") / "run"
    given = config(["heads", "whole", "part", "lib"], {"whole": WHOLE, "part": PART, "lib": LIB})
    assert run_tiny(out, given).exit_code == 0
    return RunDirectory.open(out)


def bare(table, nodes):
    """A cell's rows without the names that hang on the run, sorted."""
    mine = table[table["nodes"] == nodes].drop(columns=["cell", "circuit", "nodes"])
    return mine.sort_values(list(mine.columns), ignore_index=True)


@pytest.mark.parametrize(
    ("nodes", "alone"),
    [
        ("heads", config("heads")),
        ("whole", config("features", WHOLE)),
        ("part", config("features", PART)),
        ("lib", config("lib", {"lib": LIB})),
    ],
)
def test_each_way_gives_what_it_gives_alone(mixed, tmp_path, nodes, alone):
    assert run_tiny(tmp_path / "alone", alone).exit_code == 0
    of_alone = read_table(RunDirectory.open(tmp_path / "alone"), RESULTS)
    of_mixed = read_table(mixed, RESULTS)
    one = bare(of_mixed, nodes)
    assert len(one) > 0
    assert one.equals(bare(of_alone.assign(nodes=nodes), nodes))


def test_circuits_are_of_each_way_s_nodes(mixed):
    edges, cells = read_table(mixed, CIRCUITS), {c["key"]: c for c in mixed.plan["cells"]}
    targets = edges.groupby("cell")["target"].agg(lambda of: {t.split("/")[0] for t in of})
    sites = {cells[key]["nodes"]: found for key, found in targets.items()}
    assert sites["whole"] <= {"resid2", "logits"}
    assert sites["part"] <= {"resid1", "logits"}
    assert sites["lib"] <= {"resid0", "resid2", "logits"}
    assert all("." in t or t == "logits" or t.startswith("m") for t in sites["heads"])


def test_sets_of_the_same_share_what_they_share(tmp_path):
    """Two names for one set of dictionaries, told apart by what an edge is of: means and references
    are had once."""
    twice = {"value": WHOLE, "metric": {**WHOLE, "target": "metric"}}
    raw = config(["value", "metric"], twice, evaluate={"eval_patch": "mean", "threshold": 5})
    launch = start(parse_config(raw), tmp_path / "run")
    assert len({cell.features for cell in launch.plan.cells}) == 1
    assert len({cell.key for cell in launch.plan.cells}) == 2
    assert {shard.nodes for shard in launch.plan.stages["references"]} == {"value"}
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    assert contents(tmp_path / "run", *DATA)


def test_a_method_is_left_out_where_it_does_not_exist():
    raw = config(["heads", "features"], WHOLE, sweep={"method": ["eap", "ig_inputs"]})
    plan = make_plan(resolve(parse_config(raw)))
    assert [(c.nodes, c.method) for c in plan.cells] == [
        ("heads", "eap"),
        ("heads", "ig_inputs"),
        ("features", "eap"),
    ]
    assert "left out: ig_inputs over features, which it does not attribute" in describe(plan)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            config(["heads", "features"], WHOLE, sweep={"method": ["ig_inputs"]}),
            "sweep.nodes: no method in sweep.method attributes 'features'; allowed: eap, ",
        ),
        (
            config(["heads", "sae"], {"pca": PART}),
            "features.pca: is given and sweep.nodes has no 'pca'; add it, or leave it out",
        ),
        (
            config(["heads", "pac"], {"pca": PART}, sweep={"nodes": ["heads", "pca", "pac"]}),
            "sweep.nodes: 'pac' is not known; allowed: heads, pca, lib, gib, rois; did you mean "
            "'pca'?",
        ),
        (
            config(["heads"], {"heads": WHOLE}),
            "features: 'heads' names nodes that every model has; rename it",
        ),
        (
            config(["sae"], {"sae": {**WHOLE, "kep": 3}}),
            "unknown key 'features.sae.kep'; did you mean 'keep'?",
        ),
        (
            config(["sae"], {"sae": {**WHOLE, "keep": 0}}),
            "features.sae.keep: 0 is out of range; allowed: 1 to 10000000",
        ),
    ],
)
def test_what_cannot_be_is_one_line(raw, message):
    with pytest.raises(ConfigError) as caught:
        resolve(parse_config(raw))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_bases_have_the_same_bytes_through_ray_and_after_a_stop(tmp_path):
    """The first basis is committed and the one before it fails; the run goes on from there."""
    files, raw = (*DATA, "dictionaries"), config("lib", {"lib": LIB})
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    fails = Faulty(before=FailsBasis("resid0"))
    assert run_tiny(tmp_path / "stopped", raw, fails).exit_code == 3
    assert len(list((tmp_path / "stopped" / "dictionaries").iterdir())) == 1
    assert run_tiny(tmp_path / "stopped", raw).exit_code == 0
    ray = {**raw, "execution": {**raw["execution"], "executor": "ray", "actors": 2}}
    assert run_tiny(tmp_path / "ray", ray).exit_code == 0
    wanted = contents(tmp_path / "run", *files)
    assert contents(tmp_path / "stopped", *files) == wanted
    assert contents(tmp_path / "ray", *files) == wanted


class FailsBasis:
    """Fails the dictionary of one site, every time."""

    def __init__(self, site: str) -> None:
        self.site = site

    def __call__(self, task) -> None:
        if task.stage == "dictionaries" and task.key.startswith(f"{self.site}-"):
            raise RuntimeError("a test")
