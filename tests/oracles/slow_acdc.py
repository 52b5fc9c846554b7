"""ACDC (Conmy et al. 2023, Algorithm 1) as it is written: one edge, one whole forward at a time."""

from dataclasses import dataclass

import numpy as np
import torch

from edgesweep.engine.metrics import METRICS
from tests.oracles.slow_gradients import Ends

#: metrics of which less is better; the paper's is KL
DISTANCES = ("kl", "kl_reverse", "js", "stat_dist", "nll")


@dataclass
class SlowAcdc:
    """What the search did.

    Attributes:
        scores: `[inputs, edges]`, how much worse each input became; NaN for edges that were not
            searched.
        circuit: the edges left.
    """

    scores: torch.Tensor
    circuit: np.ndarray


@torch.no_grad()
def slow_acdc(model, batch, kind, metric, tau, candidates=None) -> SlowAcdc:
    """Edges from the last of the graph's order to the first: targets from the end, and for each its
    sources from the end. An edge goes if the mean over inputs worsens by at most `tau`."""
    ends = Ends.of(model, batch, kind)
    n_edges = model.graph.n_edges

    def badness(mask):
        logits, _ = ends.slow.forward(ends.slow.ablated(mask, ends.patch))
        value = METRICS[metric](logits.double(), batch, ends.logits.double())
        return value if metric in DISTANCES else -value

    kept = np.ones(n_edges, dtype=bool) if candidates is None else candidates.copy()
    scores = torch.full((len(batch), n_edges), torch.nan, dtype=torch.float64)
    now = badness(kept)
    for edge in np.flatnonzero(kept)[::-1]:
        kept[edge] = False
        then = badness(kept)
        scores[:, edge] = then - now
        if float((then - now).mean()) <= tau:
            now = then
        else:
            kept[edge] = True
    return SlowAcdc(scores, kept)
