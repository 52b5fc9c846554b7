"""Seeds as an axis, and how alike what was found is: by methods, on tasks, on other prompts."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from edgesweep.engine.measures import jaccard_by_chance
from edgesweep.storage import RunDirectory
from edgesweep.storage.readers import aggregate
from edgesweep.storage.tables import OVERLAP, RESULTS, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.tables.overlap import Overlap
from tests.sweeps.helpers import run_tiny, tiny

SIZES = [5, 40]
SEARCH = {"method": ["eap", "exact", "acdc", "node_ap", "random"], "tau": [0.0001, 0.001]}
RAW = tiny(
    sweep={**SEARCH, "task": ["ioi", "agreement"], "seed": [0, 1], "candidates": {"top": 60}},
    evaluate={"threshold": SIZES, "ablation": "edge", "metric": "logit_diff"},
    measures={"bootstrap": 0},
)
MIXED = tiny(
    sweep={"method": "eap", "seed": [3, 1]},
    evaluate={"threshold": SIZES, "ablation": "edge", "aggregation": ["mean", "rms"]},
    measures={"bootstrap": 0},
)


def plan(raw):
    return make_plan(resolve(parse_config(raw)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("overlap") / "run"
    assert run_tiny(out, RAW).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed") / "run"
    assert run_tiny(out, MIXED).exit_code == 0
    return RunDirectory.open(out)


# --- seeds -------------------------------------------------------------------------------------


def test_each_seed_draws_its_own_prompts_and_one_seed_changes_nothing():
    alone, both = plan(tiny()), plan(tiny(sweep={"seed": [0, 1]}))
    assert plan(tiny(sweep={"seed": 0})).run_id == alone.run_id
    assert both.run_id != alone.run_id
    assert [c.key for c in both.cells][: len(alone.cells)] == [c.key for c in alone.cells]
    prompts = [{p.clean for p in d.data.build} for d in both.resolved.datasets.values()]
    assert len(prompts) == 2
    assert prompts[0] != prompts[1]
    assert len({c.key for c in both.cells}) == 2 * len(alone.cells)


def test_a_seed_of_another_name_is_another_run():
    assert plan(tiny(sweep={"seed": 1})).run_id != plan(tiny()).run_id


def test_datasets_of_equal_prompts_and_other_seeds_are_told_apart(tmp_path):
    """All prompts of a file are in either split whatever the seed; their noise is not."""
    line = {"clean": [1, 2, 3], "patch": [1, 4, 3], "good": [5], "bad": [6]}
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({**line, "clean": [1, i, 3]}) for i in (7, 8)))
    sizes = {"n_build": 1, "n_eval": 1}
    raw = tiny(sweep={"task": str(file), "seed": list(range(5))}, data=sizes)
    keys = [d.key for d in plan(raw).resolved.datasets.values()]
    assert len(set(keys)) == 5


@pytest.mark.parametrize("seed", [[], [1, 1], -1, "one", 1.5])
def test_seeds_that_cannot_be_are_refused(seed):
    with pytest.raises(ConfigError, match=r"^sweep\.seed: "):
        parse_config(tiny(sweep={"seed": seed}))


def test_a_dictionary_is_not_trained_on_what_another_seed_evaluates_on():
    nodes = {"nodes": "features", "method": "eap", "seed": [0, 1]}
    raw = tiny(sweep=nodes, features={"dictionaries": {"resid1": {"kind": "pca"}}})
    with pytest.raises(ConfigError, match=r"^sweep\.seed: \[0, 1\] evaluates on prompts"):
        plan(raw)


def test_a_method_that_takes_a_seed_is_given_it(run):
    found = plan(RAW).cells
    mine = [c for c in found if c.method == "random"]
    assert [c.seed for c in mine] == [0, 1, 0, 1]
    means = [aggregate(run, c.key, "mean") for c in mine]
    assert (means[0] == means[2]).all()
    assert (means[0] != means[1]).any()
    seeds = {c["seed"] for c in run.plan["cells"] if c["method"] == "eap"}
    assert seeds == {0, 1}


def test_all_seeds_are_in_the_results(run):
    assert set(read_table(run, RESULTS)["cell"]) == {c.key for c in plan(RAW).cells}


# --- overlap -----------------------------------------------------------------------------------


def slow_jaccard(a, b, size):
    """Sets of the strongest among what both measured."""
    both = [i for i in range(len(a)) if np.isfinite(a[i]) and np.isfinite(b[i])]
    first, second = (set(sorted(both, key=lambda i: (-abs(s[i]), i))[:size]) for s in (a, b))
    return len(first & second) / len(first | second), len(both)


def cells(run):
    return {c["key"]: c for c in run.plan["cells"]}


def scores(run, row, end, aggregation="mean"):
    cell, subset = row[f"cell_{end}"], row[f"subset_{end}"]
    return aggregate(run, cell if subset == "all" else f"{cell}/{subset}", aggregation)


def ranked(run):
    """Rows between cells that rank."""
    about, table = cells(run), read_table(run, OVERLAP)
    searches = [k for k, c in about.items() if c["tau"] is not None]
    return table[~table["cell_a"].isin(searches) & ~table["cell_b"].isin(searches)]


def test_every_value_is_what_counting_gives(run, mixed):
    for which in (run, mixed):
        for row in ranked(which).to_dict("records"):
            a, b = (scores(which, row, end, row["aggregation"]) for end in "ab")
            if row["measure"] == "jaccard":
                assert (row["value"], row["n"]) == slow_jaccard(a, b, row["size"])
            elif row["measure"] == "spearman":
                both = np.isfinite(a) & np.isfinite(b)
                expected = spearmanr(np.abs(a[both]), np.abs(b[both])).statistic
                assert (row["value"], row["n"]) == (pytest.approx(expected), both.sum())


def test_pairs_are_those_that_differ_in_one_thing(run):
    rows = ranked(run).query("measure == 'spearman'")
    about = cells(run)
    ends = ("method", "task", "seed")
    for row in rows.to_dict("records"):
        unlike = [e for e in ends if row[f"{e}_a"] != row[f"{e}_b"]]
        assert unlike == [row["across"]]
        assert about[row["cell_a"]]["task"] == row["task_a"]
    counts = rows.groupby("across").size()
    # eap, exact and random score edges, node_ap nodes; random has no tasks; 2 tasks, 2 seeds
    assert counts.to_dict() == {"method": 3 * 4, "task": 3 * 2, "seed": 4 * 2}


def test_members_of_a_mixture_are_compared_within_their_cell(mixed):
    rows = read_table(mixed, OVERLAP).query("measure == 'spearman' and aggregation == 'mean'")
    task = rows[rows["across"] == "task"]
    assert (task["cell_a"] == task["cell_b"]).all()
    ends = {("ioi", "agreement")}
    assert set(zip(task["subset_a"], task["subset_b"], strict=True)) == ends
    seed = rows[rows["across"] == "seed"]
    assert list(seed["subset_a"]) == list(seed["subset_b"])
    assert sorted(seed["subset_a"]) == ["agreement", "all", "ioi"]
    assert set(zip(seed["seed_a"], seed["seed_b"], strict=True)) == {(3, 1)}


def test_of_a_group_so_many_are_compared_of_all_methods_alike(run):
    least = len(read_table(run, OVERLAP).query("across == 'method'"))
    few = plan({**RAW, "measures": {"bootstrap": 0, "overlap": 3}})
    view = SimpleNamespace(
        plan=few,
        run=run,
        scores=lambda cell, *_: aggregate(run, cell.key, "mean"),
        committed=SimpleNamespace(aggregate=lambda key, how: aggregate(run, key, how)),
    )
    rows = pd.concat(Overlap(view, few.cells).frames()).query("across == 'method'")
    assert {*rows["method_a"], *rows["method_b"]} == {"eap", "exact", "acdc"}
    for _, group in rows.groupby(["task_a", "seed_a"]):
        assert len({*group["cell_a"], *group["cell_b"]}) == 3
    assert 0 < len(rows) < least


def test_the_circuit_of_a_search_meets_as_many_of_the_strongest(run):
    about, table = cells(run), read_table(run, OVERLAP)
    of_search = table[table["method_b"] == "acdc"].query("across == 'method'")
    mine = of_search[of_search["method_a"] == "eap"]
    assert len(mine)
    for row in mine.to_dict("records"):
        found = scores(run, row, "b")
        circuit = {i for i, s in enumerate(found) if s > about[row["cell_b"]]["tau"]}
        looked_at = [i for i, s in enumerate(found) if np.isfinite(s)]
        eap = np.abs(scores(run, row, "a"))
        strongest = set(sorted(looked_at, key=lambda i: (-eap[i], i))[: len(circuit)])
        expected = len(circuit & strongest) / len(circuit | strongest)
        assert (row["measure"], row["size"], row["n"]) == ("jaccard", len(circuit), len(looked_at))
        assert row["value"] == expected


def test_chance_is_the_mean_over_all_draws(run):
    for n, a, b in ((6, 2, 2), (7, 3, 5), (5, 5, 2), (4, 1, 1)):
        draws = itertools.product(
            itertools.combinations(range(n), a), itertools.combinations(range(n), b)
        )
        mean = np.mean([len(set(x) & set(y)) / len(set(x) | set(y)) for x, y in draws])
        assert jaccard_by_chance(n, a, b) == pytest.approx(mean)
    assert jaccard_by_chance(70651, 1000, 1000) == pytest.approx(
        1000 / (2 * 70651 - 1000), rel=0.01
    )
    rows = read_table(run, OVERLAP).query("measure == 'jaccard'")
    assert ((rows["chance"] > 0) & (rows["chance"] < 1)).all()
    assert (rows["size"] < rows["n"]).all()
