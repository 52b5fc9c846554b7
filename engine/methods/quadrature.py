"""Quadrature from patch (t = 0) to clean (t = 1): ∫₀¹ f(t) dt ≈ Σ_k w_k f(t_k).

    right            t_k = k/m, k = 1…m: the papers' Riemann sum; meets the clean end, not the patch
    left             t_k = k/m, k = 0…m − 1: the sum of EAP-IG's published code (Hanna et al. 2024),
                     whose paper prints the right one; meets the patch, not the clean end
    midpoint         t_k = (k − ½)/m: neither end; exact for straight lines
    trapezoid        m points with both ends among them, the ends at half weight; m ≥ 2
    gauss_legendre   exact for polynomials of degree 2m − 1

The weights sum to one. The ends matter: a metric that compares with the clean run has no gradient
at t = 1, and a zero patch sits on a norm's singular point at t = 0. Pinned by
tests/methods/test_quadrature.py.
"""

from collections.abc import Callable

import numpy as np

from edgesweep.engine.methods.base import MethodError

Points = list[tuple[float, float]]


def _right(steps: int) -> Points:
    return [(k / steps, 1 / steps) for k in range(1, steps + 1)]


def _left(steps: int) -> Points:
    return [(k / steps, 1 / steps) for k in range(steps)]


def _midpoint(steps: int) -> Points:
    return [((k + 0.5) / steps, 1 / steps) for k in range(steps)]


def _trapezoid(steps: int) -> Points:
    if steps < 2:
        raise MethodError(
            f"rule 'trapezoid' with steps {steps}: it needs both ends of the path; "
            "use steps >= 2, or rule midpoint"
        )
    last = steps - 1
    return [(k / last, (0.5 if k in (0, last) else 1.0) / last) for k in range(steps)]


def _gauss_legendre(steps: int) -> Points:
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    return [(float(t + 1) / 2, float(w) / 2) for t, w in zip(nodes, weights, strict=True)]


_POINTS: dict[str, Callable[[int], Points]] = {
    "midpoint": _midpoint,
    "right": _right,
    "left": _left,
    "trapezoid": _trapezoid,
    "gauss_legendre": _gauss_legendre,
}

#: the rules by name
RULES = tuple(_POINTS)


def points(rule: str, steps: int) -> Points:
    """`steps` pairs (t, weight), by increasing t.

    Raises:
        MethodError: an unknown rule, no point, or one point for a rule that needs both ends.
    """
    if rule not in _POINTS:
        raise MethodError(f"rule {rule!r} is none of {', '.join(RULES)}")
    if steps < 1:
        raise MethodError(f"a quadrature needs at least one point; got steps {steps}")
    return _POINTS[rule](steps)
