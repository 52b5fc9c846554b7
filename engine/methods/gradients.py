"""Gradients at every port of the graph from one backward, and their products with sources.

The three steps that all gradient methods share:

1. One backward gives ∂λ/∂q_h, ∂λ/∂k_g, ∂λ/∂v_g of every head, and ∂λ/∂x of every MLP and of the
   logits. Weights are frozen, so the graph is rooted at the embeddings.
2. Each head's cotangent is pulled back to the stream by itself: with q_h = W x̂ + b (the norm's
   gain folded into W, see `Norm`), ∂λ/∂x|_h = r Wᵀg − r x̂ ⟨q_h − b, g⟩ / d_model. The stream is
   never copied per head.
3. The score of (u, port) is Σ_positions ⟨u_clean − u_patch, ∂λ/∂x|_port⟩: one matrix product a
   group of layers, over the sources that precede it.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from engine.graph import EdgeGraph, PortBlock
from engine.model import Inputs, Model, Run
from engine.model.layers import Layer, Stream

Objective = Callable[[Float[Tensor, "inputs vocab"]], Float[Tensor, " inputs"]]
PortGradients = Float[Tensor, "targets inputs positions d_model"]

#: rows of the product of step 3 (ports taken together) from which it is no longer memory-bound
PORTS_A_PRODUCT = 96


def empty_gradients(model: Model, inputs: Inputs) -> PortGradients:
    """Zeros, one stream gradient a port: the accumulator of `add_port_gradients`."""
    return inputs.embed.new_zeros(len(model.graph.targets), *inputs.embed.shape)


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
    run, value = _differentiable_run(model, inputs, embed, objective)
    flat = [tensor for ports in run.ports for tensor in ports]
    reads = [mlp for _, mlp in run.streams]
    assert run.final is not None
    grads = torch.autograd.grad(value.sum() * weight, [*flat, *reads, run.final])
    with torch.no_grad():
        for block in model.graph.blocks:
            into = gradients[block.first_target : block.first_target + block.n_targets]
            if block.kind == "attention":
                at = 3 * block.layer
                _pull_back(model.layers[block.layer], run, block.layer, grads[at : at + 3], into)
            elif block.kind == "mlp":
                into += grads[len(flat) + block.layer]
            else:
                _add_at_read(into[0], inputs, grads[-1])
    return run, value.detach()


def _differentiable_run(
    model: Model, inputs: Inputs, embed: Stream, objective: Objective
) -> tuple[Run, Float[Tensor, " inputs"]]:
    with torch.enable_grad():
        root = embed.detach().requires_grad_()
        run = model.run(inputs, root, keep_ports=True)
        assert run.logits is not None
        return run, objective(run.logits)


def _add_at_read(into: Stream, inputs: Inputs, gradient: Tensor) -> None:
    into[torch.arange(len(inputs.read), device=into.device), inputs.read] += gradient


def _pull_back(
    layer: Layer, run: Run, index: int, grads: tuple[Tensor, ...], into: PortGradients
) -> None:
    """Step 2 for all attention ports of one layer, accumulated into `into`."""
    unit, r = layer.norm_attention.unit(run.streams[index][0].detach())
    folded = layer.ports.folded(layer.norm_attention)
    cotangent = _ports_first(grads) * r.reshape(1, -1, 1)
    value = _ports_first(run.ports[index]) - folded.bias[:, None]
    along = (value * cotangent).sum(-1, keepdim=True) / unit.shape[-1]
    flat = into.flatten(1, 2)
    flat.baddbmm_(cotangent, folded.weight)
    flat.addcmul_(unit.flatten(0, 1), along, value=-1.0)


def _ports_first(heads: tuple[Tensor, ...]) -> Float[Tensor, "ports rows d_head"]:
    """Queries, keys, values `[inputs, positions, heads, d_head]` as one table of ports."""
    return torch.cat([h.detach().flatten(0, 1).transpose(0, 1) for h in heads])


@torch.no_grad()
def contract(
    graph: EdgeGraph,
    differences: Float[Tensor, "inputs sources positions d_model"],
    gradients: PortGradients,
) -> Float[Tensor, "inputs edges"]:
    """Step 3: the score of every edge, float32."""
    left = gradients.flatten(2).transpose(0, 1)
    right = differences.flatten(2).transpose(1, 2)
    scores = torch.empty(left.shape[0], graph.n_edges, device=left.device)
    for blocks in _block_groups(graph):
        first, last = blocks[0], blocks[-1]
        rows = slice(first.first_target, last.first_target + last.n_targets)
        product = torch.bmm(left[:, rows], right[:, :, : last.n_sources])
        for block in blocks:
            start = block.first_target - first.first_target
            part = product[:, start : start + block.n_targets, : block.n_sources]
            scores[:, block.edges] = part.flatten(1).float()
    return scores


def _block_groups(graph: EdgeGraph) -> Iterator[list[PortBlock]]:
    group: list[PortBlock] = []
    for block in graph.blocks:
        group.append(block)
        if sum(b.n_targets for b in group) >= PORTS_A_PRODUCT:
            yield group
            group = []
    if group:
        yield group
