"""Every module on a path of its own: what ig_activations, ig_activations_joint and node_ig share.

A module is what writes to the stream at one point: `embed`, the heads of a layer, an MLP.

1. On the path of module m all its nodes move together from patch to clean and everything else is
   the clean network: what m writes is γ_m(t) = m_patch + t (m_clean − m_patch), so the stream after
   it is x_clean − (1 − t)(m_clean − m_patch). What a post-norm scales is written scaled, each end
   by its own run; the output bias of attention is in both ends.
2. What lies below m is the clean run, which is had once. A *variant* (m, t) starts after m.
3. Variants share one run: each is a block of rows (one an input) that joins the run where its
   module writes. One backward gives every row's gradients, at ports and where the rows joined.

A variant counts as the layers it runs: attention of layer l as L − l − ½ of L (L − l − 1 where
attention and MLP are parallel), MLP l as L − l − 1, `embed` as L. Pinned by
tests/methods/test_ig_activations.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.methods.gradients import Objective, against_clean, baseline_logits
from edgesweep.engine.network import Inputs, Model, PromptBatch, Run, RunValues, SourceValues
from edgesweep.engine.network.architectures import Heads
from edgesweep.engine.network.layers import Stream
from edgesweep.engine.network.values import Spread, difference
from edgesweep.engine.patches import Patch


@dataclass(frozen=True)
class Module:
    """What writes at one point of the stream.

    Attributes:
        layer: its layer; -1 for `embed`.
        first, n: its nodes among the graph's sources.
        enters: index of the first block of ports that reads it; the run of its variants starts
            there.
    """

    layer: int
    first: int
    n: int
    enters: int

    @property
    def sources(self) -> slice:
        return slice(self.first, self.first + self.n)


def modules(graph: EdgeGraph) -> list[Module]:
    """All modules in forward order: `embed`, then attention and MLP of each layer."""
    found = [Module(-1, 0, 1, 0)]
    for layer in range(graph.spec.n_layers):
        first, after, heads = graph.head_source(layer, 0), 2 * layer + 2, graph.spec.n_heads
        found.append(Module(layer, first, heads, after - (not graph.spec.parallel)))
        found.append(Module(layer, first + heads, 1, after))
    return found


def share_of_a_pass(graph: EdgeGraph) -> float:
    """Layers that one variant of every module runs, in passes of the whole network."""
    blocks = 2 * graph.spec.n_layers
    return sum(blocks - module.enters for module in modules(graph)) / blocks


@dataclass(frozen=True)
class Variant:
    """One point of one module's path: t, and the weight that the quadrature gives it."""

    module: Module
    t: float
    weight: float


#: rows of a run that all variants share: each holds a tape for the backward, and more of them gain
#: nothing (SmolLM2, 1 thread: 16, 32, 64, 128 rows take the same time)
ROWS_WITH_A_TAPE = 64


