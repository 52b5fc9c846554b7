"""The page of a real run, read and opened in a real browser."""

import dataclasses
import re
import shutil
from collections import Counter

import numpy as np
import pytest

from edgesweep.dashboards import report
from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.faults import LACKS, MOST_NAMED
from edgesweep.dashboards.headline import headline, leading
from edgesweep.dashboards.report import render, write_report
from edgesweep.dashboards.sections.circuits import draw_circuits
from edgesweep.runs import open_run
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.manifest import read_manifest
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence
from tests.dashboards.browsing import open_page
from tests.dashboards.slow_values import read_values
from tests.sweeps.helpers import committed, uncommit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The smoke preset, done serially."""
    out = tmp_path_factory.mktemp("report") / "run"
    assert (
        drive(start(load_config("smoke", ["execution.executor=serial"]), out), Silence()).left == 0
    )
    return out


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_offline_without_a_complaint(run, browser, width):
    path = write_report(run)
    page, complaints, requests = open_page(browser, path, width)
    assert complaints == []
    assert requests == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    buttons = page.evaluate(
        "[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert bool(buttons) == (width > 760)
    assert not any("hare" in title for title in buttons)  # nothing is offered for upload
    page.close()


def test_a_run_of_many_cells_has_a_page_for_each_model_and_task(
    run, browser, tmp_path, monkeypatch
):
    monkeypatch.setattr(report, "MOST_CELLS", 1)
    there = tmp_path / "run"
    shutil.copytree(run, there)
    index, complaints = write_report(there), []
    page = browser.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(index.as_uri())
    links = page.eval_on_selector_all("#pages a", "all => all.map(a => a.getAttribute('href'))")
    assert links == ["report/001.tiny-random.ioi+agreement.html"]
    page.click("#pages a")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length > 4")
    assert page.url.endswith(links[0])
    assert "tiny-random on ioi+agreement" in page.inner_text("p.dim")
    assert page.get_attribute("p.dim a", "href") == "../report.html"
    assert complaints == []
    page.close()
    files = read_manifest(RunDirectory.open(there))
    assert {"report.html", links[0]} < set(files)
    (there / links[0]).write_text("hurt")
    assert write_report(there) == index  # it is made of what is read, and made anew


def test_the_page_shows_the_tables_numbers_and_follows_its_menus(run, browser):
    page, _, _ = open_page(browser, write_report(run), 1280)
    table = load_run(run).results.query("blocks == 'all'")
    for name in ("aggregation", "eval_patch"):
        page.select_option(f"#{name}", "*")
    for metric, subset in (("accuracy", "ioi"), ("logit_diff", "all")):
        page.select_option("#metric", metric)
        page.select_option("#subset", subset)
        drawn = page.evaluate(
            "document.getElementById('curve_n_nodes')._fullData"
            ".filter(t => t.visible === true).flatMap(t => Array.from(t.y))"
        )
        chosen = table.query("metric == @metric and subset == @subset")["faithfulness"]
        assert sorted(v for v in drawn if v == v) == pytest.approx(sorted(chosen.dropna()))
        rows = page.evaluate(
            "[...document.querySelectorAll('tr[data-meta]')].filter(r => !r.hidden)"
            ".map(r => JSON.parse(r.dataset.meta).metric).filter(metric => metric)"
        )
        assert set(rows) == {metric}
    page.close()


def test_every_choice_draws_and_both_schemes_work(run, browser):
    page, complaints, _ = open_page(browser, write_report(run), 390)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("style('ink') === '#e4e8ee'")
    page.wait_for_function("curve_n_edges._fullLayout.font.color === style('ink')")
    for select in page.query_selector_all("select"):
        for option in select.query_selector_all("option"):
            select.select_option(option.get_attribute("value"))
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []
    page.close()


def test_the_heatmaps_follow_the_metric(run, browser):
    page, _, _ = open_page(browser, write_report(run), 1280)
    table = load_run(run).results
    if not (table["blocks"] != "all").any():
        pytest.skip("no graph-tool here: no blocks were ablated")
    ablated = table[table["blocks"] != "all"]
    ablated = ablated[ablated["circuit"] == min(ablated["circuit"])]
    phi = ablated.set_index(["eval_patch", "metric", "subset", "blocks"])["faithfulness"]
    for patch, metric in (("counterfactual", "kl"), ("zero", "logit_diff"), ("zero", "accuracy")):
        page.select_option("#eval_patch", patch)
        page.select_option("#metric", metric)
        drawn = page.evaluate("(({x, y, z}) => ({x, y, z}))(without0._fullData[0])")
        for task, row in zip(drawn["y"], drawn["z"], strict=True):
            for label, value in zip(drawn["x"][1:], row[1:], strict=True):
                truth = phi[patch, metric, task, f"without:{label}"]
                assert value == (None if np.isnan(truth) else pytest.approx(truth))
    page.close()


def test_the_circuits_drawn_are_those_that_were_counted(run):
    data = load_run(run)
    titles = set(draw_circuits(data).figures)
    rows = data.results.query(
        "ablation == 'edge' and blocks == 'all' and eval_patch == 'counterfactual'"
    )
    names = data.circuit_names
    counted = rows.drop_duplicates("circuit").query("n_edges > 0")
    named = zip(counted["circuit"].map(names), counted["n_edges"], strict=True)
    assert titles == {f"{name}: {n} edge{'' if n == 1 else 's'}" for name, n in named}
    assert len(data.ran) < len(data.circuits)  # pruning left something out


def test_the_page_says_what_was_run(run):
    text = write_report(run).read_text()
    data = load_run(run)
    assert data.status["run_id"] in text
    for digest in data.plan["identity"]["models"].values():
        assert digest in text
    best = headline(data).row
    assert f"{best['n_edges']:,} of {best['n_edges_possible']:,} edges" in text
    assert "Nothing is claimed of the leading circuit" in text  # for what the model cannot do
    assert "cannot do ioi" in text  # a random model cannot


def test_names_cannot_break_out_of_the_page(run):
    data = load_run(run)
    evil = "</script><img src=x onerror=alert(1)>"
    named = dataclasses.replace(
        data,
        config={**data.config, "name": evil},
        results=data.results.assign(method=evil),
        blocks=data.blocks.assign(label=evil),
        quarantined={"evaluate/x": evil},
    )
    text = render(named)
    assert evil not in text
    assert "&lt;/script&gt;" in text
    assert "<img" not in text.split("</script>", 1)[1]  # past plotly's own code


def test_an_evil_name_runs_nothing_in_a_browser(run, browser, tmp_path):
    data = load_run(run)
    evil = "'\"></script><img src=x onerror=alert(1)>"
    results = data.results.assign(eval_patch=evil, method=evil)
    path = tmp_path / "evil.html"
    path.write_text(render(dataclasses.replace(data, results=results)))
    page, complaints, requests = open_page(browser, path, 1280)
    assert (complaints, requests) == ([], [path.as_uri()])
    assert page.query_selector("main img") is None
    page.close()


#: what happened to its nodes
POOL = {
    "shut_out": [{"host": "gpu7", "error": "FileNotFoundError: <blind>"}],
    "lost": 3,
    "backups": 2,
}


def test_faults_are_listed_with_their_errors(run):
    data = load_run(run)
    n_bad = {"total": 9, "committed": 8, "quarantined": 1}
    hurt = dataclasses.replace(
        data,
        status={**data.status, "shards": n_bad, "state": "quarantined", "pool": POOL},
        quarantined={"attribute/c.000": "MemoryError: <no room>"},
        commits=data.commits.assign(micro_batch=1, rows=4, attempt=2),
    )
    text = render(hurt)
    assert "1 shard failed and was left out" in text
    assert "<td>given up: MemoryError: &lt;no room&gt;</td>" in text
    assert "<td>out of memory: 1 prompts at once, not 4</td>" in text
    assert "<td>failed, and done at attempt 2</td>" in text
    assert "<td>shut out: FileNotFoundError: &lt;blind&gt;</td><td>node gpu7</td>" in text
    assert "<td>went away: 3 nodes</td>" in text
    assert "<td>begun a second time for taking long: 2 shards</td>" in text
    assert "the cell has no scores of all inputs, and so no circuit and no row" in text
    assert f"and {len(data.commits) - MOST_NAMED} more of this kind" in text
    assert "Nothing went wrong" in render(data)


def test_values_that_are_not_finite_are_told_by_cell_and_drawn_nowhere(run):
    data = load_run(run)
    first = data.commits["shard"].str.startswith("eap-") & (data.commits["stage"] == "evaluate")
    commits = data.commits.assign(
        n_bad=first.map({True: 3, False: None}), bad=first.map({True: {"kl": 3}, False: None})
    )
    of_eap = data.results["method"] == "eap"
    nothing = {"value": np.nan, "value_full": np.nan, "faithfulness": np.nan}
    blank = {c: data.results[c].mask(of_eap, v) for c, v in nothing.items()}
    skill = {"event": "skill", "model": "tiny-random", "task": "ioi", "accuracy": 0.0}
    hurt = dataclasses.replace(
        data,
        results=data.results.assign(**blank),
        commits=commits,
        log=(*data.log, {**skill, "logit_diff": None}),
    )
    text = render(hurt)
    shards = int(first.sum())
    assert f"<td>not finite: {3 * shards} values of kl</td><td>EAP: tiny-random on ioi+agre" in text
    assert f"<code>evaluate, in {shards} of its shards</code>" in text
    assert f"{3 * shards} values are not finite, and what stands on them is left out" in text
    assert "<span class='dim'>not defined</span>" in text  # the best circuit of such a line
    assert "<td class=n>not finite</td><td class=n><span class='bad'>not known</span>" in text
    assert leading(hurt)["method"] == "eap"  # the condition that leads stays what it was
    words = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r">-?(nan|inf)%?<", words)
    all_gone = {c: data.results[c] * np.nan for c in nothing}
    gone = {"results": data.results.assign(**all_gone), "headlines": data.headlines.iloc[:0]}
    nothing_left = dataclasses.replace(hurt, **gone)
    assert "says nothing of how faithful a circuit is" in render(nothing_left)


def test_the_headline_of_a_run_is_of_its_values_on_the_prompts_that_report(run):
    """Chosen and told again from what is stored, the slow way."""
    data = load_run(run)
    row, stored = headline(data).row, open_run(run)
    cell = next(c for c in data.plan["cells"] if c["key"] == row["cell"])
    prompts = stored.prompts(cell["key"], "eval")
    assert row["n_choosing"] + row["n_inputs"] == len(prompts) == 16
    chooses, seen = [], Counter()
    for task in ("ioi", "agreement"):
        templates = {}
        for template in prompts.loc[prompts["task"] == task, "template"]:
            shift = templates.setdefault(template, len(templates))
            chooses.append((seen[task, template] + shift) % 3 == 0)
            seen[task, template] += 1
    if sum(chooses) != row["n_choosing"]:
        pytest.skip("there are mirrors among these prompts")
    reports = ~np.array(chooses)
    found = read_values(stored.directory, row)
    phi = {}
    for task in ("ioi", "agreement"):
        mine = reports & (prompts["task"] == task).to_numpy()
        value, full, empty = (of[mine].mean() for of in found)
        phi[task] = (value - empty) / (full - empty)
    told = {s: n["faithfulness"] for s, n in headline(data).by_subset.items()}
    assert {task: told[task] for task in phi} == pytest.approx(phi)
    assert told["macro"] == pytest.approx(np.mean([*phi.values()]))
    assert told["worst"] == pytest.approx(min(phi.values()))


def test_versions_are_told_by_stage_where_they_differ(run):
    data = load_run(run)
    assert "Versions that differ" not in render(data)
    planned = data.plan["versions"]
    late = data.commits["stage"] == "evaluate"
    mixed = [{**planned, "torch": "9.9<"} if new else planned for new in late]
    text = render(dataclasses.replace(data, commits=data.commits.assign(versions=mixed)))
    assert f"<td>evaluate</td><td>torch 9.9&lt;</td><td class=n>{late.sum()}</td>" in text
    assert f"<td>attribute</td><td>torch {planned['torch']}</td>" in text
    agreed = re.search(r"<dt>versions</dt><dd>(.*?)</dd>", text).group(1)
    assert "torch" not in agreed
    assert f"numpy {planned['numpy']}" in agreed


def test_what_is_not_there_is_said_to_be_absent(run):
    data = load_run(run)
    bare = dataclasses.replace(
        data,
        results=data.results.iloc[:0],
        circuits=data.circuits.iloc[:0],
        blocks=data.blocks.iloc[:0],
        histograms={},
        status={**data.status, "left_out": {"blocks": "no graph-tool <here>"}},
    )
    text = render(bare)
    for absent in ("No circuit has been evaluated yet", "No cell has been reduced yet"):
        assert absent in text
    assert "There are none: no graph-tool &lt;here&gt;" in text
    assert "This run is not finished" in text


def no_longer_done(run, tmp_path, share_left):
    """A copy of a run as it was when only that share of each stage's shards was done."""
    out = shutil.copytree(run, tmp_path / "run")
    (out / "manifest.json").unlink(missing_ok=True)
    for table in out.glob("*.parquet"):
        table.unlink()
    for stage, shards in committed(out).items():
        gone = shards[round(share_left * len(shards)) :]
        if gone:
            uncommit(out, stage, gone.__contains__)
    return out


