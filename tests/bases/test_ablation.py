"""Ablated sections, against one run for each later direction and against the feature machinery; and
the searches."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from edgesweep.engine.bases.ablation import AblatedSection, ablated_nodes, spliced, strongest
from edgesweep.engine.bases.search import bisected, log_sizes, smallest_robust
from tests.bases import made

NETWORKS = {
    "relu": (made.mlp, made.arrays),
    "plain": (made.transformer, made.tokens),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def network(name):
    make, given = NETWORKS[name]
    chain = make()
    inputs = made.prepared(chain, given())
    return chain, inputs, made.bases(chain, inputs)


def sections(chain):
    names = list(chain.widths)
    return [(a, b) for a, b in zip(names, names[1:], strict=False)]  # noqa: RUF007


def ablated(chain, inputs, bases, start, end):
    f = made.value_at(chain, start, inputs)
    return AblatedSection(chain.section(start, end), (bases[start], bases[end]), f, inputs)


@networks
def test_each_direction_is_computed_from_what_its_row_keeps(name):
    chain, inputs, bases = network(name)
    for start, end in sections(chain):
        a, b, section = bases[start], bases[end], chain.section(start, end)
        mask = np.random.default_rng(0).random((b.k, a.k)) < 0.5
        f_hat = a.encoded(made.value_at(chain, start, inputs))
        columns = []
        for i, row in enumerate(mask):
            kept = a.decoded(f_hat * torch.from_numpy(row))
            columns.append(((section(kept, inputs) - b.mean) @ b.encode)[..., i])
        wanted = spliced(chain, end, b.decoded(torch.stack(columns, -1)), inputs)
        mine = ablated(chain, inputs, bases, start, end)
        again = [mine.logits(mask) for _ in range(2)]  # the second from what was kept
        torch.testing.assert_close(again[0], wanted, rtol=1e-9, atol=1e-9)
        assert torch.equal(again[0], again[1])


@networks
def test_with_all_edges_and_nothing_cut_it_is_the_network(name):
    chain, inputs, bases = network(name)
    for start, end in sections(chain):
        a, b = bases[start], bases[end]
        if a.k < a.width or b.k < b.width:  # a layer's values may lie in fewer dimensions
            continue
        whole = spliced(chain, start, made.value_at(chain, start, inputs), inputs)
        found = ablated(chain, inputs, bases, start, end).logits(np.ones((b.k, a.k), bool))
        torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-8)


@networks
def test_no_direction_leaves_the_mean_and_all_leave_the_layer(name):
    chain, inputs, bases = network(name)
    for layer in list(chain.widths)[:-1]:
        f, basis = made.value_at(chain, layer, inputs), bases[layer]
        none = ablated_nodes(chain, layer, basis, f, 0, inputs)
        mean = spliced(chain, layer, basis.mean.expand_as(f), inputs)
        torch.testing.assert_close(none, mean, rtol=1e-12, atol=1e-12)
        whole = ablated_nodes(chain, layer, basis, f, basis.k, inputs)
        assert torch.equal(whole, spliced(chain, layer, f, inputs))


def test_ties_are_kept():
    square = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    assert strongest(square, 0).sum() == 0
    assert strongest(square, 2).tolist() == [[True, False], [False, True]]
    assert strongest(square, 3).sum() == strongest(square, 4).sum() == 4


# --- searches -----------------------------------------------------------------------------------


def published(total, passes):
    """The published loop, as it stands there."""
    low, up, asked = 0, total, []
    while up - low > 1:
        p = (up + low) // 2
        if p == low:
            p += 1
        if p == up:
            p -= 1
        asked.append(total - p)
        if passes(total - p):
            low = p
        else:
            up = p
    return total - low, asked


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_steps_tried_ahead_change_nothing(seed, levels):
    draw = random.Random(seed)
    total = draw.randrange(2, 3000)
    good = {k: k > total // 3 or draw.random() < 0.2 for k in range(total + 1)}  # not monotone
    batches = []

    def passes(sizes):
        batches.append(list(sizes))
        return {k: good[k] for k in batches[-1]}

    needed, asked = bisected(total, passes, levels)
    assert (needed, asked) == published(total, good.__getitem__)
    assert len(batches) <= -(-len(asked) // levels)


def test_the_robust_rule_is_not_misled_by_luck():
    assert smallest_robust({1: False, 2: True, 3: False, 5: True, 9: True}) == 5
    assert smallest_robust({1: True, 2: False}) is None
    assert log_sizes(100, 3) == [1, 10, 100]