def variants_a_run(n_inputs: int, rows: int) -> int:
    """Variants that share a run, each a row an input; at least one."""
    return max(1, min(rows, ROWS_WITH_A_TAPE) // n_inputs)


def chunks(
    graph: EdgeGraph, points: Sequence[tuple[float, float]], n_inputs: int, rows: int
) -> Iterator[list[Variant]]:
    """All variants by module, as many as may share a run at a time."""
    every = [Variant(m, t, weight) for m in modules(graph) for t, weight in points]
    size = variants_a_run(n_inputs, rows)
    for start in range(0, len(every), size):
        yield every[start : start + size]


class CleanStreams:
    """The clean stream after each module, and what separates the module from its patch value."""

    def __init__(self, model: Model, run: Run, patch: SourceValues) -> None:
        self._model, self._run, self._patch = model, run, patch
        self._before = [model.reader(0).here(run.embed)]  # each layer, where that layer is
        for layer, (attention, mlp) in enumerate(zip(run.attention, run.mlps, strict=True)):
            after = self._before[-1] + attention + mlp
            self._before.append(model.reader(layer + 1).here(after))

    def difference(self, module: Module) -> Stream:
        """m_clean − m_patch, all nodes of the module together; where it writes."""
        layer = module.layer
        if layer < 0:
            return self._run.embed - self._patch.embed
        if module.first == self._model.graph.mlp_source(layer):
            return self._run.mlps[layer] - self._patch.mlp(layer)
        return self._run.attention[layer] - self._patch.attention(layer)

    def start(self, variant: Variant) -> Stream:
        """The stream that the variant's run starts from."""
        layer, between = divmod(variant.module.enters, 2)
        clean = self._before[layer]
        if between:
            clean = clean + self._run.attention[layer]
        difference = self.difference(variant.module).to(clean.device)
        return torch.sub(clean, difference, alpha=1 - variant.t)


@dataclass
class PathRun:
    """A differentiable run that rows join on the way.

    Attributes:
        variants: by the block that their rows join at; their rows follow one another.
        roots: the stream of each variant where it joined.
        ports: layer -> queries, keys and values of the rows there, and the stream they read.
        reads: layer -> the stream that the MLP reads.
        final: the stream at the read positions.
        logits: `[variants, inputs, vocab]`.
    """

    variants: Sequence[Variant]
    roots: list[Stream]
    ports: dict[int, tuple[tuple[Heads, Heads, Heads], Stream]] = field(default_factory=dict)
    reads: dict[int, Stream] = field(default_factory=dict)
    final: Stream | None = None
    logits: Float[Tensor, "variants inputs vocab"] | None = None


@torch.enable_grad()
def path_run(
    model: Model, inputs: Inputs, streams: CleanStreams, variants: Sequence[Variant]
) -> PathRun:
    """The run of some variants, which are in the order of their modules."""
    with torch.no_grad():
        starts = [streams.start(variant) for variant in variants]
    run = PathRun(variants, [start.requires_grad_() for start in starts])
    stream: Stream = inputs.embed[:0]
    for index in range(variants[0].module.enters // 2, model.spec.n_layers):
        stream = _layer(model, inputs, run, index, stream)
    end = model.spec.n_layers
    stream = _join(run, 2 * end, model.reader(end).here(stream))
    read = stream.unflatten(0, (len(variants), -1))
    run.final = inputs.at_read(read)
    run.logits = model.unembed(run.final)
    return run


def _join(
    run: PathRun, block: int, stream: Float[Tensor, "_ positions d_model"]
) -> Float[Tensor, "_ positions d_model"]:
    """The stream with the rows of the variants that start at this block."""
    new = [
        root
        for variant, root in zip(run.variants, run.roots, strict=True)
        if variant.module.enters == block
    ]
    return torch.cat([stream, *new]) if new else stream


def _layer(model: Model, inputs: Inputs, run: PathRun, index: int, stream: Tensor) -> Tensor:
    layer = model.layers[index]
    before = after = _join(run, 2 * index, layer.here(stream))
    if len(before):
        rows = torch.arange(len(before), device=before.device) % len(inputs.embed)
        ports = layer.project(before)
        attention, _ = layer.write(layer.attend(*ports, inputs.context(index, rows)))
        run.ports[index] = ports, before
        after = before + attention
    after = _join(run, 2 * index + 1, after)
    read = before if model.spec.parallel else after
    run.reads[index] = read = read.view_as(read)
    return after + layer.mlp(read)


@dataclass(frozen=True)
class PathGradients:
    """Gradients of Σ over rows of weight × λ in a path run.

    Attributes:
        run: where they were taken.
        roots: at the stream after each variant's module, `[inputs, positions, d_model]` each.
        ports, reads, final: at what `run` holds under these names.
    """

    run: PathRun
    roots: Sequence[Tensor]
    ports: dict[int, tuple[Tensor, ...]]
    reads: dict[int, Tensor]
    final: Tensor | None


def path_gradients(run: PathRun, objective: Objective, *, at_ports: bool) -> PathGradients:
    """One backward through a path run, to where its rows joined and, if asked, to every port."""
    assert run.logits is not None
    assert run.final is not None
    weights = run.logits.new_tensor([variant.weight for variant in run.variants])
    with torch.enable_grad():
        total = (objective(run.logits) * weights[:, None]).sum()
    if not at_ports:
        return PathGradients(run, torch.autograd.grad(total, run.roots), {}, {}, None)
    flat: Iterable[Tensor] = (t for ports, _ in run.ports.values() for t in ports)
    wanted = [run.final, *run.roots, *flat, *run.reads.values()]
    found = iter(torch.autograd.grad(total, wanted))
    final = next(found)
    roots = [next(found) for _ in run.roots]
    ports = {layer: tuple(next(found) for _ in "qkv") for layer in run.ports}
    return PathGradients(run, roots, ports, dict(zip(run.reads, found, strict=True)), final)


@dataclass(frozen=True)
class OwnPaths:
    """A batch, ready for methods that take every module along a path of its own.

    Attributes:
        objective: λ of logits, compared with the clean run's.
        clean, baseline: λ of the clean run, and at the baseline embedding.
        delta: u_clean − u_patch, `[inputs, sources, positions, d_model]`.
    """

    model: Model
    inputs: Inputs
    streams: CleanStreams
    objective: Objective
    clean: Float[Tensor, " inputs"]
    baseline: Float[Tensor, " inputs"]
    delta: Spread

    @classmethod
    def of(cls, model: Model, batch: PromptBatch, patch: Patch, metric: str) -> "OwnPaths":
        inputs = model.prepare(batch.clean, batch.real)
        values = patch.values(model, batch, inputs)
        with torch.no_grad():
            run = model.run(inputs)
        objective, clean = against_clean(metric, batch, run)
        baseline = objective(baseline_logits(model, inputs, values))
        delta = difference(model, RunValues(model, run), values)
        streams = CleanStreams(model, run, values)
        return cls(model, inputs, streams, objective, clean, baseline, delta)

    def gradients(
        self, quadrature: list[tuple[float, float]], rows: int, *, at_ports: bool = True
    ) -> Iterator["PathGradients"]:
        """Gradients of all variants, as many of them at a time as `rows` allow."""
        for variants in chunks(self.model.graph, quadrature, len(self.clean), rows):
            paths = path_run(self.model, self.inputs, self.streams, variants)
            yield path_gradients(paths, self.objective, at_ports=at_ports)

    def residual(self, reached: Float[Tensor, " inputs"]) -> Float[Tensor, " inputs"]:
        """How far the scores out of `embed` miss λ(clean) − λ(baseline)."""
        return reached - (self.clean - self.baseline)
