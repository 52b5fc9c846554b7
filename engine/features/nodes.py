"""Node attribution: integrated gradients of the metric along each site's own path.

1. On the path of site s its whole value moves from patch to clean, x_s(t) = x_s,patch +
   t (x_s,clean − x_s,patch), features and error alike since the dictionary decodes affinely. What
   lies before s is the clean run; what follows is recomputed by the model.
2. ḡ_s(p) = Σ_k w_k ∂λ/∂x_s(p) at x_s(t_k), from one backward a step, shared by all nodes of s.
3. Attr(f_j(p)) = (f_j,clean − f_j,patch)(p) ⟨d_j, ḡ_s(p)⟩, Attr(err(p)) = ⟨(ε_clean −
   ε_patch)(p), ḡ_s(p)⟩ (Dhimoïla 2024, section 5.1, w_V; Marks et al. 2024 for features).

The scores of a site sum to λ(clean) − λ(x_s = x_s,patch) up to the quadrature; what is missing is
the residual. Pinned by tests/features/test_node_attribution.py.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.methods.gradients import Objective
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network.base import LOGITS, Inputs, Network, Site, Value


class Downstream:
    """What the metric reads as a function of one site's value, in the clean run otherwise."""

    def __init__(self, model: Network, inputs: Inputs, run: Any) -> None:
        self._model, self._inputs, self._after = model, inputs, model.after(inputs, run)

    def final(self, site: Site, value: Value, rows: Int[Tensor, " rows"]) -> Value:
        """The final value, at all positions; arguments as of `logits`."""
        return self._after.final(site, value, rows)

    def logits(
        self, site: Site, value: Value, rows: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows outputs"]:
        """Logits for values of a site, `[rows, positions, width]`.

        Args:
            rows: the input that each row belongs to.
        """
        return self._model.logits(self.final(site, value, rows), self._inputs, rows)

    def gradient(
        self, site: Site, value: Value, rows: Int[Tensor, " rows"], objective: Objective
    ) -> tuple[Value, Float[Tensor, " rows"]]:
        """∂λ/∂value, row by row, and λ.

        Args:
            objective: λ of `[rows, vocab]`.
        """
        with torch.enable_grad():
            value = value.detach().requires_grad_()
            found = objective(self.logits(site, value, rows))
            return torch.autograd.grad(found.sum(), value)[0], found.detach()


@dataclass(frozen=True)
class NodeAttribution:
    """What step 2 gave.

    Attributes:
        gradients: ḡ of each site, `[inputs, positions, width]`; 0 at padding.
        residual: Σ of a site's scores − (λ(clean) − λ(its patch value)), in units of the metric.
        metric_clean: λ of the clean run.
        metric_patch: λ with each site at its patch value. It and the residual are NaN where that
            was not run.
    """

    gradients: Mapping[str, Value]
    residual: Float[Tensor, "inputs sites"]
    metric_clean: Float[Tensor, " inputs"]
    metric_patch: Float[Tensor, "inputs sites"]


@dataclass(frozen=True)
class NodeScores:
    """Scores of the nodes of one input that are not 0, sorted by node (and position).

    Attributes:
        node: global number (see `engine.features.batch`).
        position: in the batch; None where scores are summed over positions.
        score: in units of the metric.
    """

    node: Int[np.ndarray, " nodes"]
    position: Int[np.ndarray, " nodes"] | None
    score: Float[np.ndarray, " nodes"]


def attribute_nodes(
    ends: FeatureBatch,
    metric: str,
    *,
    steps: int = 5,
    rule: str = "midpoint",
    rows: int = 64,
    only: Collection[str] | None = None,
) -> NodeAttribution:
    """ḡ of every site.

    Args:
        steps, rule: of the quadrature.
        rows: (input, step) pairs in one pass.
        only: the sites that are asked for, which hang on no others; None: all.
    """
    objective = ends.objective(metric)
    downstream = Downstream(ends.features.model, ends.inputs, ends.run)
    clean = objective(ends.logits)
    gradients, residual, patched = {}, [], []
    for site in ends.features.sites:
        if only is not None and site.name not in only:
            continue
        gradient = _site_gradient(ends, downstream, site, metric, points(rule, steps), rows)
        every = torch.arange(len(ends.batch), device=clean.device)
        with torch.no_grad():
            logits = downstream.logits(site, ends.patch.values(site.name), every)
        gradients[site.name] = gradient
        patched.append(objective(logits))
        reached = (gradient * ends.difference(site.name)).flatten(1).sum(1)
        residual.append(reached - (clean - patched[-1]))
    return NodeAttribution(gradients, torch.stack(residual, 1), clean, torch.stack(patched, 1))


def attribute_clean(ends: FeatureBatch, metric: str) -> NodeAttribution:
    """ḡ of every site with the gradient at the clean run for that along the path (attribution
    patching): one backward for all sites. Where a site is patched is not run.

    Between its own sites the network is run from cut to cut, so that each layer is run once.
    """
    model, names = ends.features.model, [site.name for site in ends.features.sites]
    every = model.sites.chosen([*names, *model.sites.cuts])
    value = ends.inputs.embed.detach().requires_grad_()
    values: dict[str, Value] = {every[0].name: value}
    with torch.enable_grad():
        for site in every[1:]:
            values[site.name] = model.section(every, site.name, values, ends.inputs)
        logits = model.logits(model.section(every, LOGITS, values, ends.inputs), ends.inputs)
        clean = ends.objective(metric)(logits)
        found = torch.autograd.grad(clean.sum(), [values[name] for name in names])
    real = ends.inputs.real[..., None]
    gradients = {name: of * real for name, of in zip(names, found, strict=True)}
    unknown = clean.new_full((len(clean), len(names)), torch.nan).detach()
    return NodeAttribution(gradients, unknown, clean.detach(), unknown)


def _site_gradient(
    ends: FeatureBatch,
    downstream: Downstream,
    site: Site,
    metric: str,
    quadrature: list[tuple[float, float]],
    rows: int,
) -> Value:
    like, n = ends.clean.values(site.name), len(ends.batch)
    total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
    size = max(1, rows // len(quadrature))
    for first in range(0, n, size):
        some = torch.arange(first, min(first + size, n), device=total.device)
        which = some.repeat(len(quadrature))
        clean, patch = ends.clean.values(site.name)[some], ends.patch.values(site.name)[some]
        value = torch.cat([torch.lerp(patch, clean, t) for t, _ in quadrature])
        gradient, _ = downstream.gradient(site, value, which, ends.objective(metric, which))
        for part, (_, weight) in zip(gradient.split(len(some)), quadrature, strict=True):
            total[some] += weight * part
    return (total * ends.inputs.real[..., None]).to(like)


def node_scores(
    ends: FeatureBatch, attribution: NodeAttribution, *, contracted: bool = True
) -> list[NodeScores]:
    """Scores of every input's nodes: step 3.

    Args:
        contracted: sum over positions.
    """
    return [_scores_of(ends, attribution, i, contracted) for i in range(len(ends.batch))]


def _scores_of(
    ends: FeatureBatch, of: NodeAttribution, number: int, contracted: bool
) -> NodeScores:
    parts = []
    for site, gradient in of.gradients.items():
        dictionary, first = ends.features.dictionary(site), ends.numbers.first[site]
        active, at = ends.active[site].of_input(number), gradient[number]
        decoder = dictionary.decoder[active.feature]
        of_features = (active.clean - active.patch) * (decoder * at[active.position]).sum(-1)
        parts.append((first + active.feature, active.position, of_features))
        places = ends.inputs.real[number].nonzero().flatten()
        error = ends.clean.error(site)[number] - ends.patch.error(site)[number]
        number_of_error = torch.full_like(places, first + dictionary.n_features)
        parts.append((number_of_error, places, (error * at).sum(-1)[places]))
    node, position, score = _joined(parts)
    if contracted:
        found, place = np.unique(node, return_inverse=True)
        return NodeScores(found, None, np.bincount(place, score.astype(np.float64)))
    order = np.lexsort((position, node))
    return NodeScores(node[order], position[order], score[order])


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> list[np.ndarray]:
    return [torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)]
