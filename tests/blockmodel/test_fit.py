"""What the fits find, and how chains are compared."""

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest

from edgesweep.engine.blockmodel import (
    BlockModelError,
    BlockOptions,
    Chain,
    Interpreter,
    best,
    block_model,
    canonical,
    chain_seeds,
    fit,
    fit_chain,
)

NO_INTERPRETER = Interpreter("/nowhere/python", "0")
EVERY_KIND = [
    BlockOptions(fit=fit, degree_corrected=corrected)
    for fit in ("nested", "flat")
    for corrected in (True, False)
]


def planted(seed: int = 0) -> tuple[np.ndarray, tuple[int, ...]]:
    """A directed graph of 4 blocks of 15, dense only along 0 -> 1 -> 2 -> 3.

    No block is denser inside than outside, so a search for communities would not find them.
    """
    block = np.repeat(np.arange(4), 15)
    probability = np.full((4, 4), 0.02)
    probability[[0, 1, 2], [1, 2, 3]] = 0.6
    drawn = np.random.default_rng(seed).random((60, 60)) < probability[block][:, block]
    np.fill_diagonal(drawn, False)
    return np.argwhere(drawn), tuple(block.tolist())


def chain(length: float, seed: int, **changes) -> Chain:
    values = Chain(((0, 1),), length, 9.0, seed, BlockOptions(), "graph-tool 2.45")
    return dataclasses.replace(values, **changes)


@pytest.mark.parametrize("options", EVERY_KIND, ids=lambda o: f"{o.fit}-{o.degree_corrected}")
def test_planted_blocks_are_recovered(graph_tool, options):
    edges, blocks = planted()
    fitted = fit_chain(edges, 60, options, 3, graph_tool)
    assert fitted.levels[0] == blocks
    assert fitted.description_length < 0.9 * fitted.description_length_null
    assert (len(fitted.levels) == 1) == (options.fit == "flat")


def test_the_levels_of_a_nested_fit_are_nested_and_end_in_one_block(graph_tool):
    levels = fit_chain(planted()[0], 60, BlockOptions(), 1, graph_tool).levels
    assert set(levels[-1]) == {0}
    for below, above in itertools.pairwise(levels):
        assert len(set(zip(below, above, strict=True))) == len(set(below)) > len(set(above))


def test_direction_matters(graph_tool):
    # Twelve nodes write to a hub each, twelve read from one: the same but for the arrow.
    writers, readers, hubs = range(12), range(12, 24), range(24, 36)
    into = [[w, h] for w in writers for h in hubs if (w + h) % 5]
    out = [[h, r] for r in readers for h in hubs if (r + h) % 5]
    plain = BlockOptions(fit="flat", degree_corrected=False)  # corrected, the arrow is a degree
    fitted = fit_chain(np.array(into + out), 36, plain, 3, graph_tool)
    by_node = np.array(fitted.levels[0])
    assert len(set(by_node[writers])) == len(set(by_node[readers])) == 1
    assert by_node[0] != by_node[12]


def test_seed_zero_is_a_seed_like_any_other(graph_tool):
    # Two bipartite graphs, one reversed: two partitions are equally short, and a seed decides.
    edges = np.array([[i, j] for i in range(12) for j in range(12, 24) if (i + j) % 5])
    mixed = np.concatenate([edges, edges[:, ::-1] + 24])
    fits = [fit_chain(mixed, 48, BlockOptions(fit="flat"), 0, graph_tool) for _ in range(8)]
    assert len({str(fit.levels) for fit in fits}) == 1


def test_the_same_seed_gives_the_same_chain_whatever_the_order_of_edges(graph_tool):
    edges, _ = planted(1)
    shuffled = np.random.default_rng(0).permutation(np.concatenate([edges, edges[:5]]))
    options = BlockOptions()
    assert fit_chain(edges, 60, options, 11, graph_tool) == fit_chain(
        shuffled, 60, options, 11, graph_tool
    )


@pytest.mark.parametrize("options", EVERY_KIND, ids=lambda o: f"{o.fit}-{o.degree_corrected}")
def test_a_random_graph_has_no_structure_to_speak_of(graph_tool, options):
    drawn = np.random.default_rng(4).random((40, 40)) < 0.3
    np.fill_diagonal(drawn, False)
    fitted = fit_chain(np.argwhere(drawn), 40, options, 0, graph_tool)
    gain = fitted.description_length_null - fitted.description_length
    assert 0 <= gain < 0.01 * fitted.description_length_null


