"""Dictionaries of 32,768 features: right, and never a table of features by features."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgesweep.engine.dictionaries.base import Relu
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, attribute_edges
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_nodes
from edgesweep.engine.network.pullback import SegmentSlopes
from tests.features.made import feature_patch
from tests.features.test_edge_attribution import _compare, by_position
from tests.oracles.slow_features import SlowAttribution
from tests.tiny import model_and_batch

N_FEATURES, N_ON = 32_768, 12


class Largest(TorchDispatchMode):
    """Notes the numbers of the largest tensor that anything makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // 8)
        return out


def large_relu(values, seed):
    """Random unit directions of which about `N_ON` are on at a position."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(N_FEATURES, values.shape[-1], generator=draw, dtype=values.dtype)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    bias = values.mean((0, 1))
    level = ((values - bias) @ rows.T).topk(N_ON, dim=-1).values[..., -1].mean()
    return Relu(rows, -level * torch.ones(N_FEATURES, dtype=values.dtype), rows, bias)


@pytest.fixture(scope="module")
def ends():
    model, batch = model_and_batch("gpt_neox", dtype=torch.float64, n=1)
    sites = ("embed", "resid0", "resid2")
    bare = FeatureModel(model, {s: large_relu(torch.zeros(1, 1, 32).double(), 0) for s in sites})
    with torch.no_grad():
        values = bare.site_values(model.run(model.prepare(batch.clean, batch.real)))
    features = FeatureModel(model, {s: large_relu(values[s], i) for i, s in enumerate(sites)})
    return FeatureBatch.of(features, batch, feature_patch(features, "counterfactual"))


@pytest.mark.parametrize("site", ["resid0", "resid2"])
def test_edges_are_the_oracles(ends, site):
    settings = EdgeSettings(steps=2, contracted=False)
    patch = feature_patch(ends.features, "counterfactual")
    slow = SlowAttribution(
        ends.features, ends.batch.prompts[0], patch, "logit_diff", settings.rule, settings.steps
    )
    raw = by_position(ends, "logit_diff", settings, 0, site)[0]
    targets = slow.targets(site)
    assert len(targets) > 50
    for target in [targets[i] for i in (5, 20, -60, -1)]:
        expected = slow.target(site, target).contributions
        _compare(raw.get(target, {}), expected, 1e-9, target)


@pytest.mark.parametrize("keep", [None, 100])
def test_no_table_of_features_by_features(ends, keep):
    settings = EdgeSettings(steps=2, keep=keep)
    nodes = attribute_nodes(ends, "logit_diff", steps=2)
    with Largest() as largest:
        found = attribute_edges(ends, nodes, "logit_diff", settings)
    assert found.n_targets.sum() > 150
    # slopes at every step and position, and the dictionaries themselves
    n_positions, d_model = ends.inputs.embed.shape[1:]
    assert largest.numbers <= N_FEATURES * max(d_model, 2 * n_positions)
    if keep is not None:
        assert len(found.inputs[0].weight) == keep
        assert found.inputs[0].dropped_abs > 0


def test_micro_batches_bound_what_is_held(ends, monkeypatch):
    """No tensor of the pull-back is larger than a micro-batch."""
    nodes = attribute_nodes(ends, "logit_diff", steps=2)
    largest, pull = Largest(), SegmentSlopes.pull

    def watched(*args):
        with largest:
            return pull(*args)

    monkeypatch.setattr(SegmentSlopes, "pull", watched)
    for micro_bytes in (2**16, 2**19):
        largest.numbers = 0
        settings = EdgeSettings(steps=2, micro_bytes=micro_bytes)
        attribute_edges(ends, nodes, "logit_diff", settings)
        assert micro_bytes / 16 <= 8 * largest.numbers <= micro_bytes
