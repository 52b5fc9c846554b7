"""Labels of waves that are made."""

import numpy as np
import pytest

from edgesweep.engine.bases.fourier import label, monosemanticity

P = 13
x, y = np.meshgrid(np.arange(P), np.arange(P), indexing="ij")
TURN = 2 * np.pi / P


@pytest.mark.parametrize(
    ("wave", "name"),
    [
        (np.ones((P, P)), "const"),
        (np.cos(3 * TURN * x + 1), "cos(3x)"),
        (np.cos(3 * TURN * x) + np.sin(3 * TURN * y), "cos(3x) + cos(3y)"),
        (np.cos(TURN * (2 * x + 5 * y)), "cos(2x + 5y)"),
    ],
)
def test_one_wave_has_one_term(wave, name):
    first = label(wave)[0]
    assert (first.name, first.share) == (name, pytest.approx(1.0, abs=1e-9))


def test_terms_are_sorted_and_their_first_shares_averaged():
    terms = label(np.cos(TURN * x) * 3 + np.cos(2 * TURN * y))
    assert [term.name for term in terms] == ["cos(1x)", "cos(2y)"]
    assert terms[0].share == pytest.approx(0.9)
    assert label(np.zeros((P, P))) == []
    assert monosemanticity([terms, label(np.ones((P, P)))]) == pytest.approx(0.95)
