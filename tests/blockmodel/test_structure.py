"""What block models are held against: by hand, and where nothing is planted nothing is found."""

import itertools

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import adjusted_mutual_info_score

from edgesweep.engine.blockmodel import BlockOptions, Job, fit_chain, run_jobs
from edgesweep.engine.graph import EdgeGraph, GraphSpec
from edgesweep.engine.graph.rewiring import STEPS_AN_EDGE, Allowed, hub, rewire
from edgesweep.engine.halves import halves
from edgesweep.engine.structure import (
    agreement,
    coarser,
    contrast,
    kind_and_depth,
    p_value,
    saved,
)

FLAT = BlockOptions(fit="flat", patience=2, n_iter=3)


def layered(n_layers: int, width: int) -> Allowed:
    """Every node may read all layers before its own."""
    site = np.repeat(np.arange(n_layers), width)
    return Allowed(site, site, np.triu(np.ones((n_layers, n_layers)), 1) > 0)


def in_layers(allowed: Allowed, probability: np.ndarray, seed: int) -> np.ndarray:
    """A random graph: each possible edge with its probability."""
    n = len(allowed.source)
    pairs = np.array(list(itertools.product(range(n), range(n))))
    drawn = np.random.default_rng(seed).random(len(pairs)) < probability.ravel()
    return pairs[drawn & allowed.holds(pairs)]


def shuffled(pairs: np.ndarray, allowed: Allowed, n: int, seed: int) -> list[np.ndarray]:
    """Draws that are exchangeable with the given graph, if that is one of them."""
    start, steps = hub(pairs, allowed, seed), STEPS_AN_EDGE * len(pairs)
    return [rewire(start, allowed, steps, seed + 1 + i).pairs for i in range(n)]


def p_of(pairs: np.ndarray, allowed: Allowed, n: int, seed: int, interpreter) -> float:
    graphs = [pairs, *shuffled(pairs, allowed, n, seed)]
    jobs = [Job(graph, len(allowed.source), seed + i) for i, graph in enumerate(graphs)]
    own, *draws = (
        saved(c.description_length, c.description_length_null)
        for c in run_jobs(jobs, FLAT, interpreter)
    )
    return p_value(own, draws)


# --- jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["flat", "nested"])
def test_a_job_is_done_alike_whatever_stands_beside_it(graph_tool, fit):
    options, allowed = BlockOptions(fit=fit, patience=2, n_iter=3), layered(4, 6)
    graphs = [in_layers(allowed, np.full((24, 24), p), 0) for p in (0.2, 0.5)]
    planted = tuple(np.repeat(range(4), 6).tolist())
    jobs = [Job(graphs[0], 24, 5), Job(np.zeros((0, 2)), 3, 1), Job(graphs[1], 24, 7, planted)]
    together = run_jobs([*jobs, *jobs], options, graph_tool)
    assert together[:3] == together[3:]
    assert together[0] == fit_chain(graphs[0], 24, options, 5, graph_tool)
    assert together[1].levels == ((0, 0, 0),)
    assert together[2].levels[0] == planted
    found = run_jobs([Job(graphs[1], 24, 7)], options, graph_tool)[0]
    assert found.description_length <= together[2].description_length + 1e-6


# --- numbers ------------------------------------------------------------------------------------


