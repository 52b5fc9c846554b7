"""What directions of a modular-addition network are of: their leading Fourier terms.

LIB appendix F.
The activations a(x, y) of a direction over all p² inputs have the transform F. Of the power ΣP, P =
|F|², a term has the share

    const               P_00
    cos(kx), cos(ky)    P_k0 + P_−k,0, and P_0k + P_0,−k; one term if they differ by less than 0.01
    cos(k_x x ± k_y y)  2 A±²,  with A₊ = |F_{kx,ky}|, A₋ = |F_{kx,−ky}|
    cos · cos, sin · sin  (A₊ ± A₋)², in place of these two where the data's sums prefer it

The first form is taken iff ΣA₊²/ΣA₋² is larger than Σ(A₊ + A₋)²/Σ(A₊ − A₋)². So, as published,
a wave of a difference alone is told as products. Phases are ignored.
Pinned by tests/bases/test_golden.py to the published labels, and to waves that are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

#: a label's terms add up to this share, or end after one that is less than this, or are so many
ENOUGH, LITTLE, MOST = 0.995, 0.005, 7
#: cosines of x and of y whose shares differ by less are one term
ALIKE = 0.01


@dataclass(frozen=True)
class Term:
    """A Fourier term, and its share of the power."""

    name: str
    share: float


def label(activations: Float[np.ndarray, "p p"]) -> list[Term]:
    """The leading terms of a direction, the largest first; none of one that is zero throughout."""
    power = np.abs(np.fft.fft2(activations))
    total = float((power**2).sum())
    if total == 0:
        return []
    terms = sorted(_terms(power, total), key=lambda term: -term.share)
    found: list[Term] = []
    for term in terms[:MOST]:
        found.append(term)
        if sum(t.share for t in found) >= ENOUGH or term.share < LITTLE:
            break
    return found


def _terms(size: Float[np.ndarray, "p p"], total: float) -> list[Term]:
    half = range(1, (len(size) + 1) // 2)
    power = size**2 / total
    found = [Term("const", float(power[0, 0]))]
    for k in half:
        x, y = (float(axis[k] + axis[-k]) for axis in (power[:, 0], power[0]))
        if abs(x - y) < ALIKE:
            found.append(Term(f"cos({k}x) + cos({k}y)", x + y))
        else:
            found += [Term(f"cos({k}x)", x), Term(f"cos({k}y)", y)]
    block = slice(1, len(half) + 1)
    plus = size[block, block]
    minus = size[block, :0:-1][:, : len(half)]
    return found + _mixed(plus, minus, total)


def _mixed(plus: np.ndarray, minus: np.ndarray, total: float) -> list[Term]:
    """Terms of both, as waves of sums and differences or as products."""
    both, apart = (plus + minus) ** 2, (plus - minus) ** 2
    tiny = np.finfo(float).tiny
    as_waves = (plus**2).sum() / max((minus**2).sum(), tiny) > both.sum() / max(apart.sum(), tiny)
    first, second = (2 * plus**2, 2 * minus**2) if as_waves else (both, apart)
    names = ("cos({}x + {}y)", "cos({}x - {}y)")
    if not as_waves:
        names = ("cos({}x) * cos({}y)", "sin({}x) * sin({}y)")
    return [
        Term(name.format(i + 1, j + 1), float(share[i, j]) / total)
        for name, share in zip(names, (first, second), strict=True)
        for i, j in np.ndindex(*plus.shape)
    ]


def monosemanticity(labels: list[list[Term]], n: int = 10) -> float:
    """The mean share of the first term, of the first n directions (LIB figure 4)."""
    shares = [terms[0].share for terms in labels[:n] if terms]
    return float(np.mean(shares)) if shares else float("nan")
