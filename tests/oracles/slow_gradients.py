"""What gradient methods should give, from `SlowModel` alone: one source, one autograd call.

A *point* of the expansion says which nodes are overwritten, for all that read them, and by what
weight its gradient counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgesweep.engine.metrics import oriented
from edgesweep.engine.patches import Mean, make_patch, mean_partials
from tests.oracles.slow_model import SlowModel, Values
from tests.tiny import prompts

KINDS = ("counterfactual", "zero", "mean")

#: (nodes and their values at this point, weight)
Point = tuple[Values, float]


def patch_of(kind, model):
    if kind != "mean":
        return make_patch(kind)
    partials = mean_partials(model, prompts(6), pooled=True, over="patch", micro_batch=4)
    return Mean({g: p.mean() for g, p in partials.items()}, pooled=True)


def patch_values(kind, model, batch, slow):
    """What every source writes under the patch, by the slow model alone."""
    if kind == "counterfactual":
        other = SlowModel(model.hf, model.graph, batch.patch, batch.real)
        return other.forward(other.plain)[1]
    _, clean = slow.forward(slow.plain)
    if kind == "zero":
        return {name: torch.zeros_like(value) for name, value in clean.items()}
    totals, count = dict.fromkeys(clean, 0.0), 0
    for prompt in prompts(6):
        tokens = torch.tensor([prompt.patch])
        one = SlowModel(model.hf, model.graph, tokens, torch.ones_like(tokens).bool())
        written = one.forward(one.plain)[1]
        totals = {name: totals[name] + written[name].sum((0, 1)) for name in clean}
        count += tokens.shape[1]
    return {name: (totals[name] / count).expand_as(clean[name]) for name in clean}


@dataclass
class Ends:
    """The two ends that every method lies between."""

    slow: SlowModel
    logits: torch.Tensor
    clean: Values
    patch: Values

    @classmethod
    @torch.no_grad()
    def of(cls, model, batch, kind, slow_model=SlowModel):
        slow = slow_model(model.hf, model.graph, batch.clean, batch.real)
        logits, clean = slow.forward(slow.plain)
        return cls(slow, logits, clean, patch_values(kind, model, batch, slow))

    def at(self, nodes, t) -> Values:
        """These nodes at t of the way from patch to clean."""
        return {n: torch.lerp(self.patch[n], self.clean[n], t) for n in nodes}

    def modules(self) -> list[list[str]]:
        """`embed`; the heads of layer 0; MLP 0; …"""
        spec = self.slow.spec
        found = [["embed"]]
        for layer in range(spec.n_layers):
            found += [[f"a{layer}.h{h}" for h in range(spec.n_heads)], [f"m{layer}"]]
        return found

    def module_of(self, node: str) -> list[str]:
        return next(module for module in self.modules() if node in module)

    def value(self, metric, batch, overwritten=None, added: Values | None = None):
        """λ of each input, some nodes overwritten and `added` to what some targets read."""

        def stream_of(target, values, constant):
            stream = self.slow.plain(target, values | (overwritten or {}), constant)
            return stream + added[target] if added and target in added else stream

        logits, _ = self.slow.forward(stream_of)
        return oriented(metric, logits, batch, self.logits)

    def readers(self, source: str) -> list[str]:
        return [t for t in self.slow.graph.targets if source in self.slow.sources_of(t)]


def slopes(ends, batch, metric, source, points):
    """Σ over points of weight × dλ/dsize, `[inputs]` of each reader of a source: size × (clean −
    patch of source) is added to what it reads, every reader with a size of its own."""
    totals = dict.fromkeys(ends.readers(source), 0.0)
    for overwritten, weight in points:
        size = {
            reader: torch.zeros(len(batch), 1, 1, dtype=ends.logits.dtype, requires_grad=True)
            for reader in totals
        }
        change = ends.clean[source] - ends.patch[source]
        added = {reader: size[reader] * change for reader in totals}
        value = ends.value(metric, batch, overwritten, added).sum()
        value = value + 0 * sum(
            map(torch.sum, size.values())
        )  # a port that reaches nothing has slope zero
        for reader, slope in zip(totals, torch.autograd.grad(value, size.values()), strict=True):
            totals[reader] = totals[reader] + weight * slope.flatten().double()
    return totals


def slow_edges(model, batch, ends, metric, points_of: Callable[[str], list[Point]]):
    """Scores of all edges, `[inputs, edges]`; `points_of` says where a source's are expanded."""
    found = {s: slopes(ends, batch, metric, s, points_of(s)) for s in model.graph.sources}
    names = map(model.graph.edge_name, range(model.graph.n_edges))
    edges = (name.split("->") for name in names)
    return torch.stack([found[source][target] for source, target in edges], dim=1)


def slow_nodes(model, batch, ends, metric, points_of: Callable[[str], list[Point]]):
    """Scores of all sources, `[inputs, sources]`: a change of all that they are read as."""
    found = [slopes(ends, batch, metric, s, points_of(s)) for s in model.graph.sources]
    return torch.stack([sum(of.values()) for of in found], dim=1)
