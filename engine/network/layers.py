"""One transformer layer as the graph sees it: ports that read the stream, nodes that write to it.

Shapes: `*rows` stands for any leading shape, usually `[inputs, positions]`.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.network.architectures import Architecture, AttentionCore, Heads, KeyValues

if TYPE_CHECKING:
    from edgesweep.engine.network.relevance import Attend, Relevance

Stream = Float[Tensor, "*rows d_model"]
#: some heads of a layer
HeadIndex = slice | list[int]


class Norm:
    """A layer norm or RMS norm with what its closed-form pull-back needs.

    Both are x -> w ⊙ x̂ + b with x̂ = r C x, where C removes the mean (layer norm) or is the identity
    and r = (mean((Cx)²) + eps)^-1/2. The pull-back of a cotangent g at fixed x is
    r C (w⊙g) − r x̂ ⟨x̂, w⊙g⟩ / d_model.
    """

    def __init__(self, module: nn.Module, unit_offset: bool) -> None:
        self._module = module
        self.centred = isinstance(module, nn.LayerNorm)
        eps = getattr(module, "variance_epsilon", None)
        self.eps = float(getattr(module, "eps", 0.0) if eps is None else eps)
        self.weight: Tensor = module.weight + 1.0 if unit_offset else module.weight  # type: ignore
        self.bias: Tensor | None = getattr(module, "bias", None)

    def __call__(self, x: Stream) -> Stream:
        out: Tensor = self._module(x)
        return out

    def unit(self, x: Stream) -> tuple[Stream, Float[Tensor, "*rows 1"]]:
        """x̂ and r at x."""
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        r = torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        return centred * r, r

    def apart(self, x: Stream) -> tuple[Stream, Float[Tensor, "*rows 1"] | None]:
        """What folded maps read, and a factor that what they give still lacks: x and r where that
        is all, so that a stream is read once and never written; else x̂ and None."""
        if self.centred:
            return nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps), None
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x, torch.rsqrt(length.square() / x.shape[-1] + self.eps)


class NoNorm(Norm):
    """The norm of an architecture without norms: x -> x.

    x̂ = 0 and r = 1 make the pull-back of `Norm` the identity's: what is left of it is g.
    """

    def __init__(self) -> None:
        self.centred, self.eps = False, 0.0
        self.weight, self.bias = torch.ones(()), None

    def __call__(self, x: Stream) -> Stream:
        return x

    def unit(self, x: Stream) -> tuple[Stream, Float[Tensor, "*rows 1"]]:
        return torch.zeros_like(x), torch.ones_like(x[..., :1])

    def apart(self, x: Stream) -> tuple[Stream, None]:
        return x, None


def norm_of(module: nn.Module, unit_offset: bool) -> Norm:
    """The norm that a module is; an identity stands for none."""
    return NoNorm() if isinstance(module, nn.Identity) else Norm(module, unit_offset)


@dataclass(frozen=True)
class PortWeights:
    """The projections of all attention ports of a layer: queries, then keys, then values.

    Attributes:
        weight: one map a port, from the normed stream.
        bias: what it adds.
    """

    weight: Float[Tensor, "ports d_head d_model"]
    bias: Float[Tensor, "ports d_head"]

    def folded(self, norm: Norm) -> "PortWeights":
        """The same maps from x̂ (see `Norm`): C and w folded into the weight, b into the bias."""
        weight, bias = self.weight * norm.weight, self.bias
        if norm.bias is not None:
            bias = bias + self.weight @ norm.bias
        if norm.centred:
            weight = weight - weight.mean(-1, keepdim=True)
        return PortWeights(weight, bias)


class Layer:
    """Ports and nodes of one layer, whatever the architecture.

    The layers of a model may lie on several devices. What is given to a layer may come from any of
    them, what it returns is where its weights are.

    Attributes:
        core: attention from given queries, keys and values to z (heads before W_O).
        w_out: `[heads, d_head, d_model]`, W_O of each head.
        constant: the bias of the attention output, which belongs to no node; None if absent.
    """

    def __init__(self, module: nn.Module, arch: Architecture, spec: GraphSpec) -> None:
        def part(name: str) -> nn.Module:
            return module.get_submodule(name)

        attention = part(arch.attention)
        self.spec, self._arch = spec, arch
        self._attention = AttentionCore(attention, arch)
        self.core: Attend = self._attention
        self.norm_attention = norm_of(part(arch.norm_attention), arch.unit_offset)
        self.norm_mlp = norm_of(part(arch.norm_mlp), arch.unit_offset)
        self._mlp = part(arch.mlp)
        self._post_mlp = Norm(part(arch.post_mlp), True) if arch.post_mlp else None
        self._post = Norm(part(arch.post_attention), True) if arch.post_attention else None
        self._projection = arch.projection
        self._projections = [attention.get_submodule(n) for n in arch.projection.modules()]
        self._output = attention.get_submodule(arch.output)
        self.w_out = _matrix(self._output).unflatten(0, (spec.n_heads, -1))
        self.constant: Tensor | None = getattr(self._output, "bias", None)

    def under(self, rules: "Relevance") -> "Layer":
        """The same values, other derivatives (see `Model.under`)."""
        found = copy.copy(self)
        found.core = rules.attention(self._attention, self._arch)
        found.norm_attention = rules.norm(self.norm_attention)
        found.norm_mlp = rules.norm(self.norm_mlp)
        found._mlp = rules.mlp(self._mlp, self._arch)
        found._post = self._post and rules.norm(self._post)
        found._post_mlp = self._post_mlp and rules.norm(self._post_mlp)
        return found

    @cached_property
    def ports(self) -> PortWeights:
        """The maps of the attention ports, from the normed stream."""
        return self._port_weights()

    @cached_property
    def folded(self) -> PortWeights:
        """The same from what `Norm.apart` gives."""
        return self._port_weights().folded(self.norm_attention)

    def _port_weights(self) -> PortWeights:
        weights = self._split([_matrix(m) for m in self._projections])
        weight = torch.cat([w.permute(1, 2, 0) for w in weights])
        if getattr(self._projections[0], "bias", None) is None:
            return PortWeights(weight, weight.new_zeros(weight.shape[:2]))
        biases: list[Any] = [m.bias for m in self._projections]
        return PortWeights(weight, torch.cat(self._split(biases)))

    def _split(self, outputs: list[Tensor]) -> tuple[Heads, KeyValues, KeyValues]:
        return self._projection.split(outputs, self.spec.n_heads, self.spec.n_kv_heads)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.w_out.device

    def here(self, value: Tensor) -> Tensor:
        """A value where the layer's weights are; itself if it is there."""
        return value.to(self.device)

    def normed(self, stream: Stream) -> Stream:
        """What the attention ports' maps read."""
        return self.norm_attention(self.here(stream))

    def project(self, stream: Stream) -> tuple[Heads, KeyValues, KeyValues]:
        """Queries, keys and values when every port reads the same stream."""
        return self.project_normed(self.normed(stream))

    def project_normed(self, normed: Stream) -> tuple[Heads, KeyValues, KeyValues]:
        """The same from what the ports' maps read."""
        return self._split([module(normed) for module in self._projections])

    def write(self, z: Heads) -> tuple[Stream, Stream | None]:
        """What the attention block adds to the stream, and the scale of its post-norm if any."""
        out: Tensor = self._output(self.here(z).flatten(-2))
        if self._post is None:
            return out, None
        scale = self._post.unit(out)[1] * self._post.weight
        return out * scale, scale

    def head_writes(
        self, z: Heads, scale: Stream | None, heads: HeadIndex = slice(None)
    ) -> Float[Tensor, "heads *rows d_model"]:
        """What some heads add to the stream: W_O z_h, by the post-norm's scale of the same run."""
        rows, some = z.shape[:-2], z[..., heads, :]
        writes = torch.bmm(some.reshape(-1, *some.shape[-2:]).transpose(0, 1), self.w_out[heads])
        writes = writes.unflatten(1, rows)
        return writes if scale is None else writes * scale

    def head_writes_into(
        self, out: Float[Tensor, "heads numbers"], z: Heads, heads: HeadIndex
    ) -> None:
        """The same without a scale, written where it is wanted."""
        some, w_out = z[..., heads, :], self.w_out[heads]
        some = some.reshape(-1, *some.shape[-2:]).transpose(0, 1)
        if out.device == self.device:
            torch.bmm(some, w_out, out=out.unflatten(1, some.shape[1:2] + w_out.shape[-1:]))
        else:
            out.copy_(torch.bmm(some, w_out).flatten(1))

    def mlp(self, stream: Stream) -> Stream:
        """What the MLP adds to the stream (its own post-norm included)."""
        return self.mlp_normed(self.norm_mlp(self.here(stream)))

    def mlp_normed(self, normed: Stream) -> Stream:
        """The same from what its norm gives."""
        out: Tensor = self._mlp(normed)
        return out if self._post_mlp is None else self._post_mlp(out)

    def hidden(self, stream: Stream) -> Float[Tensor, "*rows d_hidden"]:
        """The MLP's neurons after their activation: what its output map reads."""
        read: list[Tensor] = []
        output = self._mlp.get_submodule(self._arch.mlp_output)
        hook = output.register_forward_pre_hook(lambda _, given: read.append(given[0]))
        try:
            self.mlp(stream)
        finally:
            hook.remove()
        return read[0]

    def mlp_of(self, hidden: Float[Tensor, "*rows d_hidden"]) -> Stream:
        """What the MLP adds to the stream for values of its neurons."""
        out: Tensor = self._mlp.get_submodule(self._arch.mlp_output)(self.here(hidden))
        return out if self._post_mlp is None else self._post_mlp(out)

    def attention_of(self, z: Float[Tensor, "*rows d_heads"]) -> Stream:
        """What attention adds to the stream for heads side by side."""
        return self.write(z.unflatten(-1, (self.spec.n_heads, -1)))[0]

    @property
    def adds_what_it_writes(self) -> bool:
        """Whether no norm stands between the attention's output and the stream."""
        return self._post is None

    @property
    def plain_mlp(self) -> nn.Module | None:
        """The MLP's own module; None where a norm follows it."""
        return self._mlp if self._post_mlp is None else None

    def project_each(
        self, ports: Int[np.ndarray, " n"], streams: Float[Tensor, "n *rows d_model"]
    ) -> Float[Tensor, "n *rows d_head"]:
        """Queries, keys or values of some ports, each from a stream of its own."""
        x, scale, maps = self._reads(streams)
        weight, bias = maps.weight, maps.bias
        if len(ports) < len(weight):
            some = torch.as_tensor(ports, device=weight.device)
            weight, bias = weight[some], bias[some]
        out = torch.bmm(x.flatten(1, -2), weight.transpose(1, 2))
        if scale is not None:
            out *= scale.flatten(1, -2)
        return (out + bias[:, None]).unflatten(1, streams.shape[1:-1])

    def project_one(self, port: int, streams: Stream) -> Float[Tensor, "*rows d_head"]:
        """One port's query, key or value from streams."""
        x, scale, maps = self._reads(streams)
        out = x @ maps.weight[port].T
        return (out if scale is None else out * scale) + maps.bias[port]

    def _reads(
        self, streams: Stream
    ) -> tuple[Stream, Float[Tensor, "*rows 1"] | None, PortWeights]:
        """What maps of ports read, what they give is scaled by before the bias, and the maps. In
        other than single precision a model's own code may round on the way, so it is asked."""
        streams = self.here(streams)
        if streams.dtype != torch.float32:
            return self.norm_attention(streams), None, self.ports
        return *self.norm_attention.apart(streams), self.folded

    def project_port(self, port: int, normed: Stream) -> Float[Tensor, "*rows d_head"]:
        """One port's query, key or value from its own normed stream."""
        return nn.functional.linear(normed, self.ports.weight[port], self.ports.bias[port])

    def attend(
        self, query: Heads, key: KeyValues, value: KeyValues, context: dict[str, Any]
    ) -> Heads:
        """z `[rows, positions, heads, d_head]`."""
        return self.core(query, key, value, context)


def _matrix(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """A linear map's matrix; GPT-2 stores it as d_in x d_out, torch the other way round."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, nn.Linear) else weight
