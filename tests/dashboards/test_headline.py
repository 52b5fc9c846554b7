"""What a page may claim, on tables made by hand."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.headline import condition, headline, leading
from edgesweep.dashboards.report import render
from edgesweep.dashboards.sections.equal import section, verdict
from edgesweep.dashboards.series import menus
from edgesweep.dashboards.summary import summary
from tests.dashboards import made
from tests.dashboards.made_run import make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("headline") / "run"
    make_run(out)
    return load_run(out)


def of_a_mixture(data, **phi):
    """The same run of two tasks, with φ by subset in place of what it has."""
    both = "ioi+agreement"
    rows = [data.headlines.assign(subset=s, faithfulness=v) for s, v in phi.items()]
    results = [data.results.assign(subset=s) for s in phi]
    cells = [{**cell, "task": both} for cell in data.plan["cells"]]
    return dataclasses.replace(
        data,
        plan={**data.plan, "cells": cells},
        results=pd.concat(results).assign(task=both),
        headlines=pd.concat(rows).assign(task=both),
    )


MIXED = {"macro": 0.76, "worst": 0.55, "ioi": 0.97, "agreement": 0.55, "all": 0.83}


def plain(text):
    return re.sub(r"<[^>]*>", "", text)


# --- one condition -------------------------------------------------------------------------------
def test_the_condition_is_the_first_of_each_axis_and_not_the_best(data):
    """EAP is the first that ranks, and not the best; of metrics KL leads."""
    rows = condition(data)
    assert set(rows["cell"]) == {made.key_of("eap")}
    assert set(rows["ablation"]) == {"edge"}
    assert set(rows["metric"]) == {"kl"}
    best = data.results.sort_values("faithfulness").iloc[-1]
    assert best["cell"] != made.key_of("eap")
    assert "the first of each axis; none was picked for its result" in plain(summary(data))


def test_the_config_names_it(data):
    named = {"method": "exact", "ablation": "node", "metric": "logit_diff"}
    config = {**data.config, "report": {"headline": named}}
    told = dataclasses.replace(data, config=config)
    row = headline(told).row
    assert {name: row[name] for name in named} == named
    assert "conditions, which the config names" in plain(summary(told))
    assert leading(told)["circuit"] == row["circuit"]


def test_a_search_of_one_circuit_makes_no_headline(data):
    config = {**data.config, "report": {"headline": {"method": "acdc"}}}
    told = dataclasses.replace(data, config=config)
    assert headline(told) is None
    assert "says nothing of how faithful a circuit is" in summary(told)


# --- what is claimed -----------------------------------------------------------------------------
def test_a_circuit_with_its_interval_and_who_chose_it(data):
    text = plain(summary(data))
    phi = 1 - np.exp(-80 * made.quality(made.key_of("eap")) / 40)
    assert f"80 of {made.N} edges" in text
    assert f"keep {100 * phi:.0f}% [" in text
    assert "on 5 prompts that were used neither to rank edges nor to choose it" in text
    assert "the smallest measured circuit from which on all reach φ ≥ 0.8 in the mean" in text
    assert "on 3 other prompts" in text


def test_of_a_mixture_every_task_then_the_mean_and_the_worst_then_all_prompts(data):
    text = plain(summary(of_a_mixture(data, **MIXED)))
    text = re.sub(r" \[[^]]*\]", "", text)  # without intervals
    each = ("97% on ioi", "55% on agreement")
    over_tasks = ("76% in the mean over tasks", "55% on the worst", "pooled 83%")
    places = [text.index(words) for words in (*each, *over_tasks)]
    assert places[2:] == sorted(places[2:])
    assert max(places[:2]) < places[2]
    found = menus(of_a_mixture(data, **MIXED).results)
    subsets = next(m for m in found if m.name == "subset")
    assert list(subsets.options) == ["macro", "worst", "ioi", "agreement", "all"]
    assert subsets.chosen == "macro"
    assert subsets.options["worst"] == "worst task"


def test_prompts_that_chose_it_too_are_said_to(data):
    told = data.headlines.assign(chosen_on="all", n_choosing=8, n_inputs=8)
    text = plain(summary(dataclasses.replace(data, headlines=told)))
    assert "on 8 prompts that were not used to rank edges, but chose it too" in text


def test_a_level_that_no_circuit_reaches_is_said_to_be_missed(data):
    told = data.headlines.assign(reached=False)
    text = plain(summary(dataclasses.replace(data, headlines=told)))
    assert "No measured circuit reaches φ ≥ 0.8 on 3 other prompts and stays there" in text


# --- what is not ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("phi", "reason"),
    [
        (1.3, "it does more than the model itself (φ = 1.30)"),
        (-0.2, "it is no better than the empty circuit (φ = -0.20)"),
        (0.0, "it is no better than the empty circuit (φ = 0.00)"),
        (np.nan, "its faithfulness is not defined"),
    ],
)
def test_overshoot_and_nothing_are_no_headline(data, phi, reason):
    told = dataclasses.replace(data, headlines=data.headlines.assign(faithfulness=phi))
    text = plain(summary(told))
    assert "Nothing is claimed of the leading circuit" in text
    assert reason in text
    assert "keep" not in text


def test_a_model_that_cannot_do_a_task_makes_none(data):
    skill = {"event": "skill", "model": "toy-lm", "task": "ioi", "accuracy": 0.5, "logit_diff": 0.1}
    told = dataclasses.replace(data, log=(skill,))
    assert "toy-lm cannot do ioi, so no circuit explains how it does" in plain(summary(told))
    mixed = dataclasses.replace(of_a_mixture(data, **MIXED), log=(skill,))
    assert headline(mixed).objection
    other = dataclasses.replace(data, log=({**skill, "task": "another"},))
    assert not headline(other).objection


def test_without_rows_nothing_is_said(data):
    none = dataclasses.replace(data, headlines=data.headlines.iloc[:0])
    assert headline(none) is None
    assert "says nothing of how faithful a circuit is" in summary(none)
    assert leading(none)["n_edges"] == made.N  # what menus begin with
    bare = dataclasses.replace(none, results=data.results.iloc[:0])
    assert leading(bare) is None


# --- edge against node ablation ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.2, 0.9, "yes"),
        (1.1, 3.0, "no"),
        (0.9, 1.1, "open"),
        (np.nan, np.nan, "open"),
        (2, np.inf, "no"),
    ],
)
def test_edge_ablation_needs_less_where_the_whole_interval_says_so(low, high, word):
    assert verdict({"ratio_low": low, "ratio_high": high}) == word


def test_both_counts_stand_side_by_side(data):
    (found,) = section(data)
    note = plain(found.note)
    assert "by edges that holds for 9 of 9, does not for 0, and is open for 0" in note
    assert "by nodes that holds for 0 of 9, does not for 0, and is open for 9" in note
    (table,) = found.parts
    assert table.head[:2] == ["method", "φ"]
    row = plain("|".join(table.rows[0])).replace("&nbsp;", " ")
    edges = "1513 to more|4543 to more|0.330.25 to 0.5|yes"
    assert f"|0.5|{edges}|1513 to more|1513 to more|10.8 to 1.3|open" in row
    assert "Edge against node ablation" in render(data)


def test_what_is_not_reached_is_said_to_be(data):
    gone = data.equal_phi.assign(edge=np.inf, node=2.0, ratio=np.inf)
    (found,) = section(dataclasses.replace(data, equal_phi=gone))
    row = "|".join(found.parts[0].rows[0])
    assert "not reached" in row
    assert "≤ 2" in row  # below the smallest that was measured
    assert not list(section(dataclasses.replace(data, equal_phi=gone.iloc[:0])))
