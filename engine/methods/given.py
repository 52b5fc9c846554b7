"""A circuit that was given: nothing is attributed.

Scores are 1 for its edges (`Settings.candidates`) and 0 for the others, the same for every input,
patch, metric and batch, so that the edges above 0 are the circuit, as those above τ are a search's.

Cost: nothing; the model is not run, so λ is not known either. Pinned by
tests/sweeps/test_given_circuits.py.
"""

from dataclasses import dataclass

import numpy as np
import torch

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class Given:
    """Indicator scores; see the module's docstring."""

    name: str = "given"
    summary: str = "no method: the circuits of evaluate.circuits"
    source: str = "none"
    takes: frozenset[str] = frozenset({"candidates"})
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        return Passes(0, 0)

    def check(self, metric: str, patch: str) -> None:
        """Any metric and patch will do: neither is looked at."""

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        kept = np.ones(model.graph.n_edges) if settings.candidates is None else settings.candidates
        row = torch.as_tensor(kept, dtype=torch.float32, device=model.device)
        unknown = torch.full((len(batch),), torch.nan, device=model.device)
        return Attribution(row.repeat(len(batch), 1), unknown, unknown, unknown)