@pytest.mark.parametrize("share_left", [0, 0.5])
def test_the_page_of_a_run_with_work_left_says_what_is_missing(run, tmp_path, share_left):
    out = no_longer_done(run, tmp_path, share_left)
    data = load_run(out)
    text = render(data)
    done, total = data.status["shards"]["committed"], data.status["shards"]["total"]
    assert f"This run is not finished: {done} of {total} shards are done" in text
    assert "No circuit has been evaluated yet" in text
    assert ("No cell has been reduced yet" in text) == (share_left == 0)


def test_the_page_of_a_run_with_shards_given_up_says_what_is_missing_for_them(run, tmp_path):
    out = no_longer_done(run, tmp_path, 0.5)
    log = CommitLog(RunDirectory.open(out))
    log.claim_epoch(take_over=True)
    shards = {s: log.keys(s)[0] for s in ("attribute", "evaluate")}
    for stage, shard in shards.items():
        log.uncommit(stage, shard, "a test")
        log.quarantine(stage, shard, {"error": "ValueError: <boom>"})
    text = render(load_run(out))
    assert "2 shards failed and were left out" in text
    for stage, shard in shards.items():
        assert f"<td><code>{stage}/{shard}</code></td><td>{LACKS[stage]}</td>" in text
    assert "given up: ValueError: &lt;boom&gt;" in text
