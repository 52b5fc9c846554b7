"""Dictionaries: a site's value x taken apart into features f = E(x) and an error.

    x = D(f) + ε,   D(f) = Σ_j f_j d_j + b,   ε = x − D(E(x))

D is affine in every kind; E is, with a_j = ⟨e_j, x − c⟩ + h_j and c the bias b or 0:

    none       nothing: all of x is ε
    identity   f_j = x_j
    linear     f_j = a_j, any invertible basis
    relu       f_j = max(a_j, 0)
    gated      f_j = [a_j + g_j > 0] max(s_j a_j + m_j, 0)     (Rajamanoharan et al. 2024)
    jumprelu   f_j = [a_j > θ_j] a_j                           (Rajamanoharan et al. 2024b)
    topk       f_j = max(a_j, 0) if a_j is among the k largest (Gao et al. 2024)

Almost everywhere ∂f_j/∂x = slope_j(x) e_j with a fixed direction e_j, which is what attribution
uses. Pinned by tests/model/test_dictionaries.py, every kind against plain autograd.
"""

import copy
import hashlib
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

Values = Float[Tensor, "*rows d_model"]
Features = Float[Tensor, "*rows features"]


class DictionaryError(ValueError):
    """A dictionary that cannot be had or used; one line."""


class Dictionary:
    """What all kinds share.

    Args:
        decoder: d_j, one a row.
        bias: b.

    Attributes:
        kind: its name.
        continuous: whether f is a continuous function of x.
        separable: whether a feature can be had without the others.
    """

    kind: ClassVar[str]
    continuous: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def __init__(
        self, decoder: Float[Tensor, "features d_model"], bias: Float[Tensor, " d_model"]
    ) -> None:
        self.decoder, self.bias = decoder, bias

    @property
    def n_features(self) -> int:
        return self.decoder.shape[0]

    @property
    def d_model(self) -> int:
        return self.decoder.shape[1]

    def encode(self, x: Values) -> Features:
        """E(x)."""
        return self.encode_some(x, torch.arange(self.n_features, device=x.device))

    def encode_some(self, x: Values, features: Int[Tensor, " some"]) -> Float[Tensor, "*rows some"]:
        """Some features, without the cost of the others where the kind allows it."""
        raise NotImplementedError

    def slopes(self, x: Values) -> Features:
        """∂f_j/∂x along e_j, of all features."""
        raise NotImplementedError

    def directions(self, features: Int[Tensor, " some"]) -> Float[Tensor, "some d_model"]:
        """e_j of some features."""
        raise NotImplementedError

    def decode(self, f: Features) -> Values:
        """D(f)."""
        return f @ self.decoder + self.bias

    def error(self, x: Values) -> Values:
        """ε."""
        return x - self.decode(self.encode(x))

    def tensors(self) -> dict[str, Tensor]:
        """Everything that it consists of, by name."""
        return {k: v for k, v in sorted(vars(self).items()) if isinstance(v, Tensor)}

    @property
    def digest(self) -> str:
        """sha256 of its kind and numbers."""
        found = hashlib.sha256(self._told().encode())
        for name, tensor in self.tensors().items():
            found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _told(self) -> str:
        """Its kind, and what else is no tensor."""
        return self.kind

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same on another device, in another precision."""
        other = copy.copy(self)
        for name, tensor in self.tensors().items():
            setattr(other, name, tensor.to(device=device, dtype=dtype))
        return other


class NoDictionary(Dictionary):
    """No features: the site is one node, its error."""

    kind = "none"

    def __init__(self, d_model: int) -> None:
        super().__init__(torch.zeros(0, d_model), torch.zeros(d_model))

    def encode_some(self, x: Values, features: Tensor) -> Tensor:
        return x[..., :0]

    def slopes(self, x: Values) -> Tensor:
        return x[..., :0]

    def directions(self, features: Tensor) -> Tensor:
        return self.decoder[features]


class Identity(Dictionary):
    """The coordinates."""

    kind = "identity"

    def __init__(self, d_model: int) -> None:
        super().__init__(torch.eye(d_model), torch.zeros(d_model))

    def encode_some(self, x: Values, features: Tensor) -> Tensor:
        return x[..., features]

    def slopes(self, x: Values) -> Tensor:
        return torch.ones_like(x)

    def directions(self, features: Tensor) -> Tensor:
        return self.decoder[features]


class _Encoded(Dictionary):
    """Kinds that start from a_j = ⟨e_j, x − c⟩ + h_j.

    Args:
        encoder: e_j, one a row.
        shift: h.
        centred: c is b; else 0.
    """

    def __init__(
        self,
        encoder: Float[Tensor, "features d_model"],
        shift: Float[Tensor, " features"],
        decoder: Float[Tensor, "features d_model"],
        bias: Float[Tensor, " d_model"],
        *,
        centred: bool = True,
    ) -> None:
        super().__init__(decoder, bias)
        self.encoder, self.shift, self.centred = encoder, shift, centred

    def _told(self) -> str:
        return f"{self.kind} centred={self.centred}"

    def directions(self, features: Tensor) -> Tensor:
        return self.encoder[features]

    def _before(self, x: Values, features: Tensor | None = None) -> Tensor:
        """a, of all features or of some."""
        centre = x - self.bias if self.centred else x
        if features is None:
            return centre @ self.encoder.T + self.shift
        return centre @ self.encoder[features].T + self.shift[features]

    def encode(self, x: Values) -> Features:
        return self._activate(self._before(x), slice(None))

    def encode_some(self, x: Values, features: Tensor) -> Tensor:
        return self._activate(self._before(x, features), features)

    def _activate(self, before: Tensor, features: Any) -> Tensor:
        """f from a; `features` are those that the last axis holds."""
        raise NotImplementedError

    def slopes(self, x: Values) -> Features:
        return self._slopes(self._before(x))

    def _slopes(self, before: Features) -> Features:
        raise NotImplementedError


class Linear(_Encoded):
    """A change of basis: f = A (x − b), with D its inverse."""

    kind = "linear"

    @classmethod
    def of_basis(
        cls, basis: Float[Tensor, "features d_model"], bias: Float[Tensor, " d_model"] | None = None
    ) -> "Linear":
        """Features along the rows of an invertible matrix: x = Σ f_j basis_j + b.

        Raises:
            DictionaryError: the matrix is not square, or has no inverse.
        """
        bias = basis.new_zeros(basis.shape[-1]) if bias is None else bias
        if basis.shape[0] != basis.shape[1]:
            raise DictionaryError(f"a basis of shape {tuple(basis.shape)} is not square")
        wide, rounding = basis.double(), len(basis) * torch.finfo(basis.dtype).eps
        if torch.linalg.matrix_rank(wide, rtol=rounding) < len(basis):
            raise DictionaryError("the basis has no inverse: its rows are dependent")
        inverse = torch.linalg.inv(wide).T.to(basis)
        return cls(inverse.contiguous(), basis.new_zeros(len(basis)), basis, bias)

    def _activate(self, before: Tensor, features: Any) -> Tensor:
        return before

    def _slopes(self, before: Tensor) -> Tensor:
        return torch.ones_like(before)


class Relu(_Encoded):
    """A sparse autoencoder with a ReLU."""

    kind = "relu"

    def _activate(self, before: Tensor, features: Any) -> Tensor:
        return before.relu()

    def _slopes(self, before: Tensor) -> Tensor:
        return (before > 0).to(before)


class JumpRelu(_Encoded):
    """A ReLU that is 0 up to a threshold of its own.

    Args:
        threshold: θ, not negative.
    """

    kind, continuous = "jumprelu", False

    def __init__(
        self,
        encoder: Tensor,
        shift: Tensor,
        decoder: Tensor,
        bias: Tensor,
        threshold: Float[Tensor, " features"],
        *,
        centred: bool = True,
    ) -> None:
        super().__init__(encoder, shift, decoder, bias, centred=centred)
        self.threshold = threshold

    def _activate(self, before: Tensor, features: Any) -> Tensor:
        return before.relu() * (before > self.threshold[features])

    def _slopes(self, before: Tensor) -> Tensor:
        return ((before > self.threshold) & (before > 0)).to(before)


class Gated(_Encoded):
    """One bias decides whether a feature is on, another how large it is.

    Args:
        gate_bias: g.
        magnitude_bias: m.
        log_scale: log s.
    """

    kind, continuous = "gated", False

    def __init__(
        self,
        encoder: Tensor,
        decoder: Tensor,
        bias: Tensor,
        gate_bias: Float[Tensor, " features"],
        magnitude_bias: Float[Tensor, " features"],
        log_scale: Float[Tensor, " features"],
        *,
        centred: bool = True,
    ) -> None:
        super().__init__(encoder, torch.zeros_like(gate_bias), decoder, bias, centred=centred)
        self.gate_bias, self.magnitude_bias = gate_bias, magnitude_bias
        self.log_scale = log_scale

    def _activate(self, before: Tensor, features: Any) -> Tensor:
        on = before + self.gate_bias[features] > 0
        size = before * self.log_scale[features].exp() + self.magnitude_bias[features]
        return size.relu() * on

    def _slopes(self, before: Tensor) -> Tensor:
        scale = self.log_scale.exp()
        on = (before + self.gate_bias > 0) & (before * scale + self.magnitude_bias > 0)
        return on * scale


class TopK(_Encoded):
    """The k largest features of a position, where positive.

    Args:
        k: how many.
    """

    kind, continuous, separable = "topk", False, False

    def __init__(
        self,
        encoder: Tensor,
        shift: Tensor,
        decoder: Tensor,
        bias: Tensor,
        k: int,
        *,
        centred: bool = True,
    ) -> None:
        super().__init__(encoder, shift, decoder, bias, centred=centred)
        if not 1 <= k <= len(encoder):
            raise DictionaryError(f"k is {k} of {len(encoder)} features; allowed: 1 to all")
        self.k = k

    def _told(self) -> str:
        return f"{super()._told()} k={self.k}"

    def encode_some(self, x: Values, features: Tensor) -> Tensor:
        return self.encode(x)[..., features]

    def _activate(self, before: Tensor, features: Any) -> Tensor:
        return before * self._slopes(before)

    def _slopes(self, before: Tensor) -> Tensor:
        best = before.topk(self.k, dim=-1).indices
        return torch.zeros_like(before).scatter_(-1, best, 1.0) * (before > 0)
