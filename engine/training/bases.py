"""LIB and GIB of one site as a dictionary: f = (x − μ) C, D(f) = f C⁺ + μ, the rest is the error.

M′ is taken to the later site's dictionary, so that of its directions those count which it keeps
(LIB equation 19: i over the kept directions), or to the logits. A transformer's logits are a map of
its normed stream, F = n(x) W_U, and of M′ only Q = W_U W_Uᵀ is needed: a root of it, as wide as the
stream, reads n(x) in place of the vocabulary. The folded constant, which no dictionary has, is left
out. All in float64. Pinned by tests/model/test_basis_dictionaries.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.bases.chain import Chain, Piece, Rows
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Outlet
from edgesweep.engine.bases.jacobians import (
    Batch,
    Folded,
    folded_tail,
    jacobian_sums,
)
from edgesweep.engine.bases.moments import Moments, Sums, fold
from edgesweep.engine.bases.rotation import Basis, Cut, identity, interaction_basis
from edgesweep.engine.bases.sources import Sources
from edgesweep.engine.dictionaries.base import DictionaryError, Linear
from edgesweep.engine.network import Model
from edgesweep.engine.network.base import LOGITS, Inputs, Network, Value
from edgesweep.engine.training.dictionaries import Side, batches

NORMED = "normed"


@dataclass(frozen=True)
class BasisTraining:
    """How a basis of a site is computed, by what its directions act on.

    Attributes:
        site: a cut of the network.
        end: the later cut that they are to act on; `logits`, or one whose dictionary is given.
        features: so many at most, those that act most.
        sources: random signs in place of the positions of the end; 0: each by itself.
        cut: which are too small to keep. seed: of the signs.
    """

    site: str
    end: str
    features: int
    sources: int = 1
    cut: Cut = Cut()  # noqa: RUF009
    seed: int = 0


def interaction_directions(
    network: Network,
    texts: Sequence[Side],
    some: Sequence[Side],
    how: BasisTraining,
    end: Linear | None = None,
    micro_batch: int = 16,
) -> Linear:
    """The directions of a site as a dictionary of `how.features` features; where fewer are kept,
    the rest are 0 throughout.

    Args:
        network: in float64.
        texts: of which the means and second moments are. some: at which Jacobians are taken.
        end: the dictionary of `how.end`; None of the logits.

    Raises:
        DictionaryError: activations that are not finite.
    """
    chain = chain_of(network)
    moments = fold(_moments(chain, how.site, texts, network, micro_batch))
    if not torch.isfinite(moments.m2).all():
        raise DictionaryError(f"activations at {how.site} are not finite")
    tail = _to_logits(chain, network, how.site) if end is None else _to_site(chain, how, end)
    jacobian = _second_moment(tail, some, network, how, moments.mean, micro_batch)
    return as_dictionary(interaction_basis(moments, jacobian, 0.0, how.cut), how.features)


def as_dictionary(basis: Basis, features: int) -> Linear:
    """The first directions of a basis; where it has fewer, with others that are 0 throughout."""
    encoder, decoder = (
        torch.nn.functional.pad(rows[:features], (0, 0, 0, max(0, features - basis.k)))
        for rows in (basis.encode.T, basis.decode)
    )
    return Linear(encoder.contiguous(), encoder.new_zeros(features), decoder, basis.mean)


def _values(
    chain: Chain, at: str, texts: Sequence[Side], network: Network, micro_batch: int
) -> Iterator[tuple[Value, Inputs]]:
    for given, real in batches(network, texts, micro_batch):
        inputs = chain.prepare(given, real)
        first = chain.start(inputs)
        value = first if at == chain.first else chain.section(chain.first, at)(first, inputs)
        yield value, inputs


@torch.no_grad()
def _moments(
    chain: Chain, at: str, texts: Sequence[Side], network: Network, micro_batch: int
) -> Iterator[Moments]:
    for value, inputs in _values(chain, at, texts, network, micro_batch):
        yield Moments.of(value[chain.real(at, inputs).expand(value.shape[:2])])


def _second_moment(
    tail: Folded,
    some: Sequence[Side],
    network: Network,
    how: BasisTraining,
    mean: Float[Tensor, " d"],
    micro_batch: int,
) -> Float[Tensor, "d d"]:
    """M′."""
    section, k = tail.section, tail.outlet.encode.shape[1]

    def of_batches() -> Iterator[Sums]:
        values = _values(section.chain, how.site, some, network, micro_batch)
        for number, (value, inputs) in enumerate(values):
            batch = Batch.of(section, value, inputs)
            if tail.form is not None:
                yield Sums(len(batch.f), tail.form.statistics(batch.f[:, 0]))
                continue
            n = how.sources if section.mixes else 0
            sources = Sources(n, how.seed, how.site, number * micro_batch)
            weights = sources.weights(batch, k)
            yield jacobian_sums(section, batch, tail.outlet, mean, weights)

    with torch.no_grad():
        sums = fold(of_batches())
    if tail.form is None:
        return sums.mean("jacobian")
    return tail.form.pulled(tail.outlet.encode @ tail.outlet.encode.T, sums)


def _to_site(chain: Chain, how: BasisTraining, end: Linear) -> Folded:
    section = chain.section(how.site, how.end)
    form = section.pieces[0].form if len(section.pieces) == 1 else None
    return Folded(section, form, Outlet.of(end.bias.double(), end.encoder.double().T))


def _to_logits(chain: Chain, network: Any, site: str) -> Folded:
    if not isinstance(network, Model):
        return folded_tail(chain.section(site, LOGITS), identity(chain.widths[LOGITS]))

    def normed(f: Value, inputs: Inputs, rows: Rows) -> Value:
        return network.final_norm(f)

    last = Piece(NORMED, network.d_model, normed)
    chain = replace(chain, pieces=(*chain.pieces[:-1], last))
    weight = network.hf.get_output_embeddings().weight  # type: ignore[operator]
    values, vectors = torch.linalg.eigh(weight.T @ weight)
    root = vectors * values.clamp(min=0).sqrt()
    return Folded(chain.section(site, NORMED), None, Outlet(root, root.new_zeros(len(root))))
