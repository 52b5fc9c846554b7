"""What block models are held against, over one whole run."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.sections.blockmodels.blocks import section as blocks_section
from edgesweep.dashboards.sections.blockmodels.rewired import section as rewired_section
from edgesweep.dashboards.sections.blockmodels.worth import section
from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.graphs import read_graph
from edgesweep.storage.tables import BLOCKS as BLOCKS_TABLE
from edgesweep.storage.tables import DRAWN, NULLS, RESULTS, STRUCTURE, read_table
from edgesweep.sweeps.circuits import read_ran
from edgesweep.sweeps.launch import reopen
from edgesweep.sweeps.plan.cells import Condition, Part
from edgesweep.sweeps.stages.blockmodels.blocks import read_fitted
from edgesweep.sweeps.stages.drawn import _shuffled
from edgesweep.sweeps.view import View
from tests.sweeps.helpers import BLOCKS, contents, run_tiny, tiny, uncommit

pytestmark = pytest.mark.skipif(find_interpreter() is None, reason="needs graph-tool")
TASKS = ("ioi", "agreement")
RAW = tiny(
    sweep={"method": "eap"},
    evaluate={"threshold": [40], "ablation": "edge"},
    blocks={**BLOCKS, "shuffles": 3, "halves": True, "draws": 2},
    measures={"rewired": 2, "rewired_edges": 40},
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("nulls") / "run"
    assert run_tiny(path, RAW).exit_code == 0
    return path


def test_every_description_length_stands_beside_those_without_structure(out):
    run = RunDirectory.open(out)
    nulls, structure, blocks = (read_table(run, t) for t in (NULLS, STRUCTURE, BLOCKS_TABLE))
    counts = dict(nulls["null"].value_counts())
    assert counts.pop("kind_depth_coarse") > 1
    assert counts == {
        "chain": 2,
        "one_block": 1,
        "kind_depth": 1,
        "nodes": 3,
        "ports": 3,
        "half": 2,
    }
    of = nulls.set_index("null")
    same = of.loc[["chain", "one_block", "kind_depth", "nodes"]]
    assert len(same[["n_nodes", "n_edges", "one_block"]].drop_duplicates()) == 1
    assert of.loc["chain", "description_length"].min() == blocks["description_length"].iloc[0]
    assert (of.loc["ports", "n_nodes"] == same["n_nodes"].iloc[0]).all()
    assert of.loc[["nodes", "ports"], ["swapped", "kept_halfway", "kept"]].notna().all(axis=None)
    np.testing.assert_allclose(nulls["saved"], 1 - nulls["description_length"] / nulls["one_block"])
    rows = structure.set_index(["measure", "against"])
    first = of.loc["chain"].query("draw == 0")["saved"].iloc[0]
    for kind in ("nodes", "ports"):
        row, draws = rows.loc[("saved", kind)], of.loc[kind, "saved"]
        assert row["value"] == first
        assert row["p"] == (1 + (draws >= first).sum()) / 4
        assert (row["low"], row["high"], row["n"]) == (draws.min(), draws.max(), 3)


def test_partitions_are_compared_as_scikit_learn_compares_them(out):
    run = RunDirectory.open(out)
    blocks = read_table(run, BLOCKS_TABLE).query("level == 0").set_index("node")["block"]
    graph = read_graph(run, run.plan["cells"][0]["key"])
    table = graph.node_table.set_axis(list(graph.nodes)).loc[blocks.index]
    kinds = [f"{kind}/{layer}" for kind, layer in zip(table["kind"], table["layer"], strict=True)]
    rows = read_table(run, STRUCTURE).query("measure == 'agreement'").set_index("against")
    expected = adjusted_mutual_info_score(blocks, kinds)
    assert rows.loc["kind_depth", "value"] == pytest.approx(expected)
    assert set(rows.index) == {"chains", "halves", "kind_depth"}
    assert rows["value"].between(-1, 1).all()


def test_a_redone_null_has_the_same_bytes(out):
    before = contents(out, "nulls", "nulls.parquet", "structure.parquet")
    assert len(before) == 6
    uncommit(out, "nulls", lambda shard: True)
    assert run_tiny(out, RAW).exit_code == 0
    assert contents(out, "nulls", "nulls.parquet", "structure.parquet") == before


def test_the_contrast_is_that_of_the_heat_map(out):
    run = RunDirectory.open(out)
    rows = read_table(run, STRUCTURE).query("measure == 'contrast'")
    random = rows["against"].str.endswith("_random")
    assert (random.sum(), (~random).sum()) == (2 * 2, 2 * 2)  # modes, metrics
    rows = rows[~random]
    results, tasks = read_table(run, RESULTS), TASKS
    for row in rows.to_dict("records"):
        mine = results[results["metric"] == row["metric"]].set_index(["subset", "blocks"])
        phi = mine["faithfulness"]
        left = np.array([[phi[t, f"{row['against']}:{u}"] for u in tasks] for t in tasks])
        own, others = left.trace() / 2, (left.sum() - left.trace()) / 2
        sign = 1 if row["against"] == "without" else -1
        assert row["value"] == pytest.approx(sign * (others - own), rel=1e-6, abs=1e-9)
        assert 0 < row["p"] <= 1


def test_random_circuits_have_the_degrees_of_the_circuit(out):
    run = RunDirectory.open(out)
    drawn = read_table(run, DRAWN).query("blocks == 'rewired'")
    assert sorted(set(drawn["draw"])) == [0, 1]
    assert len(drawn) == 2 * 2 * 3  # draws, metrics, subsets
    cell = reopen(out).plan.cells[0]
    graph = read_graph(run, cell.key)
    whole = read_ran(run, cell, Condition("edge", "counterfactual"))
    random = read_ran(run, cell, Condition("edge", "counterfactual", Part("rewired")))
    mask = whole[drawn["circuit"].iloc[0]]
    for name in random.circuits:
        assert (random[name] != mask).any()
        for ends in (graph.edge_source, graph.edge_target):
            expected, found = (np.bincount(ends[m], minlength=99) for m in (mask, random[name]))
            np.testing.assert_array_equal(found, expected)
    assert (drawn["n_edges"] == mask.sum()).all()


def test_random_blocks_are_as_many_nodes_of_each_kind(out):
    run = RunDirectory.open(out)
    drawn = read_table(run, DRAWN).query("blocks != 'rewired'")
    assert set(drawn["blocks"]) == {f"{m}:{t}" for m in ("without", "only") for t in TASKS}
    assert sorted(set(drawn["draw"])) == [0, 1]
    assert drawn["faithfulness"].notna().all()
    plan = reopen(out).plan
    (cell,) = plan.cells
    launch = View.of(run, plan, CommitLog(run))
    fitted = read_fitted(launch, cell)
    graph = launch.graph(cell)
    moved = _shuffled(graph, fitted.nodes, fitted.model.blocks(0), 1)
    kinds = np.array([graph.node_table.kind[n] for n in fitted.nodes])
    for kind in set(kinds):
        before, after = (b[kinds == kind] for b in (fitted.model.blocks(0), moved))
        np.testing.assert_array_equal(np.sort(before), np.sort(after))


def block_ablation_figure_text(out) -> str:
    *_, ablated = blocks_section(load_run(out))
    return str([trace.text for _, figure in ablated.figures() for trace in figure.data])


def test_the_page_tells_what_the_blocks_are_worth(out):
    (worth,) = section(load_run(out))
    (figure, table) = worth.parts
    assert [t.name for t in figure.figure.data][-1] == "this circuit, each chain"
    assert "length saved" in table.html()
    assert "contrast of removing blocks" in table.html()
    (rewired,) = rewired_section(load_run(out))
    assert len(rewired.parts[0].rows) == 2  # metrics
    assert "random" in block_ablation_figure_text(out)
    assert "<td></td>" not in table.html().replace("<td class=n></td>", "")
