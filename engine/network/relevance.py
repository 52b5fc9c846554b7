"""Relevance coefficients in place of slopes: the same values, other derivatives.

A model under `Relevance` (`Model.under`) computes what it always does. What its modules hand back
in a backward is how relevance is shared out, so that any method that takes gradients takes these:

    norm          w ⊙ r C x + b with its scale r a constant               (LN-rule)
    activation    (f(z)/z) z with f(z)/z a constant, 0 at z = 0           (identity rule)
    gate          of f(g) ⊙ u each factor receives half                   (half rule)
    attention     Σ A v with its pattern A a constant, so that nothing    (AH-rule)
                  reaches queries and keys
    linear maps   as they are; biases receive nothing                     (0-rule)

(Jafari et al. 2025, arXiv 2508.21258.) The metric and a soft-capping of the logits keep their
gradients. Without biases relevance is conserved: ⟨x, coefficients at x⟩ = λ at every layer, for a λ
that is linear in the logits.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edgesweep.engine.network.architectures import Architecture, AttentionCore, Heads, KeyValues
from edgesweep.engine.network.layers import NoNorm, Norm, Stream, norm_of

Attend = Callable[[Heads, KeyValues, KeyValues, dict[str, Any]], Heads]


class RelevanceError(ValueError):
    """A model that the rules do not fit; one line."""


@dataclass(frozen=True)
class Relevance:
    """The rules of the module's docstring.

    Attributes:
        patterns_held: the AH-rule; without it softmax and scores are differentiated, and the norms
            of queries and keys have the LN-rule.
    """

    patterns_held: bool = True

    def norm(self, norm: Norm) -> Norm:
        """The LN-rule."""
        return norm if isinstance(norm, NoNorm) else HeldNorm(norm)

    def attention(self, core: AttentionCore, arch: Architecture) -> Attend:
        """The AH-rule, or the LN-rule inside."""
        if self.patterns_held:
            return lambda query, key, *others: core(query.detach(), key.detach(), *others)
        return core.replaced(
            {
                name: _AsModule(self.norm(norm_of(module, arch.unit_offset)))
                for name, module in core.inner_norms().items()
            }
        )

    def mlp(self, mlp: nn.Module, arch: Architecture) -> nn.Module:
        """The identity rule and the half rule.

        Raises:
            RelevanceError: an activation that is not 0 at 0.
        """
        if next(mlp.parameters(), None) is None:  # an MLP that writes nothing
            return mlp
        found = copy.copy(mlp)
        found._modules = dict(mlp._modules)
        setattr(found, arch.activation, _Secant(mlp.get_submodule(arch.activation)))
        if arch.gated is not None:
            setattr(found, arch.gated, _Halved(mlp.get_submodule(arch.gated)))
        return found


class HeldNorm(Norm):
    """A norm whose scale is a constant: x -> w ⊙ r C x + b at fixed r.

    Beside r it gives x̂ = 0, which makes the pull-back of `Norm` r C (w⊙g), its own.
    """

    def __init__(self, norm: Norm) -> None:
        self._norm = norm
        self.centred, self.eps = norm.centred, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def __call__(self, x: Stream) -> Stream:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        r = self._norm.unit(wide.detach())[1]
        centred = wide - wide.mean(-1, keepdim=True) if self.centred else wide
        out = (centred * r).to(x.dtype) * self.weight
        return out if self.bias is None else out + self.bias

    def unit(self, x: Stream) -> tuple[Stream, Float[Tensor, "*rows 1"]]:
        return torch.zeros_like(x), self._norm.unit(x.detach())[1]


class _Secant(nn.Module):
    """An activation whose slope is f(z)/z."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self._activation = activation
        at_zero = float(activation(torch.zeros(1)))
        if at_zero:
            name = type(activation).__name__
            raise RelevanceError(
                f"relevance of the activation {name} cannot be had: it is {at_zero:g} at 0, and "
                "f(z)/z has no bound there; use eap or ig_inputs"
            )

    def forward(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            slope = self._activation(z) / torch.where(z == 0, 1, z)
        return z * slope


class _Halved(nn.Module):
    """A module whose input, a product, hands half of its cotangent to each factor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module

    def forward(self, product: Tensor) -> Tensor:
        half = product / 2
        out: Tensor = self._module(half + half.detach())
        return out


class _AsModule(nn.Module):
    """A norm where a module is wanted."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self._norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self._norm(x)
