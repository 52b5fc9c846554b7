"""Sparse statistics against the dense ones, and against their own parts."""

import numpy as np
import pytest

from edgesweep.storage import fold
from edgesweep.storage.fold.sparse import SparseFold, fold_inputs, part_of, strongest

N_CODES = 40


def inputs(n: int, *, bad: bool = False, seed: int = 0):
    draw = np.random.default_rng(seed)
    for i in range(n):
        codes = draw.choice(N_CODES, 25, replace=True)
        scores = draw.normal(size=25).astype(np.float32)
        if bad and i == 1:
            scores[3] = np.nan
        yield codes, scores


def dense(n: int, **how) -> np.ndarray:
    table = np.zeros((n, N_CODES))
    for row, (codes, scores) in zip(table, inputs(n, **how), strict=True):
        for code, score in zip(codes, scores, strict=True):
            row[code] += score
    return table


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_absent_edges_count_as_zero(n, bad):
    found = fold_inputs(inputs(n, bad=bad)).at(np.arange(N_CODES)).finish()
    wanted = fold.finish(fold.partial(dense(n, bad=bad)))
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=1e-15, err_msg=name)


def test_members_merge_to_all_inputs():
    rows = list(inputs(9))
    merged = fold_inputs(rows[:4]).merge(fold_inputs(rows[4:]))
    whole = fold_inputs(rows)
    assert merged.n_inputs == whole.n_inputs == 9
    np.testing.assert_array_equal(merged.codes, whole.codes)
    np.testing.assert_allclose(merged.stats, whole.stats, rtol=1e-12)


def test_parts_folded_apart_have_the_bits_of_the_whole():
    rows, whole = list(inputs(6)), fold_inputs(inputs(6))
    seen = []
    for part in range(3):
        mine = [(c[part_of(c, 3) == part], s[part_of(c, 3) == part]) for c, s in rows]
        found = fold_inputs(mine)
        seen.append(found.codes)
        assert found.stats.tobytes() == whole.at(found.codes).stats.tobytes()
    assert all(len(codes) for codes in seen)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), whole.codes)


def test_the_strongest_are_kept_and_the_rest_is_told():
    one = fold_inputs([(np.array([5, 1, 9]), np.array([-3.0, 1.0, 1.0]))])
    two = fold_inputs([(np.array([2, 4]), np.array([2.0, 3.0]))])
    kept, dropped = strongest([one, two], 3)
    assert kept.tolist() == [2, 4, 5]
    assert dropped == pytest.approx(2 / 10)
    assert strongest([one, two], 4)[0].tolist() == [1, 2, 4, 5]  # ties by code
    assert strongest([SparseFold.empty()], 3)[1] == 0.0
