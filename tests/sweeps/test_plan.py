"""Plans: canonical names, cells, shards, what belongs to the identity, and what a run will cost."""

import pytest

from edgesweep.engine.graph import EdgeGraph
from edgesweep.sweeps.config.load import load_config, parse_config
from edgesweep.sweeps.plan import estimates
from edgesweep.sweeps.plan.canonical import canonical, digest, slug
from edgesweep.sweeps.plan.estimates import describe, estimate
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.stages.attribute import AttributeShard
from edgesweep.sweeps.stages.evaluate import EvaluateShard
from edgesweep.sweeps.stages.reduce import ReduceShard
from tests.sweeps.helpers import BLOCKS, tiny


def plan(**changes) -> Plan:
    return make_plan(resolve(parse_config(tiny(**changes))))


def test_equal_values_have_equal_canonical_json():
    assert canonical({"b": 8.0, "a": (1, "x")}) == '{"a":[1,"x"],"b":8}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2.0, "a": 1})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


def test_slugs_are_file_names():
    assert slug("ioi/t 0/15") == "ioi-t-0-15"
    assert slug("..") == "x"


def test_steps_multiply_only_the_cells_of_methods_that_take_them():
    cells = plan(sweep={"steps": [2, 5], "task": ["ioi", "agreement"]}).cells
    found = [(c.task, c.method, c.steps, c.rule) for c in cells]
    per_task = [("eap", None, ""), ("ig_inputs", 2, "midpoint"), ("ig_inputs", 5, "midpoint")]
    assert found == [(task, *rest) for task in ("ioi", "agreement") for rest in per_task]
    assert len({c.key for c in cells}) == len(cells)


EXECUTION_ONLY = {
    "executor": "ray",
    "address": "ray://there",
    "actors": 7,
    "num_gpus": 1,
    "gpus_per_actor": 4,
    "memory_gb": 3,
    "max_attempts": 9,
    "max_slot_deaths": 50,
    "work_timeout_s": 5,
    "start_timeout_s": "none",
    "max_lost": 3,
    "backup": True,
    "graph_tool": "/usr/bin/python3",
}
NUMERICS = {"threads": 2, "micro_batch": 4, "circuits_per_batch": 3, "dtype": "float64"}


@pytest.mark.parametrize("key", EXECUTION_ONLY)
def test_how_it_runs_is_no_identity(key):
    changes = {key: EXECUTION_ONLY[key]}
    if key == "max_slot_deaths":
        changes["max_attempts"] = 2
    assert plan(execution=changes).run_id == plan().run_id


@pytest.mark.parametrize("key", NUMERICS)
def test_what_changes_bits_is_identity(key):
    assert plan(execution={key: NUMERICS[key]}).run_id != plan().run_id


@pytest.mark.parametrize(
    "changes",
    [
        {"sweep": {"method": "eap"}},
        {"sweep": {"steps": 6}},
        {"evaluate": {"threshold": [5, 41]}},
        {"data": {"n_eval": 6}},
        {"data": {"mean_over": "clean"}},
        {"blocks": BLOCKS},
    ],
)
def test_what_changes_numbers_is_identity(changes):
    assert plan(**changes).run_id != plan().run_id


def test_one_value_and_a_list_of_it_are_one_run():
    assert plan(sweep={"steps": 5}).run_id == plan(sweep={"steps": [5]}).run_id
    assert plan(sweep={"steps": "5"}).run_id == plan(sweep={"steps": [5]}).run_id


def test_shards_never_mix_members_and_fill_chunks():
    made = plan(data={"n_build": 6, "n_eval": 3}, execution={"shard_inputs": 2})
    dataset = made.dataset(made.cells[0])
    shards = [s for s in made.stages["attribute"] if isinstance(s, AttributeShard)]
    mine = [s for s in shards if s.cell == made.cells[0]]
    assert [(s.index, s.rows.start, s.rows.stop) for s in mine] == [
        (i, 2 * i, 2 * i + 2) for i in range(6)
    ]
    for shard in mine:
        prompts = dataset.data.build[shard.rows.start : shard.rows.stop]
        assert {p.task for p in prompts} == {shard.rows.member}
    folds = [s for s in made.stages["reduce"] if isinstance(s, ReduceShard)][:3]
    assert [s.subset for s in folds] == ["all", "ioi", "agreement"]
    assert folds[0].leaves == folds[1].leaves + folds[2].leaves
    assert made.shard_rows(dataset, "eval", made.nodes(made.cells[0])) in (1, 3)


