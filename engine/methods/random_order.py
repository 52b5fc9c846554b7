"""Edges in random order: the baseline that every method should beat.

Scores are the ranks of a seeded permutation, spread evenly over (0, 1): no two alike, and the same
for every input, patch, metric and batch, so that value and absolute value rank alike and any
aggregation keeps the order. They say nothing of sign or size, and have no unit.

Cost: nothing; the model is not run, so λ is not known either. Pinned by
tests/methods/test_node_methods.py.
"""

from dataclasses import dataclass

import numpy as np
import torch

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class RandomOrder:
    """Seeded scores; see the module's docstring."""

    name: str = "random"
    summary: str = "random scores from the seed: a baseline"
    source: str = "none"
    takes: frozenset[str] = frozenset({"seed"})
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(0, 0)

    def check(self, metric: str, patch: str) -> None:
        """Any metric and patch will do: neither is looked at."""

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        n_edges = model.graph.n_edges
        ranks = np.random.default_rng(settings.seed).permutation(n_edges)
        row = torch.as_tensor((ranks + 0.5) / n_edges, dtype=torch.float32, device=model.device)
        unknown = torch.full((len(batch),), torch.nan, device=model.device)
        return Attribution(row.repeat(len(batch), 1), unknown, unknown, unknown)
