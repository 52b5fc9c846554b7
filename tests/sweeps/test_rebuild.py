"""Circuits of resampled build prompts are those that a sort of the resampled means gives, and what
is said of them follows from how they ran."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesweep.engine.evaluation import evaluate_circuits
from edgesweep.engine.graph import prune
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import make_patch
from edgesweep.storage import RunDirectory, layout, readers
from edgesweep.storage.layout import EVALUATIONS
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.storage.readers import Committed
from edgesweep.storage.tables import PAIRS, REBUILT, RESULTS, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.plan.rebuilding import build_weights
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.stages.rebuild import aggregated
from edgesweep.tasks import example_of
from tests.sweeps.helpers import DATA, contents, run_tiny, tiny, uncommit

N, SIZES = 3, (40, 150)
FILES = (*DATA, "rebuilt.parquet", "pairs.parquet")


def config(**changes: Any) -> dict[str, Any]:
    return tiny(
        sweep={"method": ["eap", "random", "eap_patch"]},
        evaluate={"threshold": list(SIZES), "metric": "kl", "ablation": "edge"},
        measures={"rebuild": N, "bootstrap": 20, **changes},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rebuild") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return out


def eap(run: RunDirectory) -> dict[str, Any]:
    return next(cell for cell in run.plan["cells"] if cell["method"] == "eap")


def test_circuits_are_those_of_resampled_means_and_are_run_as_any_others(finished):
    run = RunDirectory.open(finished)
    cell, committed = eap(run), Committed(run)
    _, scores = readers.scores(run, cell["key"])
    weights = build_weights(parse_config(config()), (4, 4))
    assert np.allclose(weights[:, :4].sum(1), 0.5), "every member keeps its share"
    assert len(np.unique(weights, axis=0)) == N
    model = load_model(resolve_model("tiny-random"))
    prompts = PromptRows(run, cell["dataset"], "eval", example_of)[0:2]
    values = committed.read(EVALUATIONS, layout.rebuilt(cell["key"], "values"))
    bits = committed.read(EVALUATIONS, layout.rebuilt(cell["key"], "ran"))
    for resample, shares in enumerate(weights):
        drawn = np.repeat(np.arange(8), np.rint(8 * shares).astype(int))
        means = np.abs(scores[drawn].astype(np.float64).mean(0))
        order = sorted(range(len(means)), key=lambda edge: (-means[edge], edge))
        masks = np.zeros((len(SIZES), len(means)), dtype=bool)
        for mask, size in zip(masks, SIZES, strict=True):
            mask[order[:size]] = True
            mask[:] = prune(model.graph, mask, both_sides=True)
        ran = np.unpackbits(bits[resample], axis=1, count=len(means)).view(bool)
        assert (ran == masks).all()
        patch = make_patch("counterfactual")
        found = evaluate_circuits(model, PromptBatch.make(prompts), masks, patch, ["kl"])["kl"]
        np.testing.assert_allclose(values[:2, resample, :, 0], found.T, rtol=1e-4, atol=1e-9)


def test_intervals_stand_around_what_was_measured(finished):
    run = RunDirectory.open(finished)
    results, table = read_table(run, RESULTS), read_table(run, REBUILT)
    assert set(table["method"]) == {"eap", "eap_patch"}, "no prompt changes a random order"
    assert (table["n_rebuilt"] == N).all()
    points = table[table["measure"] == "faithfulness"]
    both = points.merge(
        results, on=["cell", "metric", "subset", "threshold"], suffixes=("", "_there")
    )
    assert len(both) == len(points) == 2 * 5 * len(SIZES)
    np.testing.assert_allclose(both["value"], both["faithfulness"], atol=1e-12)
    areas = table[table["measure"] == "area_log"]
    assert len(areas) == 2 * 5
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_a_spread_is_that_of_the_resamples(finished):
    run = RunDirectory.open(finished)
    cell, table = eap(run), read_table(run, REBUILT)
    values = Committed(run).read(EVALUATIONS, layout.rebuilt(cell["key"], "values"))[..., 0]
    results = read_table(run, RESULTS).query("cell == @cell['key'] and subset == 'all'")
    for place, size in enumerate(SIZES):
        point = results[results["threshold"] == size].iloc[0]
        span = point["value_full"] - point["value_empty"]
        phi = (values[:, :, place].mean(0) - point["value_empty"]) / span
        row = table.query("cell == @cell['key'] and subset == 'all' and threshold == @size").iloc[0]
        assert row["spread_build"] == pytest.approx(phi.std(ddof=1) * np.sqrt(8 / 7))


def test_of_a_mixture_the_mean_of_its_tasks_and_the_worst_are_told(finished):
    """φ is as results have it; the mean of two spreads less than they do, the worst is one of
    them."""
    run = RunDirectory.open(finished)
    table, results = read_table(run, REBUILT), read_table(run, RESULTS)
    of = table.query("measure == 'faithfulness'").set_index(["cell", "threshold", "subset"])
    there = results.set_index(["cell", "threshold", "subset"])["faithfulness"]
    for (cell, size), rows in of.groupby(level=[0, 1]):
        rows = rows.droplevel([0, 1])
        tasks = rows.loc[["ioi", "agreement"]]
        assert rows.value["macro"] == pytest.approx(tasks.value.mean(), rel=1e-12)
        assert rows.value["macro"] == pytest.approx(there[cell, size, "macro"], rel=1e-9)
        assert rows.value["worst"] == tasks.value.min()
        assert rows.spread_build["macro"] <= tasks.spread_build.mean() * (1 + 1e-9)
        assert rows.low["macro"] <= rows.value["macro"] <= rows.high["macro"]


def test_a_pair_is_compared_once_on_the_same_resamples(finished):
    run = RunDirectory.open(finished)
    table, alone = read_table(run, PAIRS), read_table(run, REBUILT)
    assert len(table) == 5, "one a subset, of all tasks in the mean, of the worst"
    assert table["wins"].between(0, 1).all()
    area = alone[alone["measure"] == "area_log"].set_index(["cell", "subset"])["value"]
    for row in table.to_dict("records"):
        a, b = (area[row[end], row["subset"]] for end in ("cell_a", "cell_b"))
        assert row["value"] == pytest.approx(a - b)


@pytest.mark.parametrize("stage", ["rebuild", "rebuild_evaluate"])
def test_what_is_done_again_is_the_same(finished, tmp_path, stage):
    shutil.copytree(finished, tmp_path / "run")
    uncommit(tmp_path / "run", stage, lambda key: key.startswith("eap-"))
    assert run_tiny(tmp_path / "run", config()).exit_code == 0
    assert contents(tmp_path / "run", *FILES) == contents(finished, *FILES)


@pytest.mark.parametrize("aggregation", ["mean", "mean_abs", "rms", "max", "max_abs"])
def test_scores_are_aggregated_as_they_would_be_of_the_drawn_inputs(aggregation):
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(6, 9)).astype(np.float32)
    scores[2, 3] = np.nan
    counts = draw.multinomial(6, np.full(6, 1 / 6), size=4)
    blocks = [(0, scores[:4]), (4, scores[4:])]
    found = aggregated(counts / 6, blocks, aggregation)
    how = {
        "mean": lambda x: np.nanmean(x, 0),
        "mean_abs": lambda x: np.nanmean(np.abs(x), 0),
        "rms": lambda x: np.sqrt(np.nanmean(x**2, 0)),
        "max": lambda x: np.nanmax(x, 0),
        "max_abs": lambda x: np.nanmax(np.abs(x), 0),
    }
    for row, times in zip(found, counts, strict=True):
        drawn = np.repeat(scores.astype(np.float64), times, axis=0)
        np.testing.assert_allclose(row, how[aggregation](drawn))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"measures": {"rebuild": 1}}, "measures.rebuild: 1 is out of range; allowed: 0, or 2 and"),
        (
            {"measures": {"rebuild": 5}, "scores": {"keep": "none"}},
            "measures.rebuild: 5 ranks stored scores anew, and scores.keep is none; give scores.k",
        ),
        (
            {"measures": {"rebuild": 5}, "scores": {"keep": 0.1}},
            "measures.rebuild: 5 ranks stored scores anew, and scores.keep is 0.1; give scores.ke",
        ),
    ],
)
def test_what_cannot_be_ranked_anew_is_refused(changes, fault):
    with pytest.raises(ConfigError) as error:
        resolve(parse_config(tiny(**changes)))
    assert fault in str(error.value)
