"""Automatic circuit discovery: ACDC (Conmy et al. 2023, Algorithm 1), and after EAP (Syed et al.
2023, section 5.2).

    H = all edges (or the candidates: edges outside are taken out before)
    for ports v from the logits back, for sources u of v from the last back:
        e = (u, v); remove e from H if mean over inputs of λ(H) − λ(H∖e) ≤ τ

Removed edges carry their patch value. With λ = −KL this is the paper's rule, KL(H∖e) − KL(H) ≤ τ;
any metric may be given, oriented. The score of an edge is λ(H) − λ(H∖e), input by input, at the
moment it was considered, so that {mean score > τ} is the circuit that was found.

`eap_acdc` is the same search among the edges that EAP ranks first.

Cost: one variant of a forward, from the edge's target on, an edge. Since ports are taken from the
end, all that lies before the port is the base run. Candidates are rows of one forward: row j is
without candidates 1 to j, as if all were accepted; what follows a rejection is run again. The
result is the same as one at a time (tests/methods/test_acdc.py).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.baserun import BaseRun
from edgesweep.engine.graph import EdgeGraph, PortBlock
from edgesweep.engine.methods.base import Attribution, MethodError, Passes, Settings
from edgesweep.engine.methods.exact import BASE_FORWARDS, check_any_metric, edge_shares, scored
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch
from edgesweep.engine.variants import port_variants, variants_a_forward


@dataclass(frozen=True)
class Acdc:
    """ACDC; see the module's docstring."""

    name: str = "acdc"
    summary: str = "ACDC: edges removed one after the other, from the end"
    source: str = "Conmy et al. 2023, Algorithm 1"
    needs_candidates: bool = False
    takes: frozenset[str] = frozenset({"tau", "candidates"})
    scores_nodes: bool = False
    whole: bool = True

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        n = graph.n_edges if settings.n_candidates is None else settings.n_candidates
        share = float(edge_shares(graph).mean())
        return Passes(BASE_FORWARDS + (n + len(graph.targets)) * share, 0)

    def check(self, metric: str, patch: str) -> None:
        check_any_metric(self.name, metric)

    @torch.no_grad()
    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        if self.needs_candidates and settings.candidates is None:
            raise MethodError(
                "method 'eap_acdc' searches the edges that EAP ranks first; give candidates, or "
                "use method acdc"
            )
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        kept = np.ones(model.graph.n_edges, dtype=bool)
        if settings.candidates is not None:
            kept = settings.candidates.copy()
        clean = model.run(inputs).logits
        assert clean is not None
        search = _Search(BaseRun(model, inputs, values, kept), batch, metric, clean, settings)
        value = scored(metric, clean, batch, clean)
        unknown = torch.full_like(value, torch.nan)
        return Attribution(search.run(), unknown, value, unknown)


@dataclass
class _Search:
    """The state of one search.

    Attributes:
        base: the run of the circuit as it was when the current port was begun.
        scores: `[inputs, edges]`, NaN where not considered yet.
        n_guessed: candidates that the next forward assumes to be removed.
    """

    base: BaseRun
    batch: PromptBatch
    metric: str
    clean: Tensor
    settings: Settings
    scores: Float[Tensor, "inputs edges"] = field(init=False)
    n_guessed: int = 4

    def run(self) -> Float[Tensor, "inputs edges"]:
        """Scores of all edges of the circuit that the search began with."""
        graph = self.base.graph
        self.scores = torch.full((len(self.batch), graph.n_edges), torch.nan)
        for index in reversed(range(len(graph.blocks))):
            block = graph.blocks[index]
            for port in reversed(range(block.n_targets)):
                first = block.first_edge + port * block.n_sources
                sources = np.flatnonzero(self.base.mask[first : first + block.n_sources])[::-1]
                self._search_port(index, block, port, sources)
        return self.scores

    def _search_port(
        self, index: int, block: PortBlock, port: int, sources: Int[np.ndarray, " kept"]
    ) -> None:
        edges = block.first_edge + port * block.n_sources + sources
        mask = self.base.mask.copy()
        if not self.base.live_ports(block)[port]:
            self.scores[:, edges] = 0.0
            mask[edges] = self.settings.tau < 0
            self.base.note(mask)
            return
        removed = self._accepted(index, port, sources, edges)
        if removed.any():
            mask[edges[removed]] = False
            self.base.refresh(mask, index)

    def _accepted(
        self, index: int, port: int, sources: np.ndarray, edges: np.ndarray
    ) -> Bool[np.ndarray, " kept"]:
        """Which edges of a port are removed, in order, several guessed at once."""
        base, removed = self.base, np.zeros(len(sources), dtype=bool)
        most, value = variants_a_forward(base, self.settings.rows), self._value(base.logits)
        shift, at = torch.zeros_like(base.delta[0]), 0
        while at < len(sources):
            span = sources[at : at + min(self.n_guessed, most)]
            shifts = shift - base.delta[torch.as_tensor(span.copy())].cumsum(0)
            logits = port_variants(base, index, np.full(len(span), port), shifts)
            for row, logit in enumerate(logits):
                without = self._value(logit)
                score = (value - without).float()
                self.scores[:, edges[at]] = score.cpu()
                removed[at] = float(score.double().mean()) <= self.settings.tau
                at += 1
                if not removed[at - 1]:
                    break
                value, shift = without, shifts[row]
            self.n_guessed = min(2 * self.n_guessed, most) if removed[at - 1] else 4
        return removed

    def _value(self, logits: Tensor) -> Float[Tensor, " inputs"]:
        return scored(self.metric, logits, self.batch, self.clean)


ACDC = Acdc()
EAP_ACDC = Acdc(
    "eap_acdc",
    "EAP first, then ACDC on the edges that are left",
    "Syed et al. 2023, section 5.2",
    needs_candidates=True,
)
