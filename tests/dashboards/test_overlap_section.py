"""What methods, tasks and draws of the prompts share, as the page shows it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.sections import overlap
from edgesweep.dashboards.sections.overlap import FOUND, RANKS, overlap_figures
from edgesweep.dashboards.sections.skill import skill_table
from edgesweep.dashboards.skills import skills
from tests.dashboards import made
from tests.dashboards.made_run import make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "run"
    make_run(out)
    return load_run(out)


def test_methods_against_each_other_are_symmetric(data):
    figures = overlap_figures(data)
    assert list(figures) == [RANKS, *(f"overlap of the top {n}" for n in made.SIZES[:3])]
    heat = figures[RANKS].data[0]
    values, names = np.asarray(heat.z, float), list(heat.x)
    assert np.allclose(values, values.T, equal_nan=True)
    assert np.diag(values) == pytest.approx(1)
    expected = made.spearman(made.key_of("eap"), made.key_of("exact"))
    assert values[names.index("EAP"), names.index("exact patching")] == pytest.approx(expected)
    assert np.isnan(values[names.index("EAP"), names.index("node AP")])
    assert names[-4:] == ["node AP", "node IG ×5", "exact node patching", "HISP"]
    top = np.asarray(figures["overlap of the top 20"].data[0].z, float)
    shared = made.jaccard(made.key_of("eap"), made.key_of("exact"), 20)
    assert top[names.index("exact patching"), names.index("EAP")] == pytest.approx(shared)


def across(kind, a, b, value):
    """A row of EAP between two (subset, seed) of one mixture."""
    eap, ends = made.key_of("eap"), {}
    for end, (subset, seed) in (("a", a), ("b", b)):
        about = {"cell": eap, "method": "eap", "task": "ioi+agreement"}
        about |= {"subset": subset, "seed": seed}
        ends |= {f"{name}_{end}": found for name, found in about.items()}
    measured = {"measure": "jaccard", "size": 20, "value": value, "chance": 0.05, "n": 400}
    return {"across": kind, "model": "toy-lm", "aggregation": "mean", **ends, **measured}


def test_tasks_and_draws_are_set_against_each_other_method_by_method(data):
    rows = [
        across("task", ("ioi", 0), ("agreement", 0), 0.2),
        across("task", ("ioi", 1), ("agreement", 1), 0.4),
        {**across("seed", ("all", 0), ("all", 1), 0.7), "chance": 0.001},
        across("seed", ("ioi", 0), ("ioi", 1), 0.8),
    ]
    mixed = dataclasses.replace(data, overlap=pd.DataFrame(rows))
    (tasks,) = overlap_figures(mixed, "task").values()
    (draws,) = overlap_figures(mixed, "seed").values()
    assert not overlap_figures(mixed, "method")
    heat = tasks.data[0]
    assert (list(heat.x), list(heat.y)) == (["ioi · agreement"], ["EAP"])
    assert np.asarray(heat.z, float) == pytest.approx(0.3)
    assert heat.text[0][0] == "0.30<br>(0.05)"
    assert draws.data[0].text[0][0] == "0.70<br>(&lt;0.01)"
    assert list(heat.customdata[0][0]) == pytest.approx([0.05, 400, 2])
    assert list(draws.data[0].x) == ["ioi+agreement", "ioi"]
    assert np.asarray(draws.data[0].z, float)[0] == pytest.approx([0.7, 0.8])
    (section,) = overlap.section(mixed)
    assert "with each of the seeds 0, 1" in section.html()
    assert section.title == "Methods, tasks and draws"


def test_the_circuit_of_a_search_has_a_figure_of_its_own(data):
    row = across("method", ("all", 0), ("all", 0), 0.5)
    row |= {"cell_b": made.key_of("acdc"), "method_b": "acdc", "size": 60}
    found = overlap_figures(dataclasses.replace(data, overlap=pd.DataFrame([row])))
    assert list(found) == [FOUND]
    assert list(found[FOUND].data[0].y) == ["EAP", "ACDC · τ 0.01"]
    assert np.asarray(found[FOUND].data[0].z, float)[0, 1] == 0.5


def test_what_the_model_can_do_is_told_of_every_draw(data):
    said = {"event": "skill", "model": "toy-lm", "task": "ioi", "logit_diff": 2.0}
    log = tuple({**said, "seed": seed, "accuracy": 1 - seed / 2} for seed in (0, 1))
    assert [row["accuracy"] for row in skills(dataclasses.replace(data, log=log))] == [1, 0.5]
    assert "seed" in skill_table(dataclasses.replace(data, log=log)).head
    assert "seed" not in skill_table(dataclasses.replace(data, log=log[:1])).head