@pytest.mark.parametrize("options", EVERY_KIND, ids=lambda o: f"{o.fit}-{o.degree_corrected}")
def test_a_single_edge(graph_tool, options):
    fitted = fit_chain(np.array([[1, 0]]), 2, options, 0, graph_tool)
    assert fitted.levels == ((0, 0),)
    assert fitted.description_length == fitted.description_length_null > 0


@pytest.mark.parametrize("n_nodes", [0, 3])
def test_no_edges_need_no_interpreter(n_nodes):
    model = fit(np.zeros((0, 2)), ["x"] * n_nodes, BlockOptions(), 0, NO_INTERPRETER)
    assert model.blocks().tolist() == [0] * n_nodes
    assert model.description_length == model.description_length_null == 0.0
    assert model.n_blocks() == min(n_nodes, 1)


def test_fit_keeps_the_best_of_its_chains(graph_tool):
    edges, blocks = planted(2)
    names = [f"n{i}" for i in range(60)]
    model = fit(edges, names, BlockOptions(), 5, graph_tool, chains=2, max_workers=2)
    chains = [fit_chain(edges, 60, BlockOptions(), s, graph_tool) for s in chain_seeds(5, 2)]
    assert model == block_model(names, chains)
    assert (model.nested, model.degree_corrected) == (True, True)
    assert tuple(model.blocks()) == blocks


def test_the_shortest_is_kept_and_ties_go_to_the_lowest_seed():
    chains = [chain(3.0, 1), chain(2.0, 9), chain(2.0, 4), chain(5.0, 0)]
    assert best(chains).seed == best(chains[::-1]).seed == 4


def test_chains_of_different_graphs_or_options_are_not_compared():
    for other in (chain(1.0, 2, levels=((0, 0, 0),)), chain(1.0, 2, options=BlockOptions("flat"))):
        with pytest.raises(BlockModelError, match="different graphs or options"):
            best([chain(1.0, 1), other])


def test_names_must_fit():
    with pytest.raises(BlockModelError, match="3 node names for 2 fitted nodes"):
        block_model("abc", [chain(1.0, 1)])
    with pytest.raises(BlockModelError, match="level 1 is not one of the 1 fitted"):
        block_model("ab", [chain(1.0, 1)]).blocks(1)


@pytest.mark.parametrize(
    ("edges", "seed", "message"),
    [
        ([[0, 3]], 0, r"outside 0\.\.2"),
        ([[-1, 1]], 0, r"outside 0\.\.2"),
        ([[1, 1]], 0, "to itself"),
        ([[0, 1]], -1, "seed is -1"),
        ([[0, 1]], 2**32, "seed is 4294967296"),
    ],
)
def test_bad_requests_are_refused_before_a_process_starts(edges, seed, message):
    with pytest.raises(BlockModelError, match=message):
        fit_chain(np.array(edges), 3, BlockOptions(), seed, NO_INTERPRETER)


@pytest.mark.parametrize("bad", [{"fit": "deep"}, {"n_iter": 0}, {"patience": 0}])
def test_bad_options_are_refused(bad):
    with pytest.raises(BlockModelError, match=next(iter(bad))):
        BlockOptions(**bad)


def test_canonical_numbers_make_equal_partitions_equal():
    assert canonical([7, 7, 2, 9, 2]) == canonical([0, 0, 5, 1, 5]) == (0, 0, 1, 2, 1)


def test_more_chains_keep_the_seeds_of_fewer():
    assert chain_seeds(3, 8)[:3] == chain_seeds(3, 3)
    assert len(set(chain_seeds(3, 8) + chain_seeds(4, 8))) == 16
    with pytest.raises(BlockModelError, match="chains is 0"):
        chain_seeds(3, 0)


def test_a_chain_survives_json_and_pickling():
    one = chain(1.0, 3)
    assert Chain.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert pickle.loads(pickle.dumps(one)) == one
    error = pickle.loads(pickle.dumps(BlockModelError("why")))
    assert str(error) == "why"
