"""Labels, masks and matrices, worked out by hand and against a slow reading of the design page."""

import numpy as np
import pytest

from edgesweep.engine.blocklabels import (
    block_attribution,
    block_edge_mask,
    block_matrix,
    block_purity,
    label_blocks,
)
from edgesweep.engine.graph import FeatureGraph
from edgesweep.sweeps.labelled import LabelledBlocks

# embed 0, a 1, b 2, c 3, logits 4. Edge 2 enters a kv port whose group holds the heads b and c.
BLOCK_OF = np.array([0, 1, 1, 2, 0])
EDGE_NODES = [(0, 1), (1, 4), (0, 2, 3), (3, 4)]
SCORES = np.array([[4.0, -2.0, 1.0, 1.0], [0.0, 1.0, -1.0, 6.0]])
EMBED_AND_LOGITS = (0, 4)


def test_attribution_by_hand():
    # Block 0 (embed, logits) touches every edge; block 1 edges 0, 1, 2; block 2 edges 2, 3.
    expected = [[8 / 8, 8 / 8], [7 / 8, 2 / 8], [2 / 8, 7 / 8]]
    np.testing.assert_array_equal(block_attribution(BLOCK_OF, EDGE_NODES, SCORES), expected)


def test_labels_are_the_largest_and_ties_go_to_the_first_task():
    labels = label_blocks(block_attribution(BLOCK_OF, EDGE_NODES, SCORES))
    assert labels.tolist() == [0, 0, 1]


def test_an_edge_with_both_ends_in_a_block_counts_once():
    shares = block_attribution(np.array([0, 0]), [(0, 1)], np.array([[3.0]]))
    assert shares.tolist() == [[1.0]]


def test_a_task_without_attribution_has_no_share():
    shares = block_attribution(np.array([0, 1]), [(0, 1)], np.array([[0.0], [2.0]]))
    assert shares.tolist() == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize("scores", [np.ones(4), np.ones((2, 3)), np.full((1, 4), np.nan)])
def test_scores_that_do_not_fit_are_refused(scores):
    with pytest.raises(ValueError, match="scores_by_task"):
        block_attribution(BLOCK_OF, EDGE_NODES, scores)


@pytest.mark.parametrize(
    ("labels", "task", "mode", "expected"),
    [
        # Block 2 is node c: edge 2 touches it through its port, edge 3 starts there.
        ([0, 0, 1], 1, "without", [True, True, False, False]),
        (
            [0, 0, 1],
            0,
            "without",
            [False, False, False, True],
        ),  # c -> logits: the ends are no task's
        ([0, 0, 1], 1, "only", [False, False, False, True]),
        ([0, 0, 1], 0, "only", [True, True, False, False]),  # c is outside
        ([1, 0, 1], 0, "only", [True, True, False, False]),  # embed and logits always stay
        ([0, 0, 0], 1, "without", [True, True, True, True]),
        ([0, 0, 0], 1, "only", [False, False, False, False]),
    ],
)
def test_masks_by_hand(labels, task, mode, expected):
    mask = block_edge_mask(
        BLOCK_OF, EDGE_NODES, np.array(labels), task, mode, always=EMBED_AND_LOGITS
    )
    assert mask.tolist() == expected


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="without, only"):
        block_edge_mask(BLOCK_OF, EDGE_NODES, np.zeros(3), 0, "neither", always=())  # type: ignore[arg-type]


def slow_attribution(block_of, edge_nodes, scores, block, task):
    touching = [e for e, nodes in enumerate(edge_nodes) if block in {block_of[n] for n in nodes}]
    total = sum(abs(score) for score in scores[task])
    return sum(abs(scores[task][e]) for e in touching) / total


def slow_mask(block_of, edge_nodes, labels, task, mode, always):
    def of_task(node):
        return labels[block_of[node]] == task

    if mode == "without":
        return [not any(of_task(n) and n not in always for n in nodes) for nodes in edge_nodes]
    return [all(of_task(n) or n in always for n in nodes) for nodes in edge_nodes]


@pytest.mark.parametrize("seed", range(5))
def test_the_fast_forms_equal_the_slow_ones(seed):
    rng = np.random.default_rng(seed)
    block_of = np.concatenate([np.arange(5), rng.integers(0, 5, 25)])
    edge_nodes = [tuple(rng.choice(30, rng.integers(2, 5), replace=False)) for _ in range(80)]
    scores = rng.normal(size=(3, 80))
    shares = block_attribution(block_of, edge_nodes, scores)
    slow = [
        [slow_attribution(block_of, edge_nodes, scores, b, t) for t in range(3)] for b in range(5)
    ]
    np.testing.assert_allclose(shares, slow, rtol=1e-12)
    labels = rng.integers(0, 3, 5)
    for task in range(3):
        for mode in ("without", "only"):
            arguments = (block_of, edge_nodes, labels, task, mode, (0, 29))
            assert block_edge_mask(*arguments).tolist() == slow_mask(*arguments)


def test_purity_is_the_attribution_of_each_block_s_first_task():
    assert block_purity(np.eye(3)) == 1
    assert block_purity(np.full((4, 2), 0.25)) == 0.5
    found = block_purity(np.array([[0.6, 0.2], [0.4, 0.8]]))
    by_block = (0.6 / 0.8) * 0.8 / 2 + (0.8 / 1.2) * 1.2 / 2  # weighted by attribution
    assert found == pytest.approx(by_block)
    assert np.isnan(block_purity(np.zeros((2, 2))))


def test_random_blocks_have_the_same_sizes_and_less_purity():
    """Two tasks that share no node but the ends; blocks that are theirs, and shuffled ones."""
    graph = FeatureGraph.complete(
        {"a": (), "b": ("a",), "logits": ("b",)}, {"a": [-1], "b": range(12)}
    )
    mask = np.ones(graph.n_edges, dtype=bool)
    first = np.array([int(graph.edge_name(e).split("f")[-1].split("->")[0]) < 6 for e in range(24)])
    scores = np.stack([first, ~first]).astype(float)
    nodes = list(range(14))
    block_of = np.array([0, *[1] * 6, *[2] * 6, 3])
    labelled = LabelledBlocks(graph, mask, nodes, block_of, scores, 1.5)
    draws = labelled.shuffled_purities(0, 50)
    assert labelled.purity == pytest.approx(0.75)  # half of the attribution is at the ends
    assert max(draws) < labelled.purity
    assert min(draws) >= 0.5
    assert labelled.shuffled_purities(0, 50) == draws


def test_no_edges():
    nothing = np.zeros((2, 0))
    assert block_attribution(np.zeros(3, int), [], nothing).tolist() == [[0.0, 0.0]]
    assert block_edge_mask(np.zeros(3, int), [], np.zeros(1), 0, "only", ()).tolist() == []
    assert block_attribution(np.zeros(0, int), [], nothing).shape == (0, 2)
    assert block_matrix(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)).shape == (0, 0)


def test_block_matrix_by_hand():
    counts = block_matrix(BLOCK_OF, np.array([0, 1, 0, 0, 3]), np.array([1, 4, 2, 3, 4]))
    assert counts.tolist() == [[0, 2, 1], [1, 0, 0], [1, 0, 0]]
