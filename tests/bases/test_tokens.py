"""Labels of directions that are made to be of something."""

from __future__ import annotations

import pytest
import torch

from edgesweep.engine.bases.tokens import told_by_data, told_by_weights


def test_a_direction_of_positions_and_one_of_a_token():
    draw = torch.Generator().manual_seed(0)
    position = torch.arange(6).repeat(50)
    token = torch.randint(5, (300,), generator=draw)
    f_hat = torch.stack([position.double(), (token == 3).double(), torch.zeros(300).double()], 1)
    of_position, of_token, of_nothing = told_by_data(f_hat, position, token, "t{}".format)
    assert of_position[0].kind == "position"
    assert of_position[0].share == pytest.approx(1)
    assert of_token[0].share < 0.1
    assert (of_token[1].kind, of_token[1].term) == ("at", "+t3")
    share = 1 - float((token == 3).double().mean())  # (1 − p)² p of p (1 − p)
    assert of_token[1].share == pytest.approx(share)
    assert of_nothing == []


def test_what_a_direction_writes():
    unembed = torch.tensor([[3.0, 0.0, 0.0, 1.0], [0.0, 0.0, 2.0, 2.0]]).double()
    decode = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]).double()
    first, second, none = told_by_weights(decode, unembed, "t{}".format)
    assert first[0].term == "+t0"
    assert first[0].share == pytest.approx(4 / (4 + 1 + 1 + 0))
    assert {told.term for told in second[:2]} <= {"−t2", "−t3", "+t0", "+t1"}
    assert none == []
