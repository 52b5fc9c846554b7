"""What shards of interaction graphs and of regions write and read: one safetensors file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from edgesweep.engine.bases.interactions import Interactions
from edgesweep.engine.bases.moments import Moments, Sums
from edgesweep.engine.bases.rotation import Basis, identity
from edgesweep.storage import layout
from edgesweep.storage.blocks import read_file, write_file

if TYPE_CHECKING:
    from edgesweep.storage import CommitLog, RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.interactions.graphs import BasisOf, Graph
    from edgesweep.sweeps.stages.base import Done

Tensors = dict[str, Tensor]
Write = dict[str, Any]


def write_tensors(context: Context, stage: str, key: str, tensors: Tensors, **told: Any) -> Done:
    """A shard's file, and what else its record says."""
    return [write_at(context, layout.layered(stage, key), tensors)], told


def write_at(context: Context, name: str, tensors: Tensors) -> Write:
    """A file of tensors; what the record says of it."""
    context.check_alive()
    data = safetensors.torch.save({k: v.clone().contiguous() for k, v in tensors.items()})
    return write_file(context.run, name, data)


def read_tensors(run: RunDirectory, log: CommitLog, stage: str, key: str) -> Tensors:
    """A committed shard's file. Raises StorageError."""
    return safetensors.torch.load(read_file(run, log.record(stage, key)["writes"][0]))


def parts(context: Context, stage: str, keys: Sequence[str]) -> Iterator[Tensors]:
    """The files of some shards, one at a time."""
    for key in keys:
        yield read_tensors(context.run, context.log, stage, key)


def of_moments(layer: str, moments: Moments) -> Tensors:
    n = torch.tensor(moments.n)
    return {f"{layer}/n": n, f"{layer}/mean": moments.mean, f"{layer}/m2": moments.m2}


def moments_in(layer: str, tensors: Tensors) -> Moments:
    n, mean, m2 = (tensors[f"{layer}/{name}"] for name in ("n", "mean", "m2"))
    return Moments(int(n), mean, m2)


def of_sums(prefix: str, sums: Sums) -> Tensors:
    told = {f"{prefix}/{name}": value for name, value in sums.sums.items()}
    return {f"{prefix}/n": torch.tensor(sums.n), **told}


def sums_in(prefix: str, tensors: Tensors) -> Sums:
    names = [name for name in tensors if name.startswith(f"{prefix}/") and name != f"{prefix}/n"]
    values = {name.removeprefix(f"{prefix}/"): tensors[name] for name in names}
    return Sums(int(tensors[f"{prefix}/n"]), values)


def read_basis(run: RunDirectory, log: CommitLog, basis: BasisOf, layer: str) -> Basis:
    """A layer's basis; of a last layer that is not rotated, its coordinates."""
    if layer not in basis.of.rotated:
        return identity(basis.of.width(layer))
    key = f"{basis.key}.{layer}"
    return Basis(**read_tensors(run, log, "rotations", key))


def read_interactions(run: RunDirectory, log: CommitLog, graph: Graph, start: str) -> Interactions:
    """A section's interactions."""
    return Interactions(**read_tensors(run, log, "interactions", f"{graph.key}.{start}"))
