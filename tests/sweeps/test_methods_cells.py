"""The cells of every method: which axes multiply them, and what is refused."""

import pytest

from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.stages.attribute import AttributeShard
from tests.sweeps.test_methods_sweep import config


def made(**changes):
    return make_plan(resolve(parse_config(config(**changes))))


def test_an_axis_multiplies_only_the_cells_of_methods_that_take_it():
    sweep = {"method": ["random", "exact", "acdc", "ig_inputs"], "rule": ["right", "midpoint"]}
    cells = made(sweep=sweep).cells
    found = [(c.method, c.steps, c.rule, c.tau, c.seed, c.candidates) for c in cells]
    looked_at = "12 of eap + 6 random"
    assert found == [
        ("random", None, "", None, 0, "all"),
        ("eap", None, "", None, None, "all"),  # it ranks the candidates
        ("exact", None, "", None, None, looked_at),
        ("acdc", None, "", 0.01, None, looked_at),
        ("acdc", None, "", 0.1, None, looked_at),
        ("ig_inputs", 2, "right", None, None, "all"),
        ("ig_inputs", 2, "midpoint", None, None, "all"),
    ]


def test_random_orders_are_cells_that_differ_in_their_seed():
    cells = made(sweep={"method": ["random", "eap"], "orders": 3}).cells
    assert [(c.method, c.seed) for c in cells] == [
        ("random", 0),
        ("random", 1_000_003),
        ("random", 2_000_006),
        ("eap", None),
    ]
    assert len({c.key for c in cells}) == 4


def test_candidates_are_ranked_by_eap_even_where_eap_cannot_use_the_metric():
    cells = made(sweep={"method": "exact", "build_metric": "kl"}).cells
    assert [(c.method, c.build_metric) for c in cells] == [("eap", "logit_diff"), ("exact", "kl")]


def test_a_search_has_all_inputs_in_one_shard_and_finds_one_circuit():
    plan = made(sweep={"method": ["acdc", "eap"]}, execution={"shard_inputs": 1})
    shards = [s for s in plan.stages["refine"] if isinstance(s, AttributeShard)]
    assert {(s.rows.start, s.rows.stop) for s in shards} == {(0, 4)}
    acdc = [c for c in plan.cells if c.method == "acdc"]
    assert [[(s.selection, s.threshold) for s in plan.circuits(c)] for c in acdc] == [
        [("value", 0.01)],
        [("value", 0.1)],
    ]


def test_greedy_circuits_are_of_edges_only():
    both = {"selection": ["greedy", "topk_abs"], "threshold": [3, 5]}
    plan = made(sweep={"method": ["eap", "node_ap"]}, evaluate=both)
    found = [{s.selection for s in plan.circuits(cell)} for cell in plan.cells]
    assert found == [{"greedy", "topk_abs"}, {"topk_abs"}]
    with pytest.raises(ConfigError, match=r"'greedy' builds .* 'node_ap' scores nodes; add topk_a"):
        made(sweep={"method": ["eap", "node_ap"]}, evaluate=both | {"selection": "greedy"})


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            {"method": "acdc", "task": "ioi+agreement"},
            r"sweep.task: method 'acdc' searches one task's circuit and cannot use the mixture "
            r"'ioi\+agreement'; give a list of tasks: \[ioi, agreement\]",
        ),
        ({"method": "eap_acdc", "candidates": "all"}, r"sweep.candidates: .*give \{top: N\}"),
        ({"candidates": {"top": 0}}, r"sweep.candidates.top: 0 is out of range; allowed: 1 or"),
        ({"tau": -1}, r"sweep.tau: -1 has -1; allowed: 0 or more"),
        (
            {"method": "ig_inputs", "rule": "trapezoid", "steps": 1},
            r"sweep.steps: 1 is too few for rule 'trapezoid'",
        ),
        ({"rule": "simpson"}, r"sweep.rule: 'simpson' is not known; allowed: midpoint, right"),
    ],
)
def test_what_a_method_cannot_use_is_refused(sweep, message):
    with pytest.raises(ConfigError, match=message):
        made(sweep=sweep)
