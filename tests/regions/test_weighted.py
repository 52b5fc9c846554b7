"""The weighted block model: its length and every move against the slow sum and graph-tool's; blocks
that were planted are found, and none in noise."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.blockmodel_process import BlockModelError
from edgesweep.engine.regions.blockstate import SPARE, BlockState, Cut, Weights
from edgesweep.engine.regions.judge import Judging, judge
from edgesweep.engine.regions.weighted import (
    Partition,
    canonical,
    description_length,
    dissolve,
    fit_blocks,
    merged_to,
)
from tests.regions.made import planted, slow_length


@pytest.fixture
def some():
    """A graph and a partition that is not its own."""
    z, _ = planted(18, 3, 1.0, 0)
    return z, canonical(np.random.default_rng(1).integers(0, 4, 18))


def test_the_length_and_what_every_move_and_merge_changes(some):
    z, blocks = some
    state, length = BlockState(Weights(z), blocks), slow_length(z, blocks)
    assert state.length() == pytest.approx(length, rel=1e-12)
    changes = state.changes(np.arange(18), np.arange(len(state.sizes)))
    for unit in range(0, 18, 5):
        for block, change in enumerate(changes[unit]):
            moved = blocks.copy()
            moved[unit] = block
            assert change == pytest.approx(slow_length(z, canonical(moved)) - length, abs=1e-9)
    merges = state.merges(9)
    for r in range(4):
        for s in {0, 1, 2, 3} - {r}:
            merged = canonical(np.where(blocks == s, r, blocks))
            assert merges[r, s] == pytest.approx(slow_length(z, merged) - length, abs=1e-9)
    assert np.isfinite(merges).sum() == 4 * 3


def test_blocks_are_merged_where_it_costs_least(some):
    z, blocks = some
    expected = min(
        (canonical(np.where(blocks == s, r, blocks)) for r in range(4) for s in range(r + 1, 4)),
        key=lambda merged: slow_length(z, merged),
    )
    assert merged_to(z, blocks, 3).tolist() == expected.tolist()
    assert merged_to(z, blocks, 1).max() == 0
    assert merged_to(z, blocks, 9).tolist() == blocks.tolist()


def test_a_block_of_units_of_all_others_is_dissolved_and_no_other_is():
    z, blocks = planted(30, 3, 3.0, 0)
    mixed = blocks.copy()
    mixed[[0, 12, 25]] = 3
    state = BlockState(Weights(z), mixed)
    before = state.length()
    found = dissolve(state, since=-1)
    assert state.length() == before
    state = found
    assert canonical(state.blocks).tolist() == blocks.tolist()
    assert state.length() == pytest.approx(slow_length(z, blocks), rel=1e-12)


def test_after_many_moves_the_sums_are_those_of_the_partition(some):
    z, blocks = some
    state, rng = BlockState(Weights(z), blocks), np.random.default_rng(2)
    for _ in range(60):
        members = np.flatnonzero(state.blocks == rng.choice(state.blocks))
        some, new = rng.permutation(members)[: rng.integers(1, 4)], rng.random() < 0.3
        state.move(some, state.empty() if new else int(rng.choice(state.blocks)))
    again = BlockState(state.weights, state.blocks)
    assert state.length() == pytest.approx(slow_length(z, canonical(state.blocks)), rel=1e-12)
    full = np.ix_(state.sizes > 0, state.sizes > 0)
    assert state.sums[full] == pytest.approx(again.sums[:-SPARE, :-SPARE], abs=1e-12)
    assert state.to_sums[:, state.sizes > 0] == pytest.approx(again.to_sums[:, :-SPARE], abs=1e-12)


def test_a_cut_gains_what_the_length_loses(some):
    z, blocks = some
    state, length = BlockState(Weights(z), blocks), slow_length(z, blocks)
    members = np.flatnonzero(blocks == 1)

    def gain(side: np.ndarray) -> float:
        cut = blocks.copy()
        cut[members[side]] = 4
        return length - slow_length(z, cut)

    start = np.arange(len(members)) % 2 == 0
    cut = Cut(state, 1, start.copy())
    assert cut.settled(np.inf) == pytest.approx(gain(start), abs=1e-9)
    cut = Cut(state, 1, start.copy())
    assert cut.settled(1e-9) == pytest.approx(gain(cut.side), abs=1e-9)
    flipped = cut.side ^ np.eye(len(members), dtype=bool)
    flipped = flipped[flipped.any(1) & ~flipped.all(1)]
    assert gain(cut.side) >= max(gain(side) for side in [start, *flipped]) - 1e-9


def test_more_blocks_are_made_than_there_was_room_for():
    z, _ = planted(40, 3, 1.0, 0)
    blocks = np.arange(40) % 2
    state = BlockState(Weights(z), blocks)
    for unit in range(25):
        state.move(np.array([unit]), state.empty())
    assert state.n_blocks == 27
    assert state.length() == pytest.approx(slow_length(z, canonical(state.blocks)), rel=1e-12)


def test_a_unit_of_its_own_that_leaves_takes_its_block_along():
    z, _ = planted(9, 2, 1.0, 3)
    blocks = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2])
    state = BlockState(Weights(z), blocks)
    changes = state.changes(np.array([8]), np.arange(len(state.sizes)))[0]
    moved = np.where(blocks == 2, 0, blocks)
    expected = slow_length(z, moved) - slow_length(z, blocks)
    assert changes[0] == pytest.approx(expected, abs=1e-9)
    assert changes[2] == 0
    assert changes[3:] == pytest.approx(0, abs=1e-9)  # another block of its own


def test_planted_blocks_are_found_in_five_of_five():
    for seed in range(5):
        z, blocks = planted(120, 6, 1.0, seed)
        found = fit_blocks(z, seed)
        assert adjusted_mutual_info_score(blocks, found.blocks) >= 0.95
        assert found.length <= description_length(z, blocks)
        assert np.array_equal(fit_blocks(z, seed).blocks, found.blocks)


def test_noise_is_one_block():
    for seed in range(3):
        z, _ = planted(100, 1, 0.0, seed)
        assert fit_blocks(z, seed).n_blocks == 1


def test_weights_that_are_all_alike_are_one_block():
    assert fit_blocks(np.ones((6, 6)), 0).n_blocks == 1
    assert fit_blocks(np.array([[0.0, 2.0], [2.0, 0.0]]), 0).n_blocks == 1


@pytest.fixture(scope="module")
def interpreter():
    found = find_interpreter()
    if found is None:
        pytest.skip("no graph-tool here")
    return found


def test_graph_tool_has_the_same_length_of_any_partition(interpreter):
    z, blocks = planted(60, 4, 1.0, 7)
    given = canonical(np.random.default_rng(0).integers(0, 7, 60))
    for of in (given, blocks, np.zeros(60, dtype=np.int64), np.arange(60)):
        partition = Partition(of, description_length(z, of))
        judged = judge(z, partition, interpreter, Judging(max_rounds=0))
        assert judged.given == pytest.approx(partition.length, rel=1e-10)
    wrong = Partition(blocks, description_length(z, blocks) + 1e-3)
    with pytest.raises(BlockModelError, match=r"is \d+\.\d+ here and \d+\.\d+ by graph-tool"):
        judge(z, wrong, interpreter, Judging(max_rounds=0))


def test_graph_tool_finds_nothing_shorter_where_blocks_are_plain(interpreter):
    z, _ = planted(80, 4, 1.0, 5)
    found = fit_blocks(z, 0)
    from_ours, from_nothing = judge(z, found, interpreter), judge(z, None, interpreter)
    assert from_ours.partition.length == pytest.approx(found.length, rel=1e-9)
    assert found.length <= from_nothing.partition.length * (1 + 1e-9)
    assert from_ours.engine.startswith("graph-tool 2")
    start = Partition(np.zeros(80, dtype=np.int64), description_length(z, np.zeros(80, dtype=int)))
    assert judge(z, start, interpreter).partition.length < start.length
