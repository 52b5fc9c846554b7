"""Modules of interaction graphs: by hand, of two networks in one, and beside rewired graphs."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from edgesweep.engine.bases.structure.layerblocks import layer_blocks
from edgesweep.engine.bases.structure.modularity import (
    Section,
    Wiring,
    leiden,
    modularity,
    modules_of,
    rewired,
)
from edgesweep.engine.blockmodel import find_interpreter
from tests.bases import made

SQUARE = np.array([[np.e**3, 1.0, 0.0], [np.e, np.e**2, np.e**-5]])


def two_groups(seed: int = 0, n: int = 20) -> tuple[Wiring, np.ndarray]:
    """Three layers of two groups; directions of a group act on each other more often and more."""
    draw = np.random.default_rng(seed)
    group = np.tile(np.repeat([0, 1], n // 2), 3)
    same = group[:n][:, None] == group[:n][None]
    sections = []
    for layer in range(2):
        linked = draw.random((n, n)) < np.where(same, 0.5, 0.05)
        square = np.where(linked, np.exp(draw.normal(np.where(same, 5.0, 1.0), 1.0)), 0.0)
        sections.append(Section(layer, layer + 1, square, n * n))
    return Wiring.of([n] * 3, sections), group


def halves() -> tuple[Wiring, list[int]]:
    """The interactions of two networks in one, and the half that each direction is of."""
    chain, inputs = made.halves()
    found = made.bases(chain, inputs)
    layers = ["input", "hidden0", "hidden1"]
    sections = []
    for place, (start, _) in enumerate(pairwise(layers)):
        square = made.interactions(chain, inputs, found, start).mean_square[:, 1:].numpy()
        sections.append(
            Section(place, place + 1, square, int((square > 1e-9 * square.max()).sum()))
        )
    half = []
    for layer, n in zip(layers, (3, 3, 2), strict=True):
        decode = found[layer].decode.square()
        half += (decode[:, :n].sum(1) > 0.5 * decode.sum(1)).int().tolist()
    return Wiring.of([found[layer].k for layer in layers], sections), half


def test_weights_are_logarithms_to_the_weakest_that_is_needed():
    wiring = Wiring.of([3, 2], [Section(0, 1, SQUARE, 4)])
    assert wiring.pairs.tolist() == [[0, 3], [0, 4], [1, 4]]  # that of weight 1 is the weakest
    np.testing.assert_allclose(wiring.weights, [3, 1, 2])
    assert wiring.linked.tolist() == [0, 1, 3, 4]
    assert len(Wiring.of([3, 2], [Section(0, 1, SQUARE, 0)]).pairs) == 0


def test_directions_without_interactions_are_modules_by_themselves():
    wiring = Wiring.of([3, 2], [Section(0, 1, SQUARE, 4)])
    modules = leiden(wiring, 1.0, 0)
    assert modules.count(modules[2]) == 1
    assert len(set(modules)) < 5
    assert leiden(Wiring.of([3, 2], []), 1.0, 0) == (0, 1, 2, 3, 4)


def test_modularity_is_what_it_is_by_hand():
    wiring = Wiring.of([3, 2], [Section(0, 1, SQUARE, 4)])
    strengths, inside = np.array([4 + 3, 2 + 3]), 2 * (3 + 2)
    for resolution in (1.0, 0.5):
        by_hand = inside / 12 - resolution * ((strengths / 12) ** 2).sum()
        # directions 0 and 3; 1 and 4; 2 by itself
        assert modularity(wiring, (0, 1, 2, 0, 1), resolution) == pytest.approx(by_hand)
    assert np.isnan(modularity(Wiring.of([1, 1], []), (0, 1)))


def test_modularity_is_leiden_s():
    pytest.importorskip("leidenalg")
    import igraph
    import leidenalg

    wiring, group = two_groups()
    graph = igraph.Graph(n=wiring.n, edges=wiring.pairs.tolist())
    for resolution in (1.0, 0.5):
        theirs = leidenalg.RBConfigurationVertexPartition(
            graph, group.tolist(), list(wiring.weights), resolution_parameter=resolution
        )
        quality = theirs.quality() / (2 * wiring.weights.sum())
        assert modularity(wiring, tuple(group), resolution) == pytest.approx(quality)


def test_two_networks_in_one_are_two_modules():
    pytest.importorskip("leidenalg")
    wiring, half = halves()
    assert all(half[a] == half[b] for a, b in wiring.pairs)  # nothing crosses
    for resolution in (1.0, 0.1):
        found = modules_of(wiring, resolution, 3, 0, 0)
        pairs = {(found.modules[i], half[i]) for i in wiring.linked}
        assert len(pairs) == len({module for module, _ in pairs})  # none is of both halves
    assert len(pairs) == 2


def test_groups_are_found_and_are_no_accident():
    pytest.importorskip("leidenalg")
    wiring, group = two_groups()
    found = modules_of(wiring, 0.5, 3, 0, 19)
    assert len(set(zip(found.modules, group.tolist(), strict=True))) == 2
    assert found.q == modularity(wiring, found.modules, 0.5)
    assert found.agreement == pytest.approx(1.0)
    assert found.p == pytest.approx(1 / 20)
    assert found.modules == modules_of(wiring, 0.5, 3, 0, 0).modules
    assert leiden(wiring, 0.5, 0) == leiden(wiring, 0.5, 0)


def test_rewired_graphs_keep_degrees_and_the_weights_of_what_is_acted_on():
    wiring, _ = two_groups()

    def kept(of):
        out = Counter(of.pairs[:, 0].tolist())
        into = Counter(of.pairs[:, 1].tolist())
        dealt = sorted(zip(of.pairs[:, 0].tolist(), of.weights.tolist(), strict=True))
        return out, into, dealt

    for other in rewired(wiring, 3, 0):
        assert kept(other) == kept(wiring)
        assert (other.layer[other.pairs[:, 1]] - other.layer[other.pairs[:, 0]] == 1).all()
        assert 0 < (other.pairs == wiring.pairs).all(1).mean() < 0.8


def test_block_models_are_of_one_layer_and_find_the_groups():
    interpreter = find_interpreter()
    if interpreter is None:
        pytest.skip("no interpreter has graph-tool")
    wiring, group = two_groups()
    found = layer_blocks(wiring, 2, 0, interpreter)
    wanted = set(zip(wiring.layer.tolist(), group.tolist(), strict=True))
    assert len(set(zip(found.blocks, wiring.layer.tolist(), group.tolist(), strict=True))) == len(
        wanted
    )
    assert len(set(found.blocks)) == len(wanted)
    assert found.length < found.one_a_layer
    assert found.agreement == pytest.approx(1.0)
