"""The sections that compare methods say what the tables say, of a run made by hand."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.figures import estimate
from edgesweep.dashboards.figures.areas import area_figure
from edgesweep.dashboards.figures.estimate import drawn, estimate_figure
from edgesweep.dashboards.figures.roc import in_out_figure
from edgesweep.dashboards.figures.scores import histogram_figure
from edgesweep.dashboards.kinds import Kind
from edgesweep.dashboards.names import METHODS, cell_names, method_names
from edgesweep.dashboards.report import render, write_report
from edgesweep.dashboards.sections import interpolation
from edgesweep.dashboards.sections.estimates import pairs
from edgesweep.dashboards.sections.known import MAX_CURVE_POINTS, thinned_curve
from edgesweep.dashboards.sections.methods import curve_measures
from edgesweep.dashboards.sections.scores import uncounted
from edgesweep.dashboards.series import complements, menus, told_to_menus, with_series
from edgesweep.dashboards.style import IN_THE_DARK, METHOD_MARKS, SPARE_COLOURS, marks
from edgesweep.storage import tables
from tests.dashboards import made
from tests.dashboards.browsing import open_page
from tests.dashboards.made_run import make_run
from tests.dashboards.made_tables import TABLES, areas

KINDS = {"heads": Kind()}
SECTIONS = (
    *("completeness", "methods", "overlap", "known", "in-out", "estimate"),
    *("interpolation", "minimality"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "run"
    make_run(out)
    return out


@pytest.fixture(scope="module")
def data(path):
    return load_run(path)


# --- names and marks ---------------------------------------------------------------------------


def test_cells_are_told_apart_by_what_varies_within_their_method():
    found = cell_names(made.cells(), KINDS)
    assert len(set(found.values())) == len(found)
    assert found[made.key_of("eap")] == "EAP"
    assert found[made.key_of("ig_inputs", steps=20)] == "IG inputs ×20 · right Riemann rule"
    assert found[made.key_of("ig_activations")] == "IG activations ×5"  # has one rule
    assert found[made.key_of("acdc", tau=0.1)] == "ACDC · τ 0.1"
    assert found[made.key_of("eap_acdc")] == "EAP then ACDC"  # has one τ
    some = [{**c, "candidates": k} for c in made.cells()[:1] for k in ("all", made.CANDIDATES)]
    some = [{**c, "key": c["candidates"]} for c in some]
    assert cell_names(some, KINDS)[made.CANDIDATES] == "EAP · 150 of EAP + 50 random"


def test_all_tau_of_a_search_make_one_line(data):
    names = method_names(made.cells(), KINDS)
    assert names[made.key_of("acdc", tau=0.01)] == names[made.key_of("acdc", tau=0.1)] == "ACDC"
    lines = with_series(data.results).groupby("series")["circuit"].nunique()
    assert lines["ACDC"] == 2
    assert set(with_series(data.results)["variant"]) == {""}  # its selection is no choice


def test_a_circuit_of_nodes_says_so_and_a_search_has_no_threshold(data):
    names = data.circuit_names
    assert names[f"{made.key_of('node_ap')}-80"] == "node AP · top 80 nodes"
    assert names[f"{made.key_of('eap')}-80"] == "EAP · top 80"
    assert names[f"{made.key_of('acdc')}-80"] == "ACDC · τ 0.01"


def test_every_method_has_a_mark_of_its_own_in_both_schemes():
    assert set(METHOD_MARKS) == set(METHODS)
    assert len({m.colour for m in METHOD_MARKS.values()}) == len(METHODS) == 16
    assert len({IN_THE_DARK[m.colour] for m in METHOD_MARKS.values()}) == 16
    assert METHOD_MARKS["random"].colour == "#8A8F96"


def test_further_steps_of_a_method_take_spare_colours():
    found = marks({"IG ×5": "ig_inputs", "IG ×20": "ig_inputs", "EAP": "eap", "new": "unheard of"})
    assert found["IG ×5"] == METHOD_MARKS["ig_inputs"]
    assert found["IG ×20"].colour == SPARE_COLOURS[0]
    assert len({m.colour for m in found.values()}) == 4


# --- what a run holds --------------------------------------------------------------------------


@pytest.mark.parametrize("without", [(), tuple(t for t in TABLES if t != "results")])
def test_tables_are_read_as_written_and_missing_ones_are_empty(tmp_path, without):
    run = make_run(tmp_path / "run", without=without)
    found = load_run(run.path)
    for name in ("measures", "roc", "overlap", "minimality", "interpolation", "known"):
        table = getattr(found, name)
        assert set(getattr(tables, name.upper()).columns) <= set(table)
        assert table.empty == (name in without)
    text = render(found)
    for section in SECTIONS[1:]:
        assert (f"<section id='{section}'>" in text) == (not without or section == "estimate")


def test_a_cell_that_is_not_reduced_yet_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", unreduced=made.key_of("exact"))
    found = load_run(run.path)
    assert set(made.CELLS) - set(found.histograms) == {made.key_of("exact")}
    assert "<section id='known'>" in render(found)


def test_scores_are_counted_as_what_they_are():
    scores = np.array([0.0, 1.0, np.nan, np.nan, np.inf])
    assert uncounted(scores, some=True) == (1, 2, 1)
    assert uncounted(scores, some=False) == (1, 0, 3)
    few = histogram_figure(np.array([0.5, -0.1, 0.1]), "nodes")  # as few as a small model's nodes
    assert sum(np.nansum(t.y) for t in few.data) == 3
    assert few.layout.yaxis.title.text == "number of nodes"


def test_the_page_tells_scores_that_were_not_measured_from_bad_ones(data):
    unmeasured = sum(
        int(np.isnan(v).sum())
        for k, v in made.SCORES.items()
        if made.CELLS[k]["candidates"] != "all" or made.CELLS[k]["tau"] is not None
    )
    assert f"{unmeasured:,} of edges that were not measured, and 2 that are not finite" in render(
        data
    )


def test_no_two_parts_of_the_page_have_one_id(data):
    text = render(data).split("</script>", 1)[1]
    ids = re.findall(r"<[^>]* id='([^']+)'", text)
    assert len(ids) == len(set(ids))


# --- completeness ------------------------------------------------------------------------------


def test_complements_stand_at_the_size_of_their_circuit_and_in_no_other_figure(data):
    table = complements(data.results)
    assert len(table) == (data.results["blocks"] == "complement").sum()
    whole = data.results[data.results["blocks"] == "all"].set_index(
        ["circuit", "ablation", "metric"]
    )
    for row in table.itertuples():
        own = whole.loc[(row.circuit, row.ablation, row.metric)]
        assert row.n_edges == own["n_edges"]
        assert row.faithfulness == pytest.approx(1 - own["faithfulness"])
    assert set(with_series(data.results)["blocks"]) == {"all"}
    assert "Blocks of" not in render(data)  # a complement is no block ablation


def test_a_crowd_of_methods_begins_with_one_ablation(data):
    found = {m.name: m for m in menus(data.results, with_series(data.results).iloc[0])}
    assert found["ablation"].chosen == "edge"
    few = data.results[data.results["method"].isin(["eap", "exact"])]
    assert "ablation" not in {m.name for m in menus(few)}


# --- methods compared --------------------------------------------------------------------------


def test_a_curve_has_its_measures_and_its_cells_cost(data):
    table = curve_measures(data.measures).set_index(["cell", "ablation", "metric"])
    for key in ("eap", "exact", "acdc"):
        row = table.loc[(made.key_of(key), "edge", "kl")]
        for name, value in areas(made.key_of(key)).items():
            assert row[name] == pytest.approx(value, nan_ok=True)
        assert row["cost"] == made.COST[made.key_of(key)]
        assert row["low"] == pytest.approx(row["area_log"] - 0.03)
    assert table.loc[(made.key_of("exact"), "edge", "kl"), "all_edges"] == made.N + 1
    assert np.isnan(table.loc[(made.key_of("eap"), "edge", "kl"), "all_edges"])
    assert table.loc[(made.key_of("eap"), "edge", "kl"), "stability"] == 0.9
    assert np.isnan(table.loc[(made.key_of("acdc"), "edge", "kl"), "stability"])
    assert list(table["area_log"]) == sorted(table["area_log"], reverse=True)


def test_areas_are_drawn_with_their_intervals(data):
    table = curve_measures(data.measures).assign(variant="", series=lambda t: t["method_name"])
    figure = area_figure(table, ["metric"], data.marks)
    trace = next(t for t in figure.data if t.meta == {"metric": "kl"} and t.name == "edge ablation")
    drawn_areas = dict(zip(trace.y, trace.x, strict=True))
    assert drawn_areas["EAP"] == pytest.approx(areas(made.key_of("eap"))["area_log"])
    assert np.asarray(trace.error_x.array) == pytest.approx(0.06)
    assert np.asarray(trace.error_x.arrayminus) == pytest.approx(0.03)
    assert trace.marker.color[list(trace.y).index("EAP")] == METHOD_MARKS["eap"].colour


def test_menus_choose_only_by_what_the_results_have(data):
    table = pd.DataFrame({"metric": ["kl"], "aggregation": [""], "task": ["another"]})
    assert told_to_menus(table, data.results) == ["metric", "aggregation"]
    assert told_to_menus(table, data.results.iloc[:0]) == ["aggregation"]


# --- against a known circuit -------------------------------------------------------------------


def test_true_edges_and_nodes(data):
    for key in ("eap", "node_ap", "exact"):
        assert (data.true(made.key_of(key)) == made.truth(made.key_of(key))).all()
    unknown = dataclasses.replace(data, known=data.known.assign(task="another"))
    assert len(unknown.true(made.key_of("eap"))) == 0


def test_thinned_curves_keep_their_ends():
    rows = pd.DataFrame({"point": np.arange(50_000)})
    kept = thinned_curve(rows)["point"]
    assert len(kept) <= MAX_CURVE_POINTS
    assert (kept.iloc[0], kept.iloc[-1]) == (0, 49_999)
    assert (kept < 100).sum() > 30  # the strongest edges are where curves differ
    assert len(thinned_curve(rows.head(10))) == 10


def test_scores_in_and_out_are_all_counted():
    scores = np.append(np.random.default_rng(0).normal(size=500), [np.nan, np.inf])
    true = np.arange(502) % 5 == 0
    outside, inside = in_out_figure(scores, true).data
    assert sum(inside.y) == (true & np.isfinite(scores)).sum()
    assert sum(outside.y) == (~true & np.isfinite(scores)).sum()
    assert sum(in_out_figure(scores, true & False).data[1].y) == 0


# --- estimates, single edges -------------------------------------------------------------------


def test_estimates_are_paired_with_the_patching_of_their_kind(data):
    found = {p.cell: p for p in pairs(data)}
    assert made.key_of("eap") in found
    assert not {made.key_of(m) for m in ("exact", "acdc", "eap_acdc", "random")} & set(found)
    assert found[made.key_of("node_ap")].reference == made.key_of("node_exact")
    pair = found[made.key_of("eap")]
    x, y = made.SCORES[made.key_of("eap")], made.SCORES[made.key_of("exact")]
    both = np.isfinite(x) & np.isfinite(y)
    assert (pair.index == np.flatnonzero(both)).all()
    assert (pair.true == made.truth(made.key_of("eap"))[both]).all()
    figure = estimate_figure(pair, data)
    slope, r2 = made.fit(x[both], y[both])
    told = figure.layout.annotations[0].text
    ranks = made.spearman(made.key_of("eap"), made.key_of("exact"))
    assert told.split("<br>") == [
        f"slope {slope:.2f}, R² {r2:.2f}, {both.sum()} edges",
        "rank correlation, with sign, of 31 random edges: 0.31",
        f"of |scores|, of all {both.sum()} that were patched: {ranks:.2f}",
    ]
    line = figure.data[-1]  # a least-squares line goes through the means
    assert np.interp(x[both].mean(), line.x, line.y) == pytest.approx(y[both].mean())
    edge = int(pair.index[~pair.true][0])
    assert figure.data[1].hovertext[0] == made.GRAPH.edge_name(edge).replace("->", " → ")


def test_a_cloud_is_thinned_to_its_largest_and_true_points(data, monkeypatch):
    pair = next(p for p in pairs(data) if p.cell == made.key_of("eap"))
    monkeypatch.setattr(estimate, "MAX_POINTS", 100)
    kept = drawn(pair)
    assert len(kept) == len(set(kept)) == 100
    assert set(np.flatnonzero(pair.true)) <= set(kept)
    assert int(np.argmax(np.abs(pair.x))) in kept


def test_each_panel_moves_one_edge_and_the_menu_chooses_the_cell(data):
    (section,) = interpolation.section(data)
    figures = dict(section.figures())
    assert len(figures) == 10
    eap = f"{made.key_of('eap')} logit_diff"
    for number, figure in enumerate(figures.values()):
        straight, measured = (t for t in figure.data if t.meta["interpolation_of"] == eap)
        scores = np.nan_to_num(made.SCORES[made.key_of("eap")], posinf=0, neginf=0)
        size = np.sort(np.abs(scores))[-1 - number]
        assert abs(straight.y[-1]) == pytest.approx(size)
        assert abs(measured.y[5]) == pytest.approx(0.75 * size)


# --- in a browser ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), pytest.param(390, "dark", marks=pytest.mark.slow)]
)
def test_every_choice_of_every_menu_draws(path, browser, width, scheme):
    page, complaints, requests = open_page(browser, write_report(path), width)
    page.emulate_media(color_scheme=scheme)
    for section in SECTIONS:
        page.wait_for_selector(f"section#{section} .js-plotly-plot .main-svg", state="attached")
    for select in page.query_selector_all("select"):
        for option in select.query_selector_all("option"):
            select.select_option(option.get_attribute("value"))
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    assert len(requests) == 1
    page.close()


def test_rows_and_legends_follow_the_menus_and_figures_say_when_they_are_empty(path, browser):
    page, _, _ = open_page(browser, write_report(path), 1280)
    page.select_option("#ablation", "node")
    shown = page.evaluate(
        "[...document.querySelectorAll('#methods tr[data-meta]')].filter(r => !r.hidden)"
        ".map(r => JSON.parse(r.dataset.meta).ablation)"
    )
    assert set(shown) == {"node"}
    assert page.evaluate("complement_n_edges.hasAttribute('data-empty')")  # of edges alone
    page.select_option("#ablation", "edge")
    assert not page.evaluate("complement_n_edges.hasAttribute('data-empty')")
    titles = "[...document.querySelectorAll('#interpolation h3')].filter(h => !h.hidden).length"
    assert page.evaluate(titles) == 10
    page.close()


def test_names_of_the_derived_tables_cannot_break_out(data):
    evil = "</script><img src=x onerror=alert(1)>"
    text = render(
        dataclasses.replace(
            data,
            roc=data.roc.assign(known=evil),
            interpolation=data.interpolation.assign(source=evil),
            minimality=data.minimality.assign(target=evil),
            measures=data.measures.assign(task=evil),
        )
    )
    assert evil not in text
    assert "<img" not in text.split("</script>", 1)[1]
