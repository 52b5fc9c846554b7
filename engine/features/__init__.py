"""Graphs over features: sites, node values, attribution of nodes and edges; ablations of them."""

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edgelist import InputEdges
from edgesweep.engine.features.edges import (
    EdgeSettings,
    FeatureEdges,
    attribute_edges,
    contributions,
)
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import (
    NodeAttribution,
    NodeScores,
    attribute_nodes,
    node_scores,
)
from edgesweep.engine.features.values import (
    FeaturePatch,
    NodeValues,
    active_features,
    make_feature_patch,
    node_mean_partials,
    run_nodes,
)

__all__ = [
    "EdgeSettings",
    "FeatureBatch",
    "FeatureEdges",
    "FeatureModel",
    "FeaturePatch",
    "InputEdges",
    "NodeAttribution",
    "NodeScores",
    "NodeValues",
    "active_features",
    "attribute_edges",
    "attribute_nodes",
    "contributions",
    "make_feature_patch",
    "node_mean_partials",
    "node_scores",
    "run_nodes",
]
