"""What a site's nodes differ from their patch values by, and the streams that masks make of it.

A target with mask M reads, at every position q of a parent site s,

    x_s = base_s + Σ_{i ∈ M} (f_i^G − f_i,patch)(q) d_i + [err ∈ M] (ε^G − ε_patch)(q)

Few features differ at a position, so the sum runs over those alone: they are packed to the front,
and a position is one product `[rows, packed] · [packed, width]`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.features.ablation.prints import Prints
from edgesweep.engine.network.base import Value


@dataclass(frozen=True)
class Differences:
    """A site's nodes in one circuit's run, less their patch values.

    Attributes:
        node: places, among the site's nodes, of the features that differ at a position.
        number: of these features in the dictionary.
        value: by how much; 0 where a position has fewer than the most.
        error: of the error term; None where it is the patch's or nothing reads it.
        prints: of the nodes' values (see `prints`), 0 where equal to the patch.
    """

    node: Int[Tensor, "inputs positions packed"]
    number: Int[Tensor, "inputs positions packed"]
    value: Float[Tensor, "inputs positions packed"]
    error: Value | None
    prints: Prints


def pack(
    table: Float[Tensor, "inputs positions nodes"], nodes: Int[Tensor, " nodes"]
) -> tuple[Int[Tensor, "inputs positions packed"], Float[Tensor, "inputs positions packed"]]:
    """The entries that are not 0, to the front.

    Args:
        nodes: what each column is called in the result.
    """
    flat = table.flatten(0, 1)
    row, column = flat.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(flat))
    width = int(counts.max()) if len(row) else 0
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    node = nodes.new_zeros(len(flat), width)
    value = table.new_zeros(len(flat), width)
    node[row, place], value[row, place] = nodes[column], flat[row, column]
    shape = table.shape[:2]
    return node.unflatten(0, shape), value.unflatten(0, shape)


def add_kept(
    streams: Float[Tensor, "rows positions width"],
    rows: Int[Tensor, " some"],
    kept: Bool[np.ndarray, "some nodes"],
    of: Differences,
    which: int,
    decoder: Float[Tensor, "features width"],
) -> None:
    """Add to some rows the differences that each keeps, in place.

    Args:
        kept: which of the site's nodes each row keeps; the error node last if it is one.
        which: the input of these rows.
        decoder: of the site's dictionary.
    """
    weights = torch.as_tensor(kept, device=streams.device)
    node, value = of.node[which], of.value[which]
    if node.shape[-1]:
        scaled = (weights[:, node] * value).transpose(0, 1)
        streams[rows] += torch.bmm(scaled, decoder[of.number[which]]).transpose(0, 1)
    if of.error is not None:
        streams[rows[weights[:, -1]]] += of.error[which]
