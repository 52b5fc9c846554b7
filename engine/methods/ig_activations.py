"""Integrated gradients along activations: every module on a path of its own (see `paths`).

ig_activations (Dhimoïla section 5.1, figure 9: the nodes of a module are patched together)

    score(u, v) = Σ_positions ⟨u_clean − u_patch, ∫₀¹ ∂λ/∂(stream read by v) at γ_u(t) dt⟩

with γ_u the run in which the module of u carries γ(t) for all its readers and everything below it
is the clean run. The gradient is the total one, to λ, as along inputs. The edges out of a module
sum to λ(clean) − λ(that module alone patched): completeness module by module. The residual is that
of `embed`, whose path is that of ig_inputs.

ig_activations_joint (EAP-IG's variant, Hanna et al. 2024) is another estimand: the gradient at
every port is the mean over the paths of *all* modules, those above the port included:

    score(u, v) = Σ_positions ⟨u_clean − u_patch, mean over modules m of ∫₀¹ ∂λ/∂x_v at γ_m(t) dt⟩

1. Ports above m: the backward of m's own variants, as above.
2. Ports below m see λ only past m, in the clean run. With c_m = ∫ ∂λ/∂(stream after m) dt from the
   same backward, their gradient is that of Σ_m ⟨c_m, stream after m − what m writes⟩ at fixed c_m:
   gradients add, so one backward through the clean run serves all modules.

Cost: patch values, a clean forward, and for each step one part of a forward and backward a module
(`share_of_a_pass`: together L + ½ passes); λ at the baseline unless the patch is a run (not joint);
joint takes one backward more. Pinned by tests/methods/test_ig_activations.py (one edge, one
autograd call at a time; `embed` against ig_inputs; completeness of every module).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph, PortBlock
from edgesweep.engine.methods.base import Attribution, Passes, Settings
from edgesweep.engine.methods.gradients import (
    add_at_read,
    add_gradients_of,
    against_clean,
    baseline_forwards,
    contract,
    differentiable_run,
    empty_gradients,
    patch_forwards,
    pull_back,
    refuse_without_gradient,
    targets_of,
)
from edgesweep.engine.methods.paths import (
    CleanStreams,
    Module,
    OwnPaths,
    PathGradients,
    chunks,
    modules,
    path_gradients,
    path_run,
    share_of_a_pass,
)
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network import Inputs, Model, PromptBatch, Run, RunValues
from edgesweep.engine.network.values import Spread, difference
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class IntegratedGradientsActivations:
    """Each module's edges by its own path; see the module's docstring."""

    name: str = "ig_activations"
    summary: str = "integrated gradients, each module interpolated by itself"
    source: str = "Dhimoïla 2024, section 5.1 and figure 9"
    takes: frozenset[str] = frozenset({"steps", "rule"})
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        paths = settings.steps * share_of_a_pass(graph)
        return Passes(1 + patch_forwards(patch) + baseline_forwards(patch) + paths, paths)

    def check(self, metric: str, patch: str) -> None:
        refuse_without_gradient(self.name, metric)

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        own = OwnPaths.of(model, batch, patch, metric)
        scores = torch.zeros(len(batch), model.graph.n_edges, device=model.device)
        for found in own.gradients(points(settings.rule, settings.steps), settings.rows):
            for module in dict.fromkeys(variant.module for variant in found.run.variants):
                _score_module(model, own.inputs, found, module, own.delta, scores)
        reached = scores[:, model.graph.edge_source == 0].double().sum(-1)
        return Attribution(scores, own.residual(reached), own.clean, own.baseline)


@dataclass(frozen=True)
class IntegratedGradientsActivationsJoint:
    """All ports by the mean over all modules' paths; see the module's docstring."""

    name: str = "ig_activations_joint"
    summary: str = "integrated gradients, gradients averaged over every module's interpolation"
    source: str = "Hanna et al. 2024, the activations variant of EAP-IG"
    takes: frozenset[str] = frozenset({"steps", "rule"})
    scores_nodes: bool = False
    whole: bool = False

    def passes(self, graph: EdgeGraph, settings: Settings, patch: str) -> Passes:
        paths = settings.steps * share_of_a_pass(graph)
        return Passes(1 + patch_forwards(patch) + paths, 1 + paths)

    def check(self, metric: str, patch: str) -> None:
        refuse_without_gradient(self.name, metric)

    def attribute(
        self, model: Model, batch: PromptBatch, patch: Patch, metric: str, settings: Settings
    ) -> Attribution:
        self.check(metric, patch.kind)
        quadrature = points(settings.rule, settings.steps)
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        run = differentiable_run(model, inputs, inputs.embed)
        objective, clean = against_clean(metric, batch, run)
        with torch.no_grad():
            streams = CleanStreams(model, run, values)
        gradients = empty_gradients(model, inputs)
        past = _Past(model, run)
        for variants in chunks(model.graph, quadrature, len(batch), settings.rows):
            paths = path_run(model, inputs, streams, variants)
            found = path_gradients(paths, objective, at_ports=True)
            for block in model.graph.blocks:
                into = gradients.of(targets_of(block))
                _add_block(model, inputs, found, block, slice(None), into)
            past.add(found)
        add_gradients_of(model, inputs, run, past.total(), gradients)
        delta = difference(model, RunValues(model, run), values)
        scores = contract(model, delta, gradients.div_(len(modules(model.graph))))
        unknown = torch.full_like(clean, torch.nan)
        return Attribution(scores, unknown, clean, unknown)


@torch.no_grad()
def _score_module(
    model: Model,
    inputs: Inputs,
    found: PathGradients,
    module: Module,
    delta: Spread,
    scores: Float[Tensor, "inputs edges"],
) -> None:
    """Add what one module's variants in a run give to the edges out of it."""
    mine = [i for i, v in enumerate(found.run.variants) if v.module == module]
    variants = slice(mine[0], mine[-1] + 1)
    right = delta.of(module.sources).flatten(2).transpose(1, 2)
    for block in model.graph.blocks[module.enters :]:
        right = model.reader(block.layer).here(right)
        gradients = right.new_zeros(block.n_targets, *inputs.embed.shape)
        _add_block(model, inputs, found, block, variants, gradients)
        product = torch.bmm(gradients.flatten(2).transpose(0, 1), right)
        edges = scores[:, block.edges].unflatten(1, (block.n_targets, block.n_sources))
        edges[:, :, module.sources] += model.here(product.float())


