"""Exact activation patching of single edges and of single nodes (Syed et al. 2023, equation 1).

    exact       score(u, v) = λ(clean run) − λ(clean run with u_patch on the edge u -> v)
    node_exact  score(u)    = λ(clean run) − λ(clean run with u_patch for all that read u)

Signed, where the paper takes the absolute value: positive where the clean value raises λ. It is
what the other methods estimate. Every metric can be used, for no gradient is taken.

Cost: patch values, the base run (two forwards' worth), and for each edge or node the part of a
forward from there on. Many edges are rows of one forward, see `engine.variants`. Pinned by
tests/methods/test_exact.py.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.baserun import BaseRun
from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, MethodError, Passes, Settings
from edgesweep.engine.metrics import METRICS, ORIENTATION
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch
from edgesweep.engine.variants import drop_edges, drop_nodes

#: forwards that patch values and a base run amount to
BASE_FORWARDS = 3.0


@dataclass(frozen=True)
class ExactPatching:
    """Activation patching of every edge, or of every node; see the module's docstring."""

    name: str
    summary: str
    scores_nodes: bool
    takes: frozenset[str] = frozenset()
    source: str = "Syed et al. 2023, equation 1"
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        if self.scores_nodes:
            return Passes(BASE_FORWARDS + float(node_shares(graph).sum()), 0)
        n = graph.n_edges if settings.n_candidates is None else settings.n_candidates
        return Passes(BASE_FORWARDS + n * float(edge_shares(graph).mean()), 0)

    def check(self, metric: str, patch: str) -> None:
        check_any_metric(self.name, metric)

    @torch.no_grad()
    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        base = BaseRun(model, inputs, values, np.ones(model.graph.n_edges, dtype=bool))
        clean = scored(metric, base.logits, batch, base.logits)
        n = len(model.graph.sources) if self.scores_nodes else model.graph.n_edges
        looked_at = np.arange(n)
        if not self.scores_nodes and settings.candidates is not None:
            looked_at = np.flatnonzero(settings.candidates)
        scores = torch.full((len(batch), n), torch.nan, device=clean.device)
        drop = drop_nodes if self.scores_nodes else drop_edges
        for places, logits in drop(base, looked_at, settings.rows):
            without = torch.stack([scored(metric, row, batch, base.logits) for row in logits])
            columns = torch.as_tensor(looked_at[places], device=clean.device)
            scores[:, columns] = (clean - without).T.float()
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(scores, unknown, clean, unknown)


def check_any_metric(method: str, metric: str) -> None:
    """Methods that take no gradient can use every metric. Raises MethodError for an unknown one."""
    if metric not in METRICS:
        raise MethodError(
            f"method {method!r} cannot use metric {metric!r}; use {' or '.join(METRICS)}"
        )


def scored(
    metric: str, logits: Tensor, batch: PromptBatch, clean: Tensor
) -> Float[Tensor, " inputs"]:
    """The metric, oriented so that more is better, in float64."""
    values: Tensor = METRICS[metric](logits.double(), batch, clean.double())
    return ORIENTATION.get(metric, 1.0) * values


def edge_shares(graph: EdgeGraph) -> Float[np.ndarray, " edges"]:
    """The share of a forward that runs from each edge's target on."""
    blocks = len(graph.blocks) - 1
    after = [(blocks - i) / blocks for i in range(len(graph.blocks))]
    return np.repeat(after, [b.n_targets * b.n_sources for b in graph.blocks])


def node_shares(graph: EdgeGraph) -> Float[np.ndarray, " sources"]:
    """The share of a forward that runs after each source."""
    first_reader = [
        next(i for i, block in enumerate(graph.blocks) if block.n_sources > source)
        for source in range(len(graph.sources))
    ]
    blocks = len(graph.blocks) - 1
    return (blocks - np.array(first_reader)) / blocks


EXACT = ExactPatching(
    "exact",
    "exact activation patching: every edge by itself",
    scores_nodes=False,
    takes=frozenset({"candidates"}),
)
NODE_EXACT = ExactPatching(
    "node_exact", "exact activation patching: every node by itself", scores_nodes=True
)
