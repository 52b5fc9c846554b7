"""Quadrature rules: weights, ends, and the polynomials each is exact for."""

import pytest

from edgesweep.engine.methods import MethodError
from edgesweep.engine.methods.quadrature import RULES, points


def integral(rule, steps, power):
    return sum(weight * t**power for t, weight in points(rule, steps))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 3, 5, 16])
def test_weights_sum_to_one_and_points_go_from_patch_to_clean(rule, steps):
    made = points(rule, steps)
    assert len(made) == steps
    assert sum(weight for _, weight in made) == pytest.approx(1, abs=1e-14)
    assert [t for t, _ in made] == sorted(t for t, _ in made)
    assert all(0 <= t <= 1 for t, _ in made)


@pytest.mark.parametrize(("rule", "degree"), [("midpoint", 1), ("trapezoid", 1)])
@pytest.mark.parametrize("steps", [2, 5])
def test_straight_lines_are_exact(rule, degree, steps):
    for power in range(degree + 1):
        assert integral(rule, steps, power) == pytest.approx(1 / (power + 1), abs=1e-14)
    assert abs(integral(rule, steps, 2) - 1 / 3) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gauss_legendre_is_exact_to_degree_2m_minus_1(steps):
    for power in range(2 * steps):
        assert integral("gauss_legendre", steps, power) == pytest.approx(1 / (power + 1), abs=1e-14)
    power = 2 * steps
    assert abs(integral("gauss_legendre", steps, power) - 1 / (power + 1)) > 1e-9


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_converges(rule):
    errors = [abs(integral(rule, steps, 20) - 1 / 21) for steps in (8, 64)]
    assert errors[1] < errors[0] / 4


def test_ends_that_each_rule_meets():
    """Which ends are used changes what a metric flat at the clean end, or a zero patch, gives."""
    met = {rule: [t for t, _ in points(rule, 4) if t in (0.0, 1.0)] for rule in RULES}
    assert met == {
        "midpoint": [],
        "right": [1.0],
        "left": [0.0],
        "trapezoid": [0.0, 1.0],
        "gauss_legendre": [],
    }


def test_right_points_are_those_of_the_papers():
    assert points("right", 4) == [(0.25, 0.25), (0.5, 0.25), (0.75, 0.25), (1.0, 0.25)]


@pytest.mark.parametrize(
    ("rule", "steps", "message"),
    [
        (
            "simpson",
            3,
            "rule 'simpson' is none of midpoint, right, left, trapezoid",
        ),
        ("right", 0, "needs at least one point; got steps 0"),
        ("trapezoid", 1, "rule 'trapezoid' with steps 1: .*use steps >= 2"),
    ],
)
def test_refusals_say_what_to_do(rule, steps, message):
    with pytest.raises(MethodError, match=message):
        points(rule, steps)
