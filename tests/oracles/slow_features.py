"""Attribution between features as it is defined: one target and one point of the path at a time.

Each target is a scalar, computed by `FeatureModel.segment` and the dictionary's own `encode` from
leaves that hold one input's parents at one t, and differentiated by plain autograd. Nothing else of
the engine's attribution is used. tests/features/test_segments.py pins `segment` to Hugging Face.
"""

from dataclasses import dataclass
from functools import cache

import torch

from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import run_nodes
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.metrics import oriented
from edgesweep.engine.network import PromptBatch

#: (parent site, node, position); the error node is "err"
Source = tuple[str, int | str, int]
#: (node, position) of a site; of `logits`, ("metric", read position)
Target = tuple[int | str, int]


@dataclass
class SlowTarget:
    """What one target gets.

    Attributes:
        contributions: of every source, in units of the target.
        factor: what takes them to units of the metric.
        change: of the target, from patch parents to clean ones.
    """

    contributions: dict[Source, float]
    factor: float
    change: float


class SlowAttribution:
    """One input, without padding.

    Args:
        patch: a `FeaturePatch`.
    """

    def __init__(self, features: FeatureModel, prompt, patch, metric, rule, steps) -> None:
        self.features, self.metric = features, metric
        self.batch = PromptBatch.make([prompt])
        self.points = points(rule, steps)
        model = features.model
        self.inputs = model.prepare(self.batch.clean, self.batch.real)
        with torch.no_grad():
            run = model.run(self.inputs)
            self.logits = run.logits
            self.clean = run_nodes(features, self.inputs, run)
            self.patch = patch.values(features, self.batch, self.inputs)
        self.gradients = {site.name: self._node_gradient(site.name) for site in features.sites}
        self.run = cache(self._run)

    # --- values ------------------------------------------------------------------------------
    def f(self, values, site):
        """All features of a site at all positions, as a table."""
        every = torch.arange(self.features.dictionary(site).n_features)
        return values.features(site, every)[0]

    def at(self, site, t):
        """A leaf with the site's value at t."""
        value = torch.lerp(self.patch.values(site), self.clean.values(site), t)
        return value.detach().requires_grad_()

    def value_of_metric(self, logits):
        return oriented(self.metric, logits, self.batch, self.logits).sum()

    def downstream(self, site, value):
        """λ when a site alone has another value."""
        alone = FeatureModel(self.features.model, {site: self.features.dictionary(site)})
        values = {"embed": self.clean.values("embed"), site: value}
        return self.value_of_metric(alone.segment("logits", values, self.inputs))

    def _node_gradient(self, site):
        """ḡ of a site, `[positions, d_model]`."""
        total = 0.0
        for t, weight in self.points:
            value = self.at(site, t)
            total = total + weight * torch.autograd.grad(self.downstream(site, value), value)[0][0]
        return total

    # --- nodes -------------------------------------------------------------------------------
    def node_score(self, site, node, position):
        gradient = self.gradients[site][position]
        if node == "err":
            delta = (self.clean.error(site) - self.patch.error(site))[0, position]
            return float(delta @ gradient)
        delta = (self.f(self.clean, site) - self.f(self.patch, site))[position, node]
        return float(delta * self.features.dictionary(site).decoder[node] @ gradient)

    def active(self, site) -> list[tuple[int, int]]:
        """(feature, position) that are non-zero at one end."""
        some = (self.f(self.clean, site) != 0) | (self.f(self.patch, site) != 0)
        return [(j, p) for p, j in some.nonzero().tolist()]

    # --- edges -------------------------------------------------------------------------------
    def targets(self, site) -> list[Target]:
        n = self.batch.clean.shape[1]
        if site == "logits":
            return [("metric", n - 1)]
        return [*self.active(site), *(("err", p) for p in range(n))]

    def _run(self, site, t):
        """A site's parents at t of their path, as leaves, and its value then."""
        leaves = {p.name: self.at(p.name, t) for p in self.features.parents(site)}
        return leaves, self.features.segment(site, leaves, self.inputs)

    def scalar(self, site, target, x, kind):
        """A target's value from its site's."""
        if site == "logits":
            return self.value_of_metric(x)
        node, p = target
        dictionary = self.features.dictionary(site)
        if node == "err":
            error = dictionary.error(x)[0, p]
            if kind != "metric":
                return error @ self.gradients[site][p]
            moved = error - self.clean.error(site)[0, p]
        else:
            f = dictionary.encode(x)[0, p, node]
            if kind != "metric":
                return f
            moved = (f - self.f(self.clean, site)[p, node]) * dictionary.decoder[node]
        here = torch.zeros_like(x[0, :, :1])
        here[p] = 1
        return self.downstream(site, self.clean.values(site) + here * moved)

    def factor(self, site, target, kind):
        node, p = target
        if kind != "attribution" or node in ("err", "metric"):
            return 1.0
        delta = float((self.f(self.clean, site) - self.f(self.patch, site))[p, node])
        return self.node_score(site, node, p) / delta if delta else 0.0

    def target(self, site, target, kind="attribution") -> SlowTarget:
        names = [p.name for p in self.features.parents(site)]
        gradients = dict.fromkeys(names, 0.0)
        for t, weight in self.points:
            leaves, x = self.run(site, t)
            value = self.scalar(site, target, x, kind)
            # a feature that is off has no gradient anywhere
            value = value + 0 * sum(leaf.sum() for leaf in leaves.values())
            found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True)
            for name, gradient in zip(names, found, strict=True):
                gradients[name] = gradients[name] + weight * gradient[0]
        ends = [self.scalar(site, target, self.run(site, t)[1], kind) for t in (0, 1)]
        contributions = self._contributions(gradients)
        return SlowTarget(
            contributions, self.factor(site, target, kind), float((ends[1] - ends[0]).detach())
        )

    def _contributions(self, gradients) -> dict[Source, float]:
        found: dict[Source, float] = {}
        for site, gradient in gradients.items():
            delta = self.f(self.clean, site) - self.f(self.patch, site)
            worth = (delta * (gradient @ self.features.dictionary(site).decoder.T)).tolist()
            found |= {(site, i, q): worth[q][i] for i, q in self.active(site)}
            error = (self.clean.error(site) - self.patch.error(site))[0]
            missed = (error * gradient).sum(-1).tolist()
            found |= {(site, "err", q): value for q, value in enumerate(missed)}
        return found
