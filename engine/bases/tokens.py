"""What directions of a language model are of: positions, the tokens that they are read at, and
those that they write.

Of a direction's activation f̂ on real tokens, and of the logits that C⁺ alone adds:

    position   the share of its variance that is between positions: Σ_t n_t (f̄_t − f̄)² over
               Σ (f̂ − f̄)². LIB finds the first directions of language models to be of positions
    at         tokens at which it varies most: Σ (f̂ − f̄)² over a token's occurrences, as a share
               of all; with the sign of f̂ − f̄ there
    writes     tokens whose logits it moves most: ℓ = C⁺ w W_U with the final norm's w, less the
               mean over tokens; ℓ² as a share of all. The norm's division scales all tokens alike,
               and what later layers make of the direction is left out. Only the stream's part of
               C⁺ is written, and not what is read normed

Pinned by tests/bases/test_tokens.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: tokens that are told of each kind
MOST = 3


@dataclass(frozen=True)
class Told:
    """A term of a direction.

    Attributes:
        kind: position, at or writes. term: in words. share: see above.
    """

    kind: str
    term: str
    share: float


def told_by_data(
    f_hat: Float[Tensor, "n k"],
    position: Int[Tensor, " n"],
    token: Int[Tensor, " n"],
    word: Callable[[int], str],
) -> list[list[Told]]:
    """Of each direction, from its activations on real tokens."""
    off = f_hat - f_hat.mean(0)
    total = off.square().sum(0)
    safe = total.clamp(min=torch.finfo(off.dtype).tiny)
    means, counts = _by(off, position)
    between = (means.square() / counts[:, None]).sum(0) / safe
    ids, which = token.unique(return_inverse=True)
    energy, _ = _by(off.square(), which)
    signed, _ = _by(off, which)
    shares, best = (energy / safe).topk(min(MOST, len(ids)), 0)
    found = []
    for j in range(f_hat.shape[1]):
        terms = [Told("position", "position", float(between[j]))]
        for share, place in zip(shares[:, j], best[:, j], strict=True):
            sign = "+" if signed[place, j] > 0 else "−"
            terms.append(Told("at", f"{sign}{word(int(ids[place]))}", float(share)))
        found.append(terms if total[j] > 0 else [])
    return found


def told_by_weights(
    decode: Float[Tensor, "k d"], unembed: Float[Tensor, "d vocab"], word: Callable[[int], str]
) -> list[list[Told]]:
    """Of each direction, from the logits that it adds."""
    found = []
    for row in decode:
        logits = row @ unembed
        logits = logits - logits.mean()
        total = float(logits.square().sum())
        best = logits.abs().topk(min(MOST, len(logits))).indices.tolist() if total > 0 else []
        found.append(
            [
                Told(
                    "writes",
                    f"{'+' if logits[i] > 0 else '−'}{word(i)}",
                    float(logits[i] ** 2) / total,
                )
                for i in best
            ]
        )
    return found


def _by(
    values: Float[Tensor, "n k"], group: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "groups k"], Float[Tensor, " groups"]]:
    """Sums over each group, and how many are in it."""
    n = int(group.max()) + 1
    sums = values.new_zeros(n, values.shape[1]).index_add_(0, group, values)
    counts = torch.bincount(group, minlength=n).to(values)
    return sums, counts.clamp(min=1)
