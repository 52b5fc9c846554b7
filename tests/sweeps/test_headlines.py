"""Which prompts choose a headline's circuit and which circuit they choose; how sizes compare at one
faithfulness; and that a run's tables are of its stored values."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from edgesweep.sweeps.plan.subsets import OVER_TASKS
from edgesweep.sweeps.tables.equal import _compared
from edgesweep.sweeps.tables.headlines import chosen, every_third
from edgesweep.sweeps.tables.percurve import InputCurve
from edgesweep.sweeps.tables.results import over_tasks

NAN, INF = float("nan"), float("inf")


def prompts(*told):
    return [SimpleNamespace(clean=(c,), patch=(p,), template=t) for c, p, t in told]


# --- who chooses ---------------------------------------------------------------------------------
def test_a_third_of_every_template_chooses():
    some = prompts(*((i, -i, "abcd"[i % 4]) for i in range(48)))
    chooses = every_third(some)
    assert chooses.sum() == 16
    for template in "abcd":
        mine = [c for c, p in zip(chooses, some, strict=True) if p.template == template]
        assert sum(mine) == 4
    assert (every_third(some) == chooses).all()


def test_mirrors_are_on_one_side():
    some = prompts((1, 2, "a"), (2, 1, "b"), (3, 4, "a"), (5, 6, "a"), (6, 5, "b"), (7, 8, "a"))
    chooses = every_third(some)
    assert chooses[0] == chooses[1]
    assert chooses[3] == chooses[4]
    assert 0 < chooses.sum() < 6


def test_one_prompt_does_both():
    assert every_third(prompts((1, 2, "a"))).tolist() == [True]
    assert every_third(prompts((1, 2, "a"), (2, 1, "a"))).all()


# --- what is chosen ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("phi", "n_edges", "place", "reached"),
    [
        ([0.1, 0.85, 0.9, 1.0], [5, 10, 20, 30], 1, True),
        ([0.9, 0.3, 0.9, 1.0], [5, 10, 20, 30], 2, True),  # the first was chance
        ([0.9, 1.5, 0.9, 1.0], [5, 10, 20, 30], 2, True),  # and so is what comes before overshoot
        ([0.9, 0.9], [0, 10], 1, True),  # no circuit without an edge
        ([0.1, 0.7, 0.6], [5, 10, 20], 1, False),
        ([0.1, 1.4], [5, 10], 0, False),  # overshoot is not the best
        ([NAN, 0.9], [5, 10], 1, True),
        ([1.4, 1.5], [5, 10], None, False),
        ([0.9, 0.9], [0, 0], None, False),
        ([NAN, NAN], [5, 10], None, False),
    ],
)
def test_the_circuit_that_may_be_quoted(phi, n_edges, place, reached):
    assert chosen(np.array(phi), np.array(n_edges), 0.8) == (place, reached)


# --- a mixture -----------------------------------------------------------------------------------
def test_phi_of_a_mixture_by_hand():
    """Two tasks of two prompts. The first circuit does a and half of b, the second is empty."""
    curve = InputCurve(
        {},
        pd.DataFrame({"n_edges": [7, 0]}),
        np.array([[4.0, 9.0], [2.0, 9.0], [1.0, 9.0], [0.0, 9.0]]),
        np.array([4.0, 2.0, 1.0, 1.0]),
        np.zeros(4),
        {"a": slice(0, 2), "b": slice(2, 4)},
    )
    even = curve.phi(np.full((1, 4), 0.25))
    assert {k: v[0].tolist() for k, v in even.items()} == {
        "a": [1.0, 0.0],
        "b": [0.5, 0.0],
        "macro": [0.75, 0.0],
        "worst": [0.5, 0.0],
        "all": [7 / 8, 0.0],
    }
    first = curve.phi(np.array([[1.0, 1.0, 1.0, 0.0]]))  # without the last prompt
    assert first["b"][0, 0] == 1
    assert curve.counts(np.array([True, True, True, False]))["b"] == 1
    alone = curve.of_member("b")
    assert alone.phi(np.full((1, 2), 0.5))["all"].tolist() == [[0.5, 0.0]]
    assert curve.member_of.tolist() == [0, 0, 1, 1]


def measured(phi, full=2.0):
    return {
        "value": phi * full,
        "value_full": full,
        "value_empty": 0.0,
        "faithfulness": phi,
        "n_inputs": 4,
    }


def test_rows_over_tasks_are_means_and_the_worst():
    found = over_tasks({"all": measured(0.8), "a": measured(1.0, 4.0), "b": measured(0.5, 1.0)})
    assert tuple(found) == OVER_TASKS
    assert found["macro"]["faithfulness"] == 0.75
    assert found["macro"]["value_full"] == 2.5
    assert found["worst"] == measured(0.5, 1.0)
    assert over_tasks({"all": measured(0.8)}) == {}  # a single task
    assert over_tasks({"a": measured(0.8), "b": measured(0.5)}) == {}  # one that is not whole
    unknown = over_tasks({"all": measured(0.8), "a": measured(NAN), "b": measured(0.5)})
    assert math.isnan(unknown["macro"]["faithfulness"])
    assert math.isnan(unknown["worst"]["faithfulness"])


# --- sizes at one faithfulness -------------------------------------------------------------------
def test_sizes_and_ratios_with_what_is_out_of_reach():
    edge = np.array([10.0, *[10.0] * 98, INF, INF])
    node = np.array([40.0, *[40.0] * 98, 40.0, INF])
    row = _compared(edge, node, 0.9)
    assert (row["edge"], row["node"], row["ratio"]) == (10, 40, 0.25)
    assert (row["ratio_low"], row["ratio_high"]) == (0.25, 0.25)
    assert _compared(node, edge, 0.98)["ratio_low"] == 0
    assert math.isnan(_compared(np.array([INF]), np.array([INF]), 0.9)["ratio"])
