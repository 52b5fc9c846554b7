"""Gradients at every port of the graph from one backward, and their products with sources.

The three steps that all gradient methods share:

1. One backward gives ∂λ/∂q_h, ∂λ/∂k_g, ∂λ/∂v_g of every head, and ∂λ/∂x of every MLP and of the
   logits. Weights are frozen, so the graph is rooted at the embeddings.
2. Each head's cotangent is pulled back to the stream by itself: with q_h = W x̂ + b (the norm's
   gain folded into W, see `Norm`), ∂λ/∂x|_h = r Wᵀg − r x̂ ⟨q_h − b, g⟩ / d_model. The stream is
   never copied per head.
3. The score of (u, port) is Σ_positions ⟨u_clean − u_patch, ∂λ/∂x|_port⟩: one matrix product a
   group of layers, over the sources that precede it. Where the layers lie on several devices, it is
   taken where the port is, of copies of the sources of one device after the other.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.graph import EdgeGraph, PortBlock
from edgesweep.engine.methods.base import MethodError
from edgesweep.engine.metrics import FLAT_AT_CLEAN, ORIENTATION, oriented
from edgesweep.engine.network import Inputs, Model, PromptBatch, Run, RunValues, SourceValues
from edgesweep.engine.network.layers import Layer, Stream
from edgesweep.engine.network.values import Spread
from edgesweep.engine.patches import ONE_RUN

Objective = Callable[[Float[Tensor, "inputs vocab"]], Float[Tensor, " inputs"]]
#: `[targets, inputs, positions, d_model]`
PortGradients = Spread

#: rows of the product of step 3 (ports taken together) from which it is no longer memory-bound
PORTS_A_PRODUCT = 96

#: patches whose values cost a forward: the run they are of, or the clean one that is disturbed
RUN_FOR = ONE_RUN | {"noise"}


def patch_forwards(patch: str) -> int:
    """Forwards that the patch values of a batch cost."""
    return int(patch in RUN_FOR)


def baseline_forwards(patch: str) -> int:
    """Forwards that λ at the patch value of `embed` costs beside the patch values."""
    return int(patch not in ONE_RUN)


def refuse_without_gradient(method: str, metric: str) -> None:
    """Refuse metrics that have no gradient anywhere.

    Raises:
        MethodError: it is one of those.
    """
    if metric not in ORIENTATION:
        raise MethodError(
            f"method {method!r} cannot use metric {metric!r}; use logit_diff or another that has a "
            "gradient, or a method that patches (exact, node_exact, acdc)"
        )


def refuse_flat_at_clean(method: str, metric: str, instead: str) -> None:
    """Refuse metrics whose gradient at the clean run is zero or absent.

    Raises:
        MethodError: it is one of those; `instead` is a method that can use it.
    """
    if metric in FLAT_AT_CLEAN:
        raise MethodError(
            f"method {method!r} cannot use metric {metric!r}: its gradient is zero at the clean "
            f"run; use {instead}, or metric logit_diff"
        )
    refuse_without_gradient(method, metric)


def empty_gradients(model: Model, inputs: Inputs) -> PortGradients:
    """Zeros, one stream gradient a port: the accumulator of `add_port_gradients`, in float32 at
    least, for half precision loses what many steps add up to."""
    dtype = torch.promote_types(inputs.embed.dtype, torch.float32)
    embed = inputs.embed
    return Spread.over_targets(
        model, lambda n, device: embed.new_zeros(n, *embed.shape, dtype=dtype, device=device)
    )


def add_port_gradients(
    model: Model,
    inputs: Inputs,
    embed: Stream,
    objective: Objective,
    gradients: PortGradients,
    weight: float = 1.0,
) -> tuple[Run, Float[Tensor, " inputs"]]:
    """Add `weight` × ∂λ/∂(stream read by each port), in the run from `embed`, to `gradients`.

    Args:
        objective: λ of each input from its logits.

    Returns:
        The run (detached values are safe to keep), and λ of each input in it.
    """
    with torch.enable_grad():
        run = differentiable_run(model, inputs, embed)
        assert run.logits is not None
        value = objective(run.logits)
        total = value.sum() * weight
    add_gradients_of(model, inputs, run, total, gradients)
    return run, value.detach()


@torch.enable_grad()
def differentiable_run(model: Model, inputs: Inputs, embed: Stream) -> Run:
    """A run rooted at `embed` that keeps what `add_gradients_of` needs."""
    return model.run(inputs, embed.detach().requires_grad_(), keep_ports=True)


def add_gradients_of(
    model: Model, inputs: Inputs, run: Run, total: Float[Tensor, ""], gradients: PortGradients
) -> None:
    """Add ∂total/∂(stream read by each port) in a differentiable run; zero where it has none."""
    flat = [tensor for ports in run.ports for tensor in ports]
    reads = [mlp for _, mlp in run.streams]
    assert run.final is not None
    wanted = [*flat, *reads, run.final]
    grads = torch.autograd.grad(total, wanted, materialize_grads=True)
    with torch.no_grad():
        for block in model.graph.blocks:
            into, layer = gradients.of(targets_of(block)), block.layer
            if block.kind == "attention":
                of_ports = grads[3 * layer : 3 * layer + 3]
                stream, ports = run.streams[layer][0], run.ports[layer]
                pull_back(model.layers[layer], stream, ports, of_ports, into)
            elif block.kind == "mlp":
                into += grads[len(flat) + layer]
            else:
                add_at_read(into[0], inputs, grads[-1])


def targets_of(block: PortBlock) -> slice:
    """The targets of a block among all targets."""
    return slice(block.first_target, block.first_target + block.n_targets)


def add_at_read(into: Stream, inputs: Inputs, gradient: Tensor) -> None:
    """Add what the final stream's gradient is at each input's read position."""
    index = torch.arange(len(inputs.read), device=into.device)
    into[index, inputs.read.to(into.device)] += gradient


def pull_back(
    layer: Layer,
    stream: Float[Tensor, "rows positions d_model"],
    ports: tuple[Tensor, ...],
    grads: tuple[Tensor, ...],
    into: Float[Tensor, "ports inputs positions d_model"],
) -> None:
    """Step 2 for all attention ports of one layer, added to `into`.

    The rows of `stream`, `ports` and `grads` are one or more variants of the inputs, one after the
    other, whose gradients are summed: before the product with Wᵀ, which they share.
    """
    unit, r = layer.norm_attention.unit(stream.detach())
    folded = layer.folded
    cotangent = _ports_first(grads) * r.reshape(1, -1, 1)
    value = _ports_first(ports) - folded.bias[:, None]
    along = (value * cotangent).sum(-1, keepdim=True) / unit.shape[-1]
    flat = into.flatten(1, 2)
    n = flat.shape[1]
    for rows in cotangent.split(n, dim=1)[1:]:
        cotangent[:, :n] += rows
    flat.baddbmm_(cotangent[:, :n].to(flat), folded.weight.to(flat))
    for x, part in zip(unit.flatten(0, 1).split(n), along.split(n, dim=1), strict=True):
        flat.addcmul_(x.to(flat), part.to(flat), value=-1.0)


def _ports_first(heads: tuple[Tensor, ...]) -> Float[Tensor, "ports rows d_head"]:
    """Queries, keys, values `[inputs, positions, heads, d_head]` as one table of ports."""
    return torch.cat([h.detach().flatten(0, 1).transpose(0, 1) for h in heads])


def against_clean(
    metric: str, batch: PromptBatch, run: Run
) -> tuple[Objective, Float[Tensor, " inputs"]]:
    """λ of any logits, compared with those of the clean run, and λ of the clean run itself."""
    assert run.logits is not None
    logits = run.logits.detach()
    return lambda x: oriented(metric, x, batch, logits), oriented(metric, logits, batch, logits)


@torch.no_grad()
def baseline_logits(
    model: Model, inputs: Inputs, values: SourceValues
) -> Float[Tensor, "inputs vocab"]:
    """Logits at the patch value of `embed`: known where the patch is a run, else one forward."""
    known = isinstance(values, RunValues)
    run = values.run if known else model.run(inputs, values.embed)  # type: ignore[attr-defined]
    assert run.logits is not None
    return run.logits


@torch.no_grad()
def contract(
    model: Model, differences: Spread, gradients: PortGradients
) -> Float[Tensor, "inputs edges"]:
    """Step 3: the score of every edge, float32.

    Args:
        differences: `[inputs, sources, positions, d_model]`.
    """
    n_inputs = gradients.parts[0][1].shape[1]
    scores = torch.empty(n_inputs, model.graph.n_edges, device=model.device)
    for part, (targets, gradient) in enumerate(gradients):
        left = gradient.flatten(2).transpose(0, 1)
        for sources, difference in differences.parts[: part + 1]:
            right = difference.flatten(2).transpose(1, 2).to(left)
            for blocks in _block_groups(model.graph, targets):
                _contract(scores, left, right, blocks, targets.start, sources)
    return scores


def _contract(
    scores: Float[Tensor, "inputs edges"],
    left: Float[Tensor, "inputs targets numbers"],
    right: Float[Tensor, "inputs numbers sources"],
    blocks: list[PortBlock],
    first_target: int,
    sources: slice,
) -> None:
    """The scores of some blocks' edges from some sources; `left` is of targets from
    `first_target` on."""
    first, last = blocks[0], blocks[-1]
    start = first.first_target - first_target
    n = last.first_target + last.n_targets - first.first_target
    width = min(last.n_sources, sources.stop) - sources.start
    product = torch.bmm(left[:, start : start + n], right[:, :, :width])
    for block in blocks:
        at = block.first_target - first.first_target
        mine = min(block.n_sources, sources.stop) - sources.start
        edges = scores[:, block.edges].unflatten(1, (block.n_targets, block.n_sources))
        part = product[:, at : at + block.n_targets, :mine].float()
        edges[:, :, sources.start : sources.start + mine] = part


def _block_groups(graph: EdgeGraph, targets: slice) -> Iterator[list[PortBlock]]:
    group: list[PortBlock] = []
    for block in graph.blocks:
        if not targets.start <= block.first_target < targets.stop:
            continue
        group.append(block)
        if sum(b.n_targets for b in group) >= PORTS_A_PRODUCT:
            yield group
            group = []
    if group:
        yield group
