"""The fold against a slow oracle, and its bits under every order."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch

from edgesweep.storage.fold import (
    AGGREGATIONS,
    STATS,
    TreeFold,
    empty_partial,
    finish,
    fold,
    merge,
    partial,
)
from edgesweep.sweeps.actor.sums import folded_by_torch, partial_of


def awkward_scores(rows: int, edges: int, seed: int) -> np.ndarray:
    """Wide in range, with zeros of both signs, infinities, NaN, and a column without a number."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((rows, edges)) * 10.0 ** rng.integers(-12, 12, (rows, edges))
    scores[rng.random((rows, edges)) < 0.1] = 0.0
    scores[rng.random((rows, edges)) < 0.1] = -0.0
    scores[rng.random((rows, edges)) < 0.05] = np.nan
    scores[rng.random((rows, edges)) < 0.05] = np.inf
    scores[rng.random((rows, edges)) < 0.05] = -np.inf
    scores[:, 0] = np.nan
    return scores.astype(np.float32)


def oracle(column: np.ndarray) -> dict[str, float]:
    """One edge in exact sums of Python floats."""
    good = [float(v) for v in column if math.isfinite(v)]
    n = len(good)
    if n == 0:
        return {**dict.fromkeys(AGGREGATIONS, math.nan), "n": 0, "n_bad": len(column)}
    return {
        "mean": math.fsum(good) / n,
        "max": max(good),
        "rms": math.sqrt(math.fsum(v * v for v in good) / n),
        "mean_abs": math.fsum(map(abs, good)) / n,
        "max_abs": max(map(abs, good)),
        "n": n,
        "n_bad": len(column) - n,
    }


def shards(n: int, edges: int = 40, rows: int = 5) -> list[np.ndarray]:
    return [awkward_scores(rows, edges, seed) for seed in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 24])
def test_fold_equals_the_oracle(n: int) -> None:
    parts = shards(n)
    found = finish(fold(enumerate(map(partial, parts)), n, 40))
    together = np.concatenate(parts)
    for edge in range(40):
        expected = oracle(together[:, edge])
        scale = {"mean": expected["mean_abs"]}
        for name, value in expected.items():
            error = abs(found[name][edge] - value)
            bound = 1e-12 * max(abs(scale.get(name, value)), 1e-300)
            assert error <= bound or (math.isnan(value) and math.isnan(found[name][edge])), name


def test_every_order_of_arrival_gives_the_same_bits() -> None:
    for n in (2, 3, 5, 6):
        parts = [partial(s) for s in shards(n)]
        expected = fold(enumerate(parts), n, 40).tobytes()
        for order in itertools.permutations(range(n)):
            assert fold(((i, parts[i]) for i in order), n, 40).tobytes() == expected


def test_order_would_matter_without_the_tree() -> None:
    """The test above can fail: plain sums in two orders differ."""
    parts = [partial(s) for s in shards(24)]

    def plain(order: list[int]) -> bytes:
        total = empty_partial(40)
        for i in order:
            total = merge(total, parts[i])
        return total.tobytes()

    assert plain(list(range(24))) != plain(list(range(23, -1, -1)))


def test_many_shuffles_with_shards_missing() -> None:
    parts = [partial(s) for s in shards(37)]
    present = [i for i in range(37) if i not in (0, 11, 12, 13, 36)]
    expected = fold(((i, parts[i]) for i in present), 37, 40).tobytes()
    shuffler = random.Random(5)
    for _ in range(30):
        shuffler.shuffle(present)
        assert fold(((i, parts[i]) for i in present), 37, 40).tobytes() == expected


@pytest.mark.parametrize("width", [1, 7, 40])
def test_a_range_of_edges_folds_to_the_same_bits(width: int) -> None:
    parts = [partial(s) for s in shards(9)]
    whole = fold(enumerate(parts), 9, 40)
    for low in range(0, 40, width):
        piece = [p[:, low : low + width] for p in parts]
        found = fold(enumerate(piece), 9, piece[0].shape[1])
        assert found.tobytes() == whole[:, low : low + width].tobytes()


@pytest.mark.parametrize("width", [1, 7])
def test_a_partial_of_a_range_is_the_range_of_the_partial(width: int) -> None:
    scores = awkward_scores(33, 40, 1)
    for low in range(0, 40, width):
        found = partial(np.ascontiguousarray(scores[:, low : low + width]))
        assert found.tobytes() == partial(scores)[:, low : low + width].tobytes()


def test_the_fold_holds_few_nodes_when_shards_come_in_order() -> None:
    tree = TreeFold(1000)
    held = []
    for i in range(1000):
        tree.add(i, empty_partial(1))
        held.append(len(tree._nodes))
    assert max(held) <= 10


def test_no_shards_no_rows_no_number() -> None:
    found = finish(fold([], 4, 3))
    assert found["n"].tolist() == [0, 0, 0]
    assert all(np.isnan(found[name]).all() for name in AGGREGATIONS)
    assert partial(np.zeros((0, 3), np.float32)).tobytes() == empty_partial(3).tobytes()


def test_by_hand() -> None:
    scores = np.array([[1, -3], [np.nan, 1], [2, -0.0]], np.float32)
    assert dict(zip(STATS, partial(scores).tolist(), strict=True)) == {
        "n": [2, 3],
        "n_bad": [1, 0],
        "sum": [3, -2],
        "sumsq": [5, 10],
        "sum_abs": [3, 4],
        "max": [2, 1],
        "max_abs": [2, 3],
    }


def test_a_leaf_comes_once() -> None:
    tree = TreeFold(2)
    tree.add(0, empty_partial(1))
    for index in (0, 2, -1):
        with pytest.raises(ValueError, match=f"leaf {index} of 2"):
            tree.add(index, empty_partial(1))


@pytest.mark.parametrize("rows", [[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0]])
def test_a_zero_has_one_sign_whatever_the_order(rows: list[float]) -> None:
    largest = partial(np.array([[v] for v in rows], np.float32))[STATS.index("max")]
    assert not np.signbit(largest).any()


def test_torch_folds_to_the_same_bits() -> None:
    """What a GPU does, here on the CPU: row by row, one rounded operation at a time."""
    scores = awkward_scores(50, 40, 3)
    found = folded_by_torch(torch.from_numpy(scores)).numpy()
    assert found.tobytes() == partial(scores).tobytes()
    assert partial_of(torch.from_numpy(scores)).tobytes() == found.tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_folds_to_the_same_bits() -> None:
    scores = awkward_scores(50, 40, 3)
    assert partial_of(torch.from_numpy(scores).cuda()).tobytes() == partial(scores).tobytes()
