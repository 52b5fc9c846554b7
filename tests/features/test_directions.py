"""Directions of bases as nodes of a feature graph: edge ablation of a section of bases, and of
features with the bases as dictionaries, are one function, across attention and norms too."""

import numpy as np
import pytest
import torch

from edgesweep.engine.bases.ablation import AblatedSection
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.rotation import interaction_basis, pca
from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import ZeroNodes
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.training.bases import as_dictionary
from tests.bases import made
from tests.tiny import prompts

WIDTH, N_START, N_END = 12, 9, 7


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_edges_of_a_section_are_edges_among_features(family):
    """Zero patch, no errors, all other sections full; of either layer the first directions."""
    model = tiny_model(family, dtype=torch.float64, n_layers=3, width=WIDTH)
    chain, batch = chain_of(model), PromptBatch.make(prompts(9, (5,)))
    inputs = chain.prepare(batch.clean, batch.real)
    section = chain.section("embed", "resid1")
    moments = made.moments_at(chain, "embed", inputs)
    end = pca(made.moments_at(chain, "resid1", inputs), made.CUT)
    sums = made.second_moments(section, inputs, end, moments, closed=False)
    start = interaction_basis(moments, sums.mean("jacobian"), 0.0, made.CUT)
    mask = np.zeros((end.k, start.k), dtype=bool)
    kept = np.random.default_rng(0).random((N_END, N_START)) < 0.4
    mask[:N_END, :N_START] = kept

    dictionaries = {"embed": as_dictionary(start, N_START), "resid1": as_dictionary(end, N_END)}
    features = FeatureModel(model, dictionaries)
    graph = FeatureGraph.complete(
        features.all_parents(), {"embed": range(N_START), "resid1": range(N_END)}
    )
    circuit = np.ones((1, graph.n_edges), dtype=bool)
    for edge in range(graph.n_edges):
        names = graph.sources[graph.edge_source[edge]], graph.targets[graph.edge_target[edge]]
        source, target = (name.partition("/")[2] for name in names)
        if target:  # not the logits
            circuit[0, edge] = kept[int(target[1:]), int(source[1:])]
    given = FeatureBatch.of(features, batch, ZeroNodes())
    found = run_circuits(
        features, given.inputs, given.clean, given.patch, graph, circuit, errors="zero"
    )

    ablated = AblatedSection(section, (start, end), made.value_at(chain, "embed", inputs), inputs)
    # directions of the end that are no features are left out: they keep what their mean is
    rows = ablated.reached(mask)
    rows[..., N_END:] = 0
    wanted = chain.section("resid1", "logits")(end.decoded(rows), inputs)[:, 0]
    torch.testing.assert_close(found.logits[0], wanted, rtol=1e-9, atol=1e-9)