def test_keys_are_unique_and_can_be_file_names():
    made = plan(
        blocks=BLOCKS,
        evaluate={
            "eval_patch": ["counterfactual", "mean"],
            "selection": ["topk_abs", "abs"],
            "reach": {},
        },
        data={"mean_positions": "pooled", "n_build": 140},
        sweep={"task": "ioi", "method": ["eap", "exact"], "candidates": {"top": 3}},
        measures={"minimality": 5, "interpolate": 2, "rewired": 2, "rebuild": 2},
    )
    mixed = plan(
        blocks={"fit": "flat"},
        sweep={"task": "ioi+agreement", "nodes": "features", "method": "ig_activations"},
        features={"dictionaries": {"resid1": {"kind": "topk"}}, "position_shards": 2},
    )
    parted = plan(
        sweep={"task": "ioi+agreement", "nodes": "features", "method": "eap"},
        features={
            "dictionaries": {"resid*": "identity"},
            "regions": {"partition": "ward", "blocks": 3},
        },
    )
    of_regions = {"feature_moments", "feature_partitions"}
    assert all(parted.stages[stage] for stage in of_regions)
    beside = made.stages.keys() & {
        *of_regions,
        *("moments", "jacobians", "rotations", "interaction_sums", "interactions"),
        *("edges_needed", "directions", "labels", "modules", "layer_blocks", "network_scores"),
        *("unit_means", "unit_moments", "unit_ties", "region_chains", "partitions"),
        *("region_ablation", "region_views", "region_judge"),
    }
    empty = [{stage for stage, shards in p.stages.items() if not shards} for p in (made, mixed)]
    lacks = [found - beside for found in empty]
    assert lacks[0] == {"dictionaries", "block_evaluate", "nulls", "random_blocks"}
    assert not lacks[0] & lacks[1]
    plans = made, mixed, parted
    for shards in (shards for p in plans for shards in p.stages.values()):
        keys = [s.key for s in shards]
        assert len(set(keys)) == len(keys)
        assert all(slug(key, 200) == key for key in keys)


def test_circuits_are_evaluated_in_groups():
    made = plan(execution={"circuits_per_batch": 2}, evaluate={"threshold": [1, 2, 3, 4, 5]})
    shards = [s for s in made.stages["evaluate"] if isinstance(s, EvaluateShard)]
    sizes = {(s.index, len(s.circuits)) for s in shards}
    assert sizes == {(0, 2), (1, 2), (2, 1)}


def test_block_ablations_are_for_mixtures():
    assert plan(blocks=BLOCKS).stages["block_evaluate"]
    alone = plan(blocks=BLOCKS, sweep={"task": "ioi"})
    assert alone.stages["blocks"]
    assert not alone.stages["block_evaluate"]


def test_the_plan_is_a_function_of_the_config():
    assert plan(blocks=BLOCKS).document() == plan(blocks=BLOCKS).document()


def test_a_dry_run_counts_passes_and_bytes():
    made = plan()
    cost = estimate(made)
    # 8 build prompts in shards of 2: eap 2 forwards and 1 backward, ig_inputs 7 and 5, each 4 times
    backwards = 4 * 1 + 4 * 5
    attribution = 4 * 2 + 4 * 7
    references = 4 * 3
    # 2 cells x 2 ablations x 4 blocks of inputs x (2 circuits + the patch run)
    assert (cost.forwards, cost.backwards) == (attribution + references + 2 * 2 * 4 * 3, backwards)
    assert "cells: 2" in describe(made)
    assert f"shards: {sum(map(len, made.stages.values()))}" in describe(made)


def test_a_dry_run_says_what_scores_take_stored_in_other_ways(monkeypatch):
    made = plan()
    whole = sum(4 * 8 * made.n_scores(cell) for cell in made.cells)
    line = next(line for line in describe(made).splitlines() if line.startswith("scores: "))
    assert line.startswith(f"scores: {whole / 1e3:.3g} kB with keep all, bits 23, codec none (and ")
    assert line.endswith("0 bytes with keep none)")
    assert "suggested" not in describe(made)
    monkeypatch.setattr(estimates, "MUCH_BYTES", whole - 1)
    assert "--set scores.bits=7 --set scores.codec=lz4 is suggested" in describe(made)
    assert "suggested" not in describe(plan(scores={"keep": 0.1}))


def test_a_dry_run_says_what_lies_on_which_gpu():
    line = describe(plan(execution={"gpus_per_actor": 2})).splitlines()[-1]
    assert line == (
        "tiny-random over 2 of an actor's 2 GPUs: GPU 0: embed to layer 1, 111 kB; "
        "GPU 1: layer 2 to unembed, 111 kB"
    )
    assert "GPU" not in describe(plan())


def test_the_demo_is_what_the_readme_says():
    made = make_plan(resolve(load_config("demo")))
    assert EdgeGraph(made.model(made.cells[0]).source.spec).n_edges == 70651
    assert [c.method for c in made.cells] == ["ig_inputs", "eap"]
    assert len(made.circuits(made.cells[0])) == 10
    assert (made.config.data.n_build, made.config.data.n_eval) == (32, 24)
    assert made.circuits(made.cells[0])[-1].threshold == 70651  # the curve ends at the model
    assert sum(made.has_blocks(c) for c in made.cells) == 1
