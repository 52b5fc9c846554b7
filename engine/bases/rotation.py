"""The bases: PCA, LIB and GIB of one node layer, from its second moments.

    G = (1/N) Σ (f − μ)(f − μ)ᵀ = U D Uᵀ           the directions with D_j above a cut are kept
    R = U D^{-1/2},  R⁺ = D^{1/2} Uᵀ                f̃ = (f − μ) R is white
    M = R⁺ M′ R⁺ᵀ = V Λ Vᵀ                          M′: second moment of the Jacobian (see `forms`)
    C = R V Λ^{1/2},  C⁺ = Λ^{-1/2} Vᵀ R⁺           LIB equation 7; GIB by the M′ of equation 27

PCA is C = U, C⁺ = Uᵀ. LIB's equations 15 and 16 print (Λ^{1/2})⁺ and another order, which equation
7 and the published code contradict. C⁺ is a left inverse of C on the kept space, and not its
Moore-Penrose inverse, which spans other rows once directions are cut. Hence, over the data, f̂ has
the covariance Λ, and the second moment of ∂F̂/∂f̂ is the identity (tests/bases/test_bases.py).

The variance of a split norm can be isolated (the published code's `isolate_ln_var`): a direction by
itself, in both rotations, named `var`. The published code forgets it before the last norm.

The constant has a direction of its own, (μ, 1) in (f, c): never cut, never mixed, first wherever
directions are listed with it. `constant` is Λ_0, by which the published code scales it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.bases.moments import Moments

#: no direction is isolated
NONE = torch.tensor(-1)


@dataclass(frozen=True)
class Cut:
    """Which directions are too small to keep: `relative` to the largest, or in units of their own.

    The published runs cut at 1e-15, absolute, which keeps directions of rounding noise: how many
    hangs on the machine.
    """

    variance: float = 1e-12
    importance: float = 1e-12
    relative: bool = True

    def keeps(self, values: Float[Tensor, " n"], bound: float) -> int:
        """How many of some values, descending."""
        if len(values) == 0:
            return 0
        least = bound * float(values[0]) if self.relative else bound
        return int((values > max(least, 0.0)).sum())


@dataclass(frozen=True)
class Basis:
    """The directions of one node layer, float64.

    Attributes:
        mean: μ `[d]`.
        encode: C `[d, k]`.
        decode: C⁺ `[k, d]`.
        importance: Λ of the kept directions `[k]`, descending; of PCA, D.
        variances: D `[d]`, all of them.
        spectrum: Λ `[kept variances]`, all of them; of PCA, D.
        constant: Λ_0 `[]`; 0 of a layer without a constant.
        isolated: which direction is an isolated coordinate by itself `[]`; -1: none.
    """

    mean: Float[Tensor, " d"]
    encode: Float[Tensor, "d k"]
    decode: Float[Tensor, "k d"]
    importance: Float[Tensor, " k"]
    variances: Float[Tensor, " d"]
    spectrum: Float[Tensor, " n"]
    constant: Float[Tensor, ""]
    isolated: Int[Tensor, ""]

    @property
    def k(self) -> int:
        return self.encode.shape[1]

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def metric(self) -> Float[Tensor, "d d"]:
        """Q = C Cᵀ, of which a layer before sees this one."""
        return self.encode @ self.encode.T

    def encoded(self, f: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows k"]:
        return (f - self.mean) @ self.encode

    def decoded(self, f_hat: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows d"]:
        return self.mean + f_hat @ self.decode

    def to(self, like: Tensor) -> Basis:
        """In the precision and place of a tensor."""
        told = {k: v.to(like) for k, v in self.tensors().items()}
        return Basis(**{**told, "isolated": self.isolated})

    def names(self) -> list[str]:
        """Of its directions: `d0`, `d1`, …, and of an isolated variance `var`."""
        return ["var" if j == int(self.isolated) else f"d{j}" for j in range(self.k)]

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def identity(width: int) -> Basis:
    """A layer as it is, without centre and constant: logits that are not rotated."""
    one, eye = torch.ones(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64)
    return Basis(0 * one, eye, eye, one, one, one, torch.zeros((), dtype=torch.float64), NONE)


def pca(moments: Moments, cut: Cut, isolated: int | None = None) -> Basis:
    """C = U, not rescaled.

    Args:
        isolated: a coordinate that is a direction by itself, whatever it covaries with.
    """
    if isolated is not None:
        return _beside(isolated, moments, lambda some, _: pca(some, cut))
    variances, u = _eigen(moments.gram)
    u = u[:, : cut.keeps(variances, cut.variance)]
    kept = variances[: u.shape[1]]
    zero = torch.zeros((), dtype=torch.float64)
    return Basis(moments.mean, u, u.T.contiguous(), kept, variances, variances, zero, NONE)


def interaction_basis(
    moments: Moments,
    jacobian: Float[Tensor, "d d"],
    constant: float,
    cut: Cut,
    isolated: int | None = None,
) -> Basis:
    """LIB or GIB.

    Args:
        jacobian: M′ (LIB equation 19): the mean over inputs and input positions of the sum over
            later directions and output positions of g gᵀ, g = ∂F̂/∂f.
        constant: Λ_0, the same of the derivative by the constant.
        isolated: a coordinate that is a direction by itself. Its row and column count neither in
            G nor in M, and its scale is its own M.
    """
    if isolated is not None:
        return _beside(
            isolated,
            moments,
            lambda some, at: interaction_basis(some, jacobian[at][:, at], constant, cut),
        )
    variances, u = _eigen(moments.gram)
    kept = cut.keeps(variances, cut.variance)
    root, u = variances[:kept].sqrt(), u[:, :kept]
    into = u * root  # R⁺ᵀ
    spectrum, v = _eigen_between(jacobian, into)
    k = cut.keeps(spectrum, cut.importance)
    scale, v = spectrum[:k].sqrt(), v[:, :k]
    encode = (u / root) @ v * scale
    decode = (into @ v / scale).T.contiguous()
    told = torch.tensor(constant, dtype=torch.float64)
    return Basis(moments.mean, encode, decode, spectrum[:k], variances, spectrum, told, NONE)


def _beside(place: int, moments: Moments, made: Callable[[Moments, Tensor], Basis]) -> Basis:
    """The directions of one coordinate and those of all others, by importance."""
    at = torch.arange(len(moments.mean))
    parts = [(some, made(moments.at(some), some)) for some in (at[at == place], at[at != place])]
    order = torch.cat([part.importance for _, part in parts]).argsort(descending=True, stable=True)
    encode, first = moments.m2.new_zeros(len(at), len(order)), 0
    decode = encode.T.contiguous()
    for some, part in parts:
        encode[some, first : first + part.k] = part.encode
        decode[first : first + part.k, some] = part.decode
        first += part.k

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for _, part in parts]).sort(descending=True).values

    isolated = (order == 0).nonzero()[0, 0] if parts[0][1].k else NONE
    importance, variances, spectrum = map(joined, ("importance", "variances", "spectrum"))
    told = parts[1][1].constant
    encode, decode = encode[:, order].contiguous(), decode[order]
    return Basis(moments.mean, encode, decode, importance, variances, spectrum, told, isolated)


def _eigen_between(
    jacobian: Float[Tensor, "d d"], into: Float[Tensor, "d k"]
) -> tuple[Tensor, Tensor]:
    """The eigenvalues of M = R⁺ M′ R⁺ᵀ, by the singular values of a root of it: they span thirty
    orders of magnitude, and those of M itself would be lost in the rounding of the largest."""
    values, vectors = _eigen(jacobian)
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    _, singular, v = torch.linalg.svd(root @ into, full_matrices=False)
    return singular.square(), _with_signs(v.T)


def _eigen(symmetric: Float[Tensor, "n n"]) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors in columns, the largest part of each positive."""
    values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
    return values.flip(0), _with_signs(vectors.flip(1))


def _with_signs(vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()
