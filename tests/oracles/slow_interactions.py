"""The local interaction basis by its definitions: one autograd call for each direction and
position.

A network is functions F(f, c) of one input, `[positions, d]` and the constant at each position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Section = Callable[[Tensor, Tensor], Tensor]


def jacobian_moment(
    section: Section, inputs: Sequence[Tensor], mean: Tensor, encode: Tensor, centre: Tensor
) -> tuple[Tensor, float, int]:
    """N·M′, N·Λ_0 and N (LIB equation 19), over inputs."""
    d = inputs[0].shape[-1]
    found, constant, n = torch.zeros(d, d, dtype=torch.float64), 0.0, 0
    for x in inputs:
        f, c = x.clone().requires_grad_(), torch.ones(len(x), dtype=torch.float64).requires_grad_()
        f_hat = hatted(section, f, c, encode, centre)
        for s in range(len(f_hat)):
            for i in range(encode.shape[1]):
                g, by_c = torch.autograd.grad(f_hat[s, i], (f, c), retain_graph=True)
                for t in range(len(x)):
                    found += torch.outer(g[t], g[t])
                    constant += float(g[t] @ mean + by_c[t]) ** 2
        n += len(x)
    return found, constant, n


def hatted(section: Section, f: Tensor, c: Tensor, encode: Tensor, centre: Tensor) -> Tensor:
    """F̂ = (F(f, c) − c μ′) C′, `[positions_out, directions]`."""
    out = section(f, c)
    return (out - c[-len(out) :, None] * centre) @ encode


def mean_squares(
    section: Section,
    inputs: Sequence[Tensor],
    start: tuple[Tensor, Tensor, Tensor],
    end: tuple[Tensor, Tensor],
    nodes: Sequence[tuple[float, float]],
) -> tuple[Tensor, float]:
    """E² `[k_out, 1 + k_in]` (LIB equation 2), the constant's column first; and how far
    completeness is missed.

    Args:
        start: μ, C and C⁺ of the earlier layer.
        end: C′ and μ′ of the later one.
    """
    (mean, encode, decode), (encode_out, centre) = start, end
    total = torch.zeros(encode_out.shape[1], 1 + len(decode), dtype=torch.float64)
    n, missed, reached = 0, 0.0, 0.0
    for x in inputs:
        f_hat = (x - mean) @ encode
        kept = mean + f_hat @ decode
        ones = torch.ones(len(x), dtype=torch.float64)
        plain = hatted(section, kept, ones, encode_out, centre)
        for s in range(len(plain)):
            for i in range(encode_out.shape[1]):
                a = torch.zeros(1 + len(decode), dtype=torch.float64)
                for alpha, weight in nodes:
                    f, c = (alpha * kept).requires_grad_(), (alpha * ones).requires_grad_()
                    value = hatted(section, f, c, encode_out, centre)[s, i]
                    g, by_c = torch.autograd.grad(value, (f, c))
                    for t in range(len(x)):
                        a[0] += weight * (g[t] @ mean + by_c[t])
                        a[1:] += weight * f_hat[t] * (decode @ g[t])
                total[i] += a**2
                missed += float(a.sum() - plain[s, i]) ** 2
                reached += float(plain[s, i]) ** 2
        n += len(x)
    return total / n, (missed / reached) ** 0.5
