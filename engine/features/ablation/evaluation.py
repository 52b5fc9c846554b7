"""Per-input metrics of circuits of features, of the full model and of the empty circuit.

Mirrors `engine.evaluation`. Faithfulness φ = (λ(G) − λ(∅)) / (λ(M) − λ(∅)) is a ratio of means over
the data (`engine.evaluation.faithfulness`), so nothing is averaged here: sums are, of activation
mass. M is the model whatever the error mode; unless errors are nodes, the graph of all nodes is not
the model, and its distance from it is part of the reference. ∅ is the run that keeps nothing, in
the error mode at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from edgesweep.engine.evaluation import ByMetric
from edgesweep.engine.features.ablation.edge_ablation import FeatureAblation, MaskRows, run_circuits
from edgesweep.engine.features.ablation.node_ablation import (
    KeptNodes,
    NodeSet,
    all_nodes,
    node_set,
    run_node_sets,
)
from edgesweep.engine.features.ablation.setting import MICRO_BYTES
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.graph import FeatureGraph


def evaluate_feature_circuits(
    given: FeatureBatch,
    graph: FeatureGraph,
    masks: MaskRows,
    metrics: Sequence[str],
    *,
    errors: str = "node",
    micro_bytes: int = MICRO_BYTES,
) -> tuple[ByMetric, FeatureAblation]:
    """Edge ablation: each metric of each circuit, `[circuits, inputs]`, and what the runs took.

    Args:
        masks: kept edges of `graph`, `[circuits, edges]`.
        errors: one of `setting.ERROR_MODES`.
    """
    done = run_circuits(
        given.features,
        given.inputs,
        given.clean,
        given.patch,
        graph,
        masks,
        errors=errors,
        micro_bytes=micro_bytes,
    )
    return given.measured(metrics, done.logits), done


def evaluate_feature_nodes(
    given: FeatureBatch,
    graph: FeatureGraph,
    kept: Bool[np.ndarray, "circuits nodes"],
    metrics: Sequence[str],
    *,
    errors: str = "node",
    micro_bytes: int = MICRO_BYTES,
) -> ByMetric:
    """Node ablation: each metric of each V_C, `[circuits, inputs]`.

    Args:
        kept: masks over `graph.nodes` (of a circuit given by edges, `touched_nodes`).
    """
    sets = [node_set(graph, nodes) for nodes in kept]
    return given.measured(metrics, _node_logits(given, sets, errors, micro_bytes))


@dataclass(frozen=True)
class FeatureReference:
    """What circuits are compared with, on a batch.

    Attributes:
        full, empty: each metric of the model and of the run that keeps nothing, `[inputs]`.
        distance: of the graph of all nodes from the model, in the largest logit difference.
        scale: the model's largest logit, to see the distance by.
    """

    full: ByMetric
    empty: ByMetric
    distance: Float[np.ndarray, " inputs"]
    scale: Float[np.ndarray, " inputs"]


def evaluate_feature_reference(
    given: FeatureBatch,
    metrics: Sequence[str],
    *,
    errors: str = "node",
    micro_bytes: int = MICRO_BYTES,
) -> FeatureReference:
    """The model, the empty circuit, and how far the graph of all nodes is from the model."""
    nothing = {
        site.name: KeptNodes(np.zeros(0, dtype=np.int64), error=False)
        for site in given.features.sites
    }
    sets = [all_nodes(given.features), nothing]
    whole, empty = _node_logits(given, sets, errors, micro_bytes)
    return FeatureReference(
        given.measured(metrics, given.logits),
        given.measured(metrics, empty),
        (whole - given.logits).double().abs().amax(-1).cpu().numpy(),
        given.logits.double().abs().amax(-1).cpu().numpy(),
    )


def _node_logits(
    given: FeatureBatch, sets: Sequence[NodeSet], errors: str, micro_bytes: int
) -> Float[Tensor, "circuits inputs outputs"]:
    return run_node_sets(
        given.features,
        given.inputs,
        given.clean,
        given.patch,
        sets,
        errors=errors,
        micro_bytes=micro_bytes,
    )