@torch.no_grad()
def _add_block(
    model: Model,
    inputs: Inputs,
    found: PathGradients,
    block: PortBlock,
    variants: slice,
    into: Float[Tensor, "ports inputs positions d_model"],
) -> None:
    """Add the gradients at a block's ports, summed over those of the variants that reach it."""
    n, layer = len(inputs.embed), block.layer
    first, last, _ = variants.indices(len(found.run.variants))
    rows = slice(first * n, last * n)
    if block.kind == "attention" and layer in found.ports:
        ports, stream = found.run.ports[layer]
        mine, grads = (tuple(t[rows] for t in ts) for ts in (ports, found.ports[layer]))
        pull_back(model.layers[layer], stream[rows], mine, grads, into)
    elif block.kind == "mlp" and layer in found.reads:
        into += found.reads[layer][rows].unflatten(0, (-1, n)).sum(0)
    elif block.kind == "logits":
        assert found.final is not None
        add_at_read(into[0], inputs, found.final[variants].sum(0))


class _Past:
    """Step 2 of the joint method: what each module's variants pull at, past the module."""

    def __init__(self, model: Model, run: Run) -> None:
        self._model, self._run = model, run
        self._pulls: dict[Module, Tensor] = {}

    def add(self, found: PathGradients) -> None:
        for variant, gradient in zip(found.run.variants, found.roots, strict=True):
            known = self._pulls.get(variant.module)
            self._pulls[variant.module] = gradient if known is None else known + gradient

    @torch.enable_grad()
    def total(self) -> Float[Tensor, ""]:
        """Σ_m ⟨c_m, stream after m − what m writes⟩."""
        pairs = [(pull, self._passes(m)) for m, pull in self._pulls.items() if m.layer >= 0]
        each = [self._model.here((pull * stream.to(pull.device)).sum()) for pull, stream in pairs]
        return torch.stack(each).sum()

    def _passes(self, module: Module) -> Tensor:
        """The stream after a module without it."""
        layer, run = module.layer, self._run
        before = run.streams[layer][0]
        if module.first == self._model.graph.mlp_source(layer):
            return before + run.attention[layer]
        return before + run.mlps[layer] if self._model.spec.parallel else before
