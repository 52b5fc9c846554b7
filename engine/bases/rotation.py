"""The bases: PCA, LIB and GIB of one node layer, from its second moments.

    G = (1/N) Σ (f − μ)(f − μ)ᵀ = U D Uᵀ           the directions with D_j above a cut are kept
    R = U D^{-1/2},  R⁺ = D^{1/2} Uᵀ                f̃ = (f − μ) R is white
    M = R⁺ M′ R⁺ᵀ = V Λ Vᵀ                          M′: second moment of the Jacobian (see `forms`)
    C = R V Λ^{1/2},  C⁺ = Λ^{-1/2} Vᵀ R⁺           LIB equation 7; GIB by the M′ of equation 27

PCA is C = U, C⁺ = Uᵀ. LIB's equations 15 and 16 print (Λ^{1/2})⁺ and another order, which equation
7 and the published code contradict. C⁺ is a left inverse of C on the kept space, and not its
Moore-Penrose inverse, which spans other rows once directions are cut. Hence, over the data, f̂ has
the covariance Λ, and the second moment of ∂F̂/∂f̂ is the identity (tests/bases/test_bases.py).

The constant has a direction of its own, (μ, 1) in (f, c): never cut, never mixed, first wherever
directions are listed with it. `constant` is Λ_0, by which the published code scales it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.moments import Moments


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
    """

    mean: Float[Tensor, " d"]
    encode: Float[Tensor, "d k"]
    decode: Float[Tensor, "k d"]
    importance: Float[Tensor, " k"]
    variances: Float[Tensor, " d"]
    spectrum: Float[Tensor, " n"]
    constant: Float[Tensor, ""]

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
        return Basis(**{k: v.to(like) for k, v in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def identity(width: int) -> Basis:
    """A layer as it is, without centre and constant: logits that are not rotated."""
    one, eye = torch.ones(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64)
    return Basis(0 * one, eye, eye, one, one, one, torch.zeros((), dtype=torch.float64))


def pca(moments: Moments, cut: Cut) -> Basis:
    """C = U, not rescaled."""
    variances, u = _eigen(moments.gram)
    u = u[:, : cut.keeps(variances, cut.variance)]
    kept = variances[: u.shape[1]]
    zero = torch.zeros((), dtype=torch.float64)
    return Basis(moments.mean, u, u.T.contiguous(), kept, variances, variances, zero)


def interaction_basis(
    moments: Moments, jacobian: Float[Tensor, "d d"], constant: float, cut: Cut
) -> Basis:
    """LIB or GIB.

    Args:
        jacobian: M′ (LIB equation 19): the mean over inputs and input positions of the sum over
            later directions and output positions of g gᵀ, g = ∂F̂/∂f.
        constant: Λ_0, the same of the derivative by the constant.
    """
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
    return Basis(moments.mean, encode, decode, spectrum[:k], variances, spectrum, told)


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
