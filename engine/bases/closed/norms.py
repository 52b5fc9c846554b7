"""Norms split into two sections, of which both have closed forms (LIB section 5).

`NormIn`    r → (v, r)            v = mean((P r)²): the variance, or of an RMS norm (P = 1) the mean
                                 square, without ε
`NormOut`   (v, r) → (x, r)       x = s P r,  s = (max(v, 0) + ε)^{-1/2}

P takes the mean away. f may hold more than r, all of which passes through `NormIn`; `NormOut` says
what it keeps. The norm's affine map is no part of either: it belongs to what reads x. (The
published code folds it into the weights and centres what writes r; x differs by a linear map, to
which LIB's directions are covariant and PCA's are not.) With Q = C Cᵀ of the next layer, in blocks,

    NormIn   M′ = Q_rr + E[u] Q_vr + Q_rv E[u]ᵀ + Q_vv E[u uᵀ],               u = ∂v/∂r = (2/d) P r
    NormOut  M′_vv = ⟨Q_xx, E[t tᵀ]⟩,                                         t = ∂x/∂v = −½ s³ P r
             M′_vr = E[s t]ᵀ Q_xx P + E[t]ᵀ Q_xr
             M′_rr = E[s²] P Q_xx P + E[s] (P Q_xr + Q_rx P) + Q_rr

A network with directions left out may have v < 0: it counts as 0, as in the published code, so that
x is longer by up to (v/ε)^½. Pinned by tests/bases/test_norms.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.forms import Directions, Nodes, Outlet, a_few
from edgesweep.engine.bases.moments import Sums


@dataclass(frozen=True)
class NormIn:
    """f → (v, f).

    Attributes:
        at: where in f the stream r is.
        centred: whether the mean is taken away.
    """

    at: slice
    centred: bool

    def __call__(self, f: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d1"]:
        v = _centre(f[..., self.at], self.centred).square().mean(-1, keepdim=True)
        return torch.cat([v, f], -1)

    def statistics(self, f: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        u = self._slope(f)
        return {"slope": u.sum(0), "slopes": u.T @ u}

    def pulled(self, q: Float[Tensor, "e e"], data: Sums) -> Float[Tensor, "d d"]:
        at, slope = self.at, data.mean("slope")
        found = q[1:, 1:].clone()
        across = torch.outer(slope, q[0, 1:])
        found[at] += across
        found[:, at] += across.T
        found[at, at] += q[0, 0] * data.mean("slopes")
        return found

    def constant(self, outlet: Outlet, mean: Float[Tensor, " d"], data: Sums) -> float:
        still, of_v = mean @ outlet.encode[1:] - outlet.shift, outlet.encode[0]
        r = mean[self.at]
        once, twice = data.mean("slope") @ r, r @ data.mean("slopes") @ r
        return float(still @ still + 2 * once * (of_v @ still) + twice * (of_v @ of_v))

    def slopes(
        self, f: Float[Tensor, "n d"], into: Directions, outlet: Outlet, nodes: Nodes
    ) -> Iterator[tuple[slice, Float[Tensor, "rows k_out k1"]]]:
        still = into.vectors @ outlet.encode[1:] - torch.outer(into.c, outlet.shift)
        still = sum(w for _, w in nodes) * still.T
        u = sum(w * alpha for alpha, w in nodes) * self._slope(f)
        entering = u @ into.vectors[:, self.at].T
        for rows in a_few(len(f), still.numel()):
            yield rows, still + outlet.encode[0][:, None] * entering[rows, None]

    def _slope(self, f: Float[Tensor, "n d"]) -> Float[Tensor, "n r"]:
        r = f[:, self.at]
        return _centre(r, self.centred) * (2 / r.shape[1])


@dataclass(frozen=True)
class NormOut:
    """(v, f) → (x, some of f).

    Attributes:
        at: where in f the stream r is.
        keeps: the part of f that is kept beside x; None: none.
        centred: whether the mean is taken away.
        eps: ε.
    """

    at: slice
    keeps: slice | None
    centred: bool
    eps: float

    def __call__(self, f: Float[Tensor, "*rows d1"]) -> Float[Tensor, "*rows e"]:
        x = _centre(f[..., _after_v(self.at)], self.centred) * self._scale(f[..., :1])
        return x if self.keeps is None else torch.cat([x, f[..., _after_v(self.keeps)]], -1)

    def statistics(self, f: Float[Tensor, "n d1"]) -> dict[str, Tensor]:
        s, t = self._slopes(f)
        return {
            "scale": s.sum(),
            "scales": s.square().sum(),
            "slope": t.sum(0),
            "scaled": (s * t).sum(0),
            "slopes": t.T @ t,
        }

    def pulled(self, q: Float[Tensor, "e e"], data: Sums) -> Float[Tensor, "d1 d1"]:
        r, d = _after_v(self.at), self._width
        of_x, across = q[:d, :d], q[:d, d:]
        width = 1 + max(self.at.stop, 0 if self.keeps is None else self.keeps.stop)
        found = q.new_zeros(width, width)
        found[0, 0] = (of_x * data.mean("slopes")).sum()
        by_v = _centre(data.mean("scaled") @ of_x, self.centred)
        found[0, r] += by_v
        found[r, 0] += by_v
        found[r, r] += data.mean("scales") * _centre(_centre(of_x, self.centred).T, self.centred)
        if self.keeps is None:
            return found
        kept = _after_v(self.keeps)
        by_v = data.mean("slope") @ across
        found[0, kept] += by_v
        found[kept, 0] += by_v
        block = data.mean("scale") * _centre(across.T, self.centred)
        found[kept, r] += block
        found[r, kept] += block.T
        found[kept, kept] += q[d:, d:]
        return found

    def constant(self, outlet: Outlet, mean: Float[Tensor, " d1"], data: Sums) -> float:
        of_x = outlet.encode[: self._width]
        still = self._kept(mean, outlet) - outlet.shift
        moved = _centre(mean[_after_v(self.at)], self.centred) @ of_x
        once, scaled = mean[0] * (data.mean("slope") @ of_x), mean[0] * data.mean("scaled") @ of_x
        found = mean[0] ** 2 * ((of_x @ of_x.T) * data.mean("slopes")).sum()
        found += data.mean("scales") * (moved @ moved) + still @ still
        found += 2 * (scaled @ moved + once @ still + data.mean("scale") * (moved @ still))
        return float(found)

    def slopes(
        self, f: Float[Tensor, "n d1"], into: Directions, outlet: Outlet, nodes: Nodes
    ) -> Iterator[tuple[slice, Float[Tensor, "rows k_out k1"]]]:
        of_x, v = outlet.encode[: self._width], into.vectors[:, 0]
        still = self._kept(into.vectors, outlet) - torch.outer(into.c, outlet.shift)
        still = sum(w for _, w in nodes) * still.T
        moved = (_centre(into.vectors[:, _after_v(self.at)], self.centred) @ of_x).T
        points = [(w, *self._slopes(alpha * f)) for alpha, w in nodes]
        scale = torch.stack([w * s for w, s, _ in points]).sum(0)
        by_v = torch.stack([w * t for w, _, t in points]).sum(0) @ of_x
        for rows in a_few(len(f), still.numel()):
            yield rows, still + scale[rows, None] * moved + by_v[rows, :, None] * v

    @property
    def _width(self) -> int:
        return int(self.at.stop - self.at.start)

    def _kept(self, f: Float[Tensor, "*rows d1"], outlet: Outlet) -> Float[Tensor, "*rows k"]:
        """What is beside x, as read."""
        if self.keeps is None:
            return f.new_zeros(*f.shape[:-1], outlet.encode.shape[1])
        return f[..., _after_v(self.keeps)] @ outlet.encode[self._width :]

    def _scale(self, v: Float[Tensor, "*rows 1"]) -> Float[Tensor, "*rows 1"]:
        return torch.rsqrt(torch.relu(v) + self.eps)

    def _slopes(
        self, f: Float[Tensor, "n d1"]
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n r"]]:
        """s and t."""
        s, v = self._scale(f[:, :1]), f[:, :1]
        return s, -0.5 * s**3 * (v > 0) * _centre(f[:, _after_v(self.at)], self.centred)


def _centre(r: Float[Tensor, "*rows d"], centred: bool) -> Float[Tensor, "*rows d"]:
    """r P."""
    return r - r.mean(-1, keepdim=True) if centred else r


def _after_v(at: slice) -> slice:
    """A part of f, in (v, f)."""
    return slice(at.start + 1, at.stop + 1)