def test_p_by_hand():
    assert p_value(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5  # itself, 3 and 4
    assert p_value(5.0, [1.0] * 19) == 1 / 20
    assert np.isnan(p_value(1.0, []))
    assert np.isnan(p_value(np.nan, [1.0]))


def test_agreement_is_scikit_learn_s():
    draw = np.random.default_rng(0)
    for _ in range(5):
        a, b = draw.integers(0, 4, (2, 60))
        assert agreement(a, b) == adjusted_mutual_info_score(a, b)
        assert agreement(a, (a + 1) % 4) == pytest.approx(1.0)
    assert np.isnan(agreement([], []))


def test_kind_and_depth_by_hand():
    graph = EdgeGraph(GraphSpec(n_layers=4, n_heads=2, n_kv_heads=1))
    nodes = [0, 1, 2, 3, 4, 10, 13]  # embed, a0.h0, a0.h1, m0, a1.h0, a3.h0, logits
    assert kind_and_depth(graph.node_table, nodes) == (0, 1, 1, 2, 3, 4, 5)
    assert kind_and_depth(graph.node_table, nodes, cuts=2) == (0, 1, 1, 2, 1, 3, 4)
    by_kind, in_two = coarser(graph.node_table, nodes)
    assert by_kind == (0, 1, 1, 2, 1, 1, 3)
    assert in_two == kind_and_depth(graph.node_table, nodes, cuts=2)


def test_halves_hold_as_many_of_every_group_and_share_nothing():
    groups = np.repeat([0, 1], [8, 5])
    first, second = halves(groups, seed=3)
    assert not (first & second).any()
    for half in (first, second):
        assert np.bincount(groups[half]).tolist() == [4, 2]
    np.testing.assert_array_equal(halves(groups, seed=3), [first, second])
    assert (halves(groups, seed=4)[0] != first).any()


# --- contrast -----------------------------------------------------------------------------------


def test_contrast_is_the_mean_off_the_diagonal_less_the_mean_on_it():
    draw, own = np.random.default_rng(0), np.repeat([0, 1, 2], 10)
    left = draw.normal(size=(30, 3))
    matrix = np.array([left[own == task].mean(0) for task in range(3)])
    off = matrix[~np.eye(3, dtype=bool)].mean()
    found = contrast(left, own, seed=0)
    assert found.value == pytest.approx(off - matrix.trace() / 3, abs=1e-12)


def test_what_spares_no_input_and_takes_much_away_is_no_contrast():
    # rows and columns differ, and no task's own blocks matter more to it: p is uniform
    draw, own = np.random.default_rng(1), np.repeat([0, 1, 2], 8)
    found = []
    for seed in range(100):
        rows, columns = draw.normal(size=(24, 1)), draw.normal(size=(1, 3))
        left = 3 * rows + 2 * columns + draw.normal(size=(24, 3))
        found.append(contrast(left, own, seed, n=199).p)
    assert kstest(found, "uniform").pvalue > 0.01


def test_own_blocks_that_matter_are_found():
    draw, own = np.random.default_rng(2), np.repeat([0, 1, 2], 8)
    left = draw.normal(size=(24, 3)) - 2.0 * (own[:, None] == np.arange(3))
    found = contrast(left, own, seed=0)
    assert found.value > 1
    assert found.p == 1 / 2000
    assert contrast(-left, own, seed=0).p > 0.99


def test_one_task_or_a_value_that_is_not_finite_has_no_contrast():
    for left in (np.zeros((4, 1)), np.full((4, 2), np.nan)):
        assert np.isnan(contrast(left, np.zeros(4, int), seed=0).p)


# --- the null itself ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_planted_partition_is_no_accident_of_degrees_and_order(graph_tool):
    allowed = layered(4, 14)
    side = np.tile(np.repeat([0, 1], 7), 4)  # two halves that hardly read each other
    probability = np.where(side[:, None] == side, 0.7, 0.05)
    pairs = in_layers(allowed, probability, seed=0)
    assert p_of(pairs, allowed, 120, 10, graph_tool) < 0.01


@pytest.mark.proof
def test_of_a_shuffled_graph_p_is_uniform(graph_tool):
    # A graph in layers has blocks for the order alone: what is planted is not, and must not be
    # found. Each of 50 graphs is itself shuffled, and held against 19 shuffles.
    allowed, found = layered(4, 7), []
    probability = np.random.default_rng(0).uniform(0.1, 0.9, (28, 28))
    jobs = []
    for seed in range(50):
        pairs = shuffled(in_layers(allowed, probability, 5), allowed, 1, 1000 * seed)[0]
        graphs = [pairs, *shuffled(pairs, allowed, 19, 1000 * seed + 100)]
        jobs += [Job(graph, 28, 1000 * seed + i) for i, graph in enumerate(graphs)]
    chains = run_jobs(jobs, FLAT, graph_tool)
    shares = np.array([saved(c.description_length, c.description_length_null) for c in chains])
    assert (shares > 0).mean() > 0.5  # or it would be ties that are compared
    found = [p_value(own, draws) for own, *draws in shares.reshape(50, 20)]
    uniform = np.array(found) - np.random.default_rng(1).random(50) / 20  # steps of 1/20 smoothed
    assert kstest(uniform, "uniform").pvalue > 0.01
