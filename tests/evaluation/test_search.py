"""The search over sizes against every size tried, on curves that rise, that dip, and on noise."""

from collections.abc import Callable

import numpy as np
import pytest

from edgesweep.engine.statistics.search import (
    Bracket,
    Halving,
    ask,
    between,
    bracket,
    cheapest,
    rounds,
)

Curve = Callable[[int], float]
LEVELS = (0.8, 0.95)
TOP = 5000
GRID = (10, 46, 215, 1000, 3000)


def rising(size: int) -> float:
    return size / (size + 60)


def dipping(size: int) -> float:
    """0.8 is reached at 240, and lost again between 900 and 1100."""
    return rising(size) - 0.3 * (900 <= size <= 1100)


def noise(seed: int) -> Curve:
    draws = np.random.default_rng(seed).random(TOP + 1)
    return lambda size: float(rising(size) + 0.4 * draws[size] - 0.2)


def passes(value: float, level: float) -> bool:
    return abs(1 - value) <= 1 - level


def by_trying(curve: Curve, level: float, sizes: range) -> int | None:
    """The smallest of some sizes from which on all of them pass."""
    answer = None
    for size in reversed(sizes):
        if not passes(curve(size), level):
            break
        answer = size
    return answer


def searched(
    curve: Curve, levels: tuple[float, ...] = LEVELS, grid: tuple[int, ...] = GRID, each: int = 2
) -> tuple[list[Bracket], dict[int, float], int]:
    """What is known in the end, what was measured, and how many rounds it took."""
    measured, n = {size: curve(size) for size in grid}, 0
    while True:
        passed = [{s: passes(v, level) for s, v in measured.items()} for level in levels]
        known = [bracket(of, TOP) for of in passed]
        asked = ask(known, each)
        if not asked:
            return known, measured, n
        assert not set(asked) & set(measured), "a size is measured twice"
        measured |= {size: curve(size) for size in asked}
        n += 1


@pytest.mark.parametrize("each", [1, 2, 3, 7])
@pytest.mark.parametrize(("curve", "grid"), [(rising, ()), (rising, GRID), (dipping, GRID)])
def test_the_answer_is_that_of_trying_every_size(curve, grid, each):
    known, measured, n = searched(curve, grid=grid, each=each)
    every = range(1, TOP + 1)
    assert [b.passes for b in known] == [by_trying(curve, level, every) for level in LEVELS]
    assert n <= rounds(TOP, each)
    assert len(measured) - len(grid) <= len(LEVELS) * (each * n) + 1


@pytest.mark.parametrize("seed", range(20))
def test_of_noise_the_answer_is_a_neighbour_and_all_larger_measured_sizes_pass(seed):
    known, measured, _ = searched(noise(seed), levels=(0.75, 0.9))
    for level, found in zip((0.75, 0.9), known, strict=True):
        mine = sorted(measured)
        failing = [size for size in mine if not passes(measured[size], level)]
        assert found.fails == max(failing, default=0)
        if found.passes is None:
            assert found.fails == TOP, "not even everything passes"
        else:
            assert found.passes - found.fails == 1
            assert all(passes(measured[s], level) for s in mine if s >= found.passes)


def test_overshoot_does_not_count():
    known, _, _ = searched(lambda size: 1.3 if size < 2000 else 1.0, levels=(0.8,))
    assert known[0].passes == 2000


def test_a_level_that_everything_misses_is_not_reached():
    known, measured, _ = searched(lambda size: 0.5)
    assert [b.is_reached for b in known] == [False, False]
    assert measured[TOP] == 0.5


def test_within_a_share_the_search_ends_sooner():
    found = bracket({980: False, 1000: True}, TOP)
    assert found.is_open()
    assert not found.is_open(within=0.02)
    assert ask([found], 2) == [986, 993]
    assert ask([found], 2, within=0.02) == []


def test_levels_with_the_same_ends_are_asked_for_together():
    both = Bracket(0, 100, TOP)
    assert ask([both, both], 2) == between(0, 100, 4) == [20, 40, 60, 80]
    assert between(4, 6, 3) == [5]
    assert between(4, 5, 3) == []


def test_how_many_at_once_is_cheapest():
    assert [cheapest(n) for n in (1, 2, 3, 6)] == [3, 2, 1, 1]


# --- bisection as it is published --------------------------------------------------------------


def published(curve: Curve, level: float, total: int) -> tuple[int, list[int]]:
    """LIB's search, step by step: how many edges are kept, and the sizes that it measured."""
    lower, upper, seen = 0, total, []
    while upper - lower > 1:
        cut = (upper + lower) // 2
        if cut == lower:
            cut += 1
        if cut == upper:
            cut -= 1
        seen.append(total - cut)
        if passes(curve(total - cut), level):
            lower = cut
        else:
            upper = cut
    return total - lower, seen


@pytest.mark.parametrize("curve", [rising, dipping, *(noise(seed) for seed in range(5))])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_speculative_is_sequential_is_published(curve, depth):
    search, measured, waves = Halving(0, TOP, up=True), dict[int, bool](), 0
    while asked := search.ahead(measured, depth):
        assert len(asked) <= 2**depth - 1
        measured |= {size: passes(curve(size), 0.8) for size in asked}
        waves += 1
    answer, seen = published(curve, 0.8, TOP)
    assert search.answer(measured) == answer
    assert set(seen) <= set(measured)
    assert waves == -(-len(seen) // depth)


def test_fourteen_steps_are_four_waves():
    """129 · 129 edges, as between two layers of LIB's modular addition."""
    search, measured, waves = Halving(0, 129 * 129, up=True), dict[int, bool](), 0
    while asked := search.ahead(measured, 4):
        measured |= {size: size >= 133 for size in asked}
        waves += 1
    assert search.answer(measured) == 133
    assert waves == 4
