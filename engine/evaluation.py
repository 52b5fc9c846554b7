"""Per-input metrics of circuits, of the full model and of the empty circuit.

Faithfulness is a ratio of means over the data, φ = (λ(G) − λ(∅)) / (λ(M) − λ(∅)), so nothing is
averaged here (Dhimoïla section 5.1; `faithfulness`).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.ablation import Masks, ablated_logits
from edgesweep.engine.metrics import FLAT_AT_CLEAN, measure
from edgesweep.engine.network import Inputs, Model, PromptBatch
from edgesweep.engine.patches import Patch

#: metric -> one value an input, float64
ByMetric = dict[str, Float[np.ndarray, "*circuits inputs"]]


@torch.no_grad()
def evaluate_circuits(
    model: Model, batch: PromptBatch, masks: Masks, patch: Patch, metrics: Sequence[str]
) -> ByMetric:
    """Each metric of each circuit on each input, `[circuits, inputs]`.

    Args:
        masks: kept edges, `[circuits, edges]`; for node ablation, masks of `node_circuit`.
        metrics: names in `engine.metrics.METRICS`.
    """
    inputs = model.prepare(batch.clean, batch.real)
    values = patch.values(model, batch, inputs)
    logits = ablated_logits(model, inputs, values, masks)
    clean = _clean_logits(model, inputs) if FLAT_AT_CLEAN & set(metrics) else logits[0]
    return _measure_all(metrics, logits, batch, clean)


@torch.no_grad()
def evaluate_reference(
    model: Model, batch: PromptBatch, patch: Patch, metrics: Sequence[str]
) -> tuple[ByMetric, ByMetric]:
    """Each metric of the full model and of the empty circuit, `[inputs]` each."""
    inputs = model.prepare(batch.clean, batch.real)
    values = patch.values(model, batch, inputs)
    nothing = np.zeros((1, model.graph.n_edges), dtype=bool)
    empty = ablated_logits(model, inputs, values, nothing)[0]
    clean = _clean_logits(model, inputs)
    return _measure_all(metrics, clean, batch, clean), _measure_all(metrics, empty, batch, clean)


def _clean_logits(model: Model, inputs: Inputs) -> Tensor:
    logits = model.run(inputs).logits
    assert logits is not None
    return logits


def _measure_all(
    metrics: Sequence[str], logits: Tensor, batch: PromptBatch, clean: Tensor
) -> ByMetric:
    return {m: measure(m, logits, batch, clean).cpu().numpy() for m in metrics}


def faithfulness(value: float, full: float, empty: float) -> float:
    """φ from means over the data; NaN where the model and the empty circuit hardly differ, or a
    mean is not finite."""
    if not all(map(math.isfinite, (value, full, empty))):
        return float("nan")
    if abs(full - empty) < 1e-6 * max(abs(full), abs(empty)) or full == empty:
        return float("nan")
    return (value - empty) / (full - empty)
