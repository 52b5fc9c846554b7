"""Bases, from the last layer backwards; where a section has no closed form, after its Jacobians."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.cuts import Chain, chain_of
from edgesweep.engine.bases.jacobians import (
    Batch,
    Folded,
    folded_tail,
    jacobian_sums,
    one_by_one,
    signs,
)
from edgesweep.engine.bases.moments import Moments, Sums, fold
from edgesweep.engine.bases.rotation import Basis, Cut, interaction_basis, pca
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.loading import batches, value_at
from edgesweep.sweeps.interactions.shards import (
    JACOBIANS,
    MOMENTS,
    ROTATIONS,
    JacobianShard,
    RotationShard,
    bases_of,
    jacobians,
    moment_keys,
    moments_of,
    of_layer,
    rotated,
)
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.interactions.graphs import BasisOf
    from edgesweep.sweeps.plan.plan import Plan


class Jacobians(Stage[JacobianShard]):
    """Of sections that are sampled."""

    name = JACOBIANS
    title = "Jacobians of sections"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[JacobianShard]:
        for basis in bases_of(plan):
            for layer in reversed(basis.of.rotated):
                yield from jacobians(plan, basis, layer)

    def groups(self, plan: Plan, shard: JacobianShard) -> Iterable[str]:
        return (f"jacobians {shard.basis.key} {shard.layer}",)

    def needs(self, plan: Plan, shard: JacobianShard) -> tuple[str, ...]:
        return (moments_of(shard.basis.of), *of_layer(shard.basis, shard.basis.end(shard.layer)))

    @torch.no_grad()
    def run(self, context: Context, shard: JacobianShard) -> Done:
        sums, used = with_halving(context.micro_batch, partial(_sampled, context, shard))
        told = files.of_sums("jacobian", sums)
        return files.write_tensors(context, self.name, shard.key, told, micro_batch=used)

    def passes(self, plan: Plan, shard: JacobianShard) -> Passes:
        end = shard.basis.of.width(shard.basis.end(shard.layer))
        sources = plan.config.bases.sources or plan.dataset_of(shard.dataset).length
        return Passes(plan.batches(shard.rows), plan.batches(shard.rows) * end * sources)

    def alike(self, shard: JacobianShard) -> str:
        return f"{shard.basis.key}.{shard.layer}"

    def whose(self, plan: Plan, shard: JacobianShard) -> str:
        return f"{shard.basis.kind} of {shard.basis.of.model} at {shard.layer}"


def _sampled(context: Context, shard: JacobianShard, micro_batch: int) -> Sums:
    basis, layer = shard.basis, shard.layer
    end = files.read_basis(context.run, context.log, basis, basis.end(layer))
    mean = _moments(context, shard.moments, layer).mean

    def sums() -> Iterator[Sums]:
        for number, (chain, _, inputs) in enumerate(
            batches(context, basis.of, shard.rows, micro_batch)
        ):
            tail = _tail(chain, basis, layer, end)
            batch = Batch.of(tail.section, value_at(chain, layer, inputs), inputs)
            k, sources = tail.outlet.encode.shape[1], context.config.bases.sources
            draw = _draw(context.config.seed, f"{shard.key}/{number}")
            weights = signs(batch, k, sources, draw) if sources else one_by_one(batch, k)
            yield jacobian_sums(tail.section, batch, tail.outlet, mean, weights)

    return fold(sums())


def _draw(seed: int, name: str) -> torch.Generator:
    told = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(told[:7], "big"))


def _tail(chain: Chain, basis: BasisOf, layer: str, end: Basis) -> Folded:
    return folded_tail(chain.section(layer, basis.end(layer)), end)


def _moments(context: Context, keys: tuple[str, ...], layer: str) -> Moments:
    return fold(files.moments_in(layer, p) for p in files.parts(context, MOMENTS, keys))


class Rotations(Stage[RotationShard]):
    """One shard a layer."""

    name = ROTATIONS
    title = "bases of layers"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[RotationShard]:
        for basis in bases_of(plan):
            moments = moment_keys(plan, basis)
            for layer in reversed(basis.of.rotated):
                sampled = tuple(shard.key for shard in jacobians(plan, basis, layer))
                yield RotationShard(basis, layer, moments, sampled)

    def groups(self, plan: Plan, shard: RotationShard) -> Iterable[str]:
        return (rotated(shard.basis, shard.layer),)

    def needs(self, plan: Plan, shard: RotationShard) -> tuple[str, ...]:
        found = [moments_of(shard.basis.of)]
        if shard.basis.kind != "pca" and shard.layer != shard.basis.of.layers[-1]:
            found += of_layer(shard.basis, shard.basis.end(shard.layer))
        if shard.jacobians:
            found.append(f"jacobians {shard.basis.key} {shard.layer}")
        return tuple(found)

    @torch.no_grad()
    def run(self, context: Context, shard: RotationShard) -> Done:
        basis = _basis(context, shard)
        return files.write_tensors(context, self.name, shard.key, basis.tensors(), kept=basis.k)

    def alike(self, shard: RotationShard) -> str:
        return shard.basis.key

    def whose(self, plan: Plan, shard: RotationShard) -> str:
        return f"{shard.basis.kind} of {shard.basis.of.model} at {shard.layer}"


def _basis(context: Context, shard: RotationShard) -> Basis:
    basis, layer = shard.basis, shard.layer
    moments = _moments(context, shard.moments, layer)
    cut = Cut(**context.config.bases.cut.model_dump())
    if basis.kind == "pca" or layer == basis.of.layers[-1]:
        return pca(moments, cut)
    end = files.read_basis(context.run, context.log, basis, basis.end(layer))
    if shard.jacobians:
        read = files.parts(context, Jacobians.name, shard.jacobians)
        sums = fold(files.sums_in("jacobian", part) for part in read)
        jacobian, constant = sums.mean("jacobian"), float(sums.mean("constant"))
    else:
        tail = _tail(chain_of(context.model(basis.of.model, "float64")), basis, layer, end)
        read = files.parts(context, MOMENTS, shard.moments)
        slopes = fold(files.sums_in(f"{layer}/slopes", part) for part in read)
        assert tail.form is not None
        q = tail.outlet.encode @ tail.outlet.encode.T
        jacobian = tail.form.pulled(q, slopes)
        constant = tail.form.constant(tail.outlet, moments.mean, slopes)
    return interaction_basis(moments, jacobian, constant + float(end.constant), cut)
