"""A search for sizes finds what it says it finds: its circuits are measured as any others are, and
what it asks for does not hang on where it was interrupted."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import edgesweep as es
from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import CIRCUITS, REACH, RESULTS, read_table
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.plan.estimates import describe
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from tests.sweeps.helpers import DATA, contents, run_tiny, tiny, uncommit

LEVELS = (0.5, 0.8)


def config(**evaluate: Any) -> dict[str, Any]:
    of = {"threshold": [5, 40], "reach": {"faithfulness": list(LEVELS), "metric": "kl"}}
    return tiny(
        sweep={"task": "ioi", "method": ["eap", "acdc"], "tau": 0.05},
        evaluate={**of, **evaluate},
        measures={"bootstrap": 0},
        execution={"circuits_per_batch": 3},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reach") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return out


def tables(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers, and the points by KL of the cells that have some."""
    answers, points = (read_table(RunDirectory.open(run), t) for t in (REACH, RESULTS))
    mine = points["cell"].isin(answers["cell"]) & (points["metric"] == "kl")
    return answers, points[mine & (points["subset"] == "all")]


def test_an_answer_passes_with_all_larger_sizes_that_were_measured_and_its_neighbour_fails(
    finished,
):
    answers, points = tables(finished)
    assert answers["method"].unique().tolist() == ["eap"], "a search that ranks nothing has none"
    assert len(answers) == 2 * len(LEVELS)
    check_answers(answers, points)


def check_answers(answers, points):
    line = ["cell", "selection", "ablation"]
    for key, curve in points.groupby(line):
        mine = answers[(answers[line] == list(key)).all(axis=1)].set_index("level")
        assert curve["threshold"].is_unique
        for level in LEVELS:
            passes = (1 - curve["faithfulness"]).abs() <= 1 - level
            answer, size = mine.loc[level], curve["threshold"]
            assert answer["reached"]
            assert answer["threshold"] == answer["below"] + 1
            assert passes[size >= answer["threshold"]].all()
            assert not passes[size == answer["below"]].any()
            point = curve[size == answer["threshold"]].iloc[0]
            assert answer["circuit"] == point["circuit"]
            assert answer["faithfulness"] == point["faithfulness"]
            assert answer["n_edges"] == point["n_edges"]
            assert answer["n_measured"] == len(curve) - 2


def test_over_features_and_of_circuits_that_are_grown(tmp_path):
    """One run of heads and of features, by rank and as EAP-IG grows circuits."""
    sets = {"dictionaries": {"resid1": "identity"}, "keep": 200, "edges": 200}
    raw = config(selection=["topk_abs", "greedy"], ablation="edge", metric="kl")
    raw["sweep"] |= {"nodes": ["heads", "features"], "method": "eap"}
    assert run_tiny(tmp_path / "run", raw | {"features": sets}).exit_code == 0
    answers, points = tables(tmp_path / "run")
    assert len(answers) == 2 * 2 * len(LEVELS)
    check_answers(answers, points)
    possible = points.groupby("cell")["n_edges_possible"].first()
    assert (answers["n_edges_possible"] == answers["cell"].map(possible)).all()


def test_its_circuits_are_those_of_thresholds(finished, tmp_path):
    _, points = tables(finished)
    points = points[points["ablation"] == "edge"]
    raw = config(threshold=points["threshold"].tolist(), reach=None, ablation="edge", metric="kl")
    raw["sweep"]["method"] = "eap"
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    there = read_table(RunDirectory.open(tmp_path / "run"), RESULTS)
    same = ["circuit", "metric", "subset", "n_nodes", "n_edges"]
    both = points.merge(there, on=same, suffixes=("", "_there"))
    assert len(both) == len(points)
    np.testing.assert_allclose(both["value"], both["value_there"], rtol=1e-4, atol=1e-9)


def test_circuits_are_kept_of_answers_and_of_thresholds(finished):
    answers, _ = tables(finished)
    edges = read_table(RunDirectory.open(finished), CIRCUITS)
    of_ranking = edges[edges["cell"].isin(answers["cell"])]
    n = of_ranking.groupby("threshold").size()
    assert set(n.index) == {5, 40, *answers["threshold"]}
    assert (n == n.index).all()
    run = es.open(finished)
    for answer in answers[answers["ablation"] == "edge"].to_dict("records"):
        found = run.circuit("eap", phi=answer["level"], metric="kl", ran=True)
        assert len(found.edges) == answer["n_edges"]


def test_rounds_that_are_done_again_ask_for_the_same(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    uncommit(tmp_path / "run", "reach", lambda key: ".01." in key)
    assert run_tiny(tmp_path / "run", config()).exit_code == 0
    files = (*DATA, "reach.parquet")
    assert contents(tmp_path / "run", *files) == contents(finished, *files)


def test_a_dry_run_says_what_a_search_may_cost():
    told = describe(make_plan(resolve(parse_config(config()))))
    # of 343 edges the widest gap is 303: six thirds of it are one edge
    assert "reach: 2 searches for 0.5, 0.8, 4 circuits a round, at most 48 circuits" in told


@pytest.mark.parametrize(
    ("reach", "fault"),
    [
        ({"faithfulness": 1.0}, "evaluate.reach.faithfulness: 1.0 is out of range; allowed: more"),
        ({"metric": "js"}, "has metric 'js', which evaluate.metric does not measure; allowed: log"),
        ({"levels": 0.8}, "unknown key 'evaluate.reach.levels'; allowed: faithfulness, metric,"),
        ({"within": 1}, "evaluate.reach.within: 1 is out of range; allowed: 0 or more and less"),
        (0.8, "evaluate.reach: 0.8 is not a mapping of keys"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(reach, fault):
    with pytest.raises(ConfigError, match="reach") as error:
        parse_config(config(reach=reach))
    assert fault in str(error.value)
