"""Bases, from the last layer backwards; where a section has no closed form, after its Jacobians."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.chain import Chain
from edgesweep.engine.bases.jacobians import (
    Batch,
    Folded,
    exact_sums,
    folded_tail,
    jacobian_sums,
)
from edgesweep.engine.bases.moments import Moments, Sums, fold
from edgesweep.engine.bases.rotation import Basis, Cut, interaction_basis, pca
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import BasisOf
from edgesweep.sweeps.interactions.loading import batches, chain_in, sources, value_at
from edgesweep.sweeps.interactions.shards import (
    JACOBIANS,
    MOMENTS,
    ROTATIONS,
    Shard,
    bases_of,
    jacobians,
    moment_keys,
    moments_of,
    of_layer,
    owner,
    rotated,
)
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class Jacobians(Stage[Shard[BasisOf]]):
    """Of sections that are sampled."""

    name = JACOBIANS
    title = "Jacobians of sections"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[BasisOf]]:
        for basis in bases_of(plan):
            for layer in reversed(basis.of.rotated):
                yield from jacobians(plan, basis, layer)

    def groups(self, plan: Plan, shard: Shard[BasisOf]) -> Iterable[str]:
        return (f"jacobians {shard.of.key} {shard.at}",)

    def needs(self, plan: Plan, shard: Shard[BasisOf]) -> tuple[str, ...]:
        return (moments_of(shard.layers), *of_layer(shard.of, shard.of.end(shard.at)))

    @torch.no_grad()
    def run(self, context: Context, shard: Shard[BasisOf]) -> Done:
        sums, used = with_halving(context.micro_batch, partial(_sampled, context, shard))
        told = files.of_sums("jacobian", sums)
        return files.write_tensors(context, self.name, shard.key, told, micro_batch=used)

    def passes(self, plan: Plan, shard: Shard[BasisOf]) -> Passes:
        end = shard.layers.width(shard.of.end(shard.at))
        share = shard.layers.share(shard.at, shard.of.end(shard.at))
        once = plan.config.bases.sources or plan.dataset_of(shard.dataset).length
        return Passes(plan.batches(shard.block), plan.batches(shard.block) * end * once * share)

    def alike(self, shard: Shard[BasisOf]) -> str:
        return f"{shard.of.key}.{shard.at}"

    def whose(self, plan: Plan, shard: Shard[BasisOf]) -> str:
        return owner(shard)


def _sampled(context: Context, shard: Shard[BasisOf], micro_batch: int) -> Sums:
    basis, layer = shard.of, shard.at
    end = files.read_basis(context.run, context.log, basis, basis.end(layer))
    mean = _moments(context, shard.moments, layer).mean

    def sums() -> Iterator[Sums]:
        for chain, first, inputs in batches(context, basis.of, shard.block, micro_batch):
            tail = _tail(chain, basis, layer, end)
            batch = Batch.of(tail.section, value_at(chain, layer, inputs), inputs)
            signs = sources(context, f"{basis.key}/{layer}", first)
            if not signs.n:
                yield exact_sums(tail.section, batch, tail.outlet, mean)
                continue
            weights = signs.weights(batch, tail.outlet.encode.shape[1])
            yield jacobian_sums(tail.section, batch, tail.outlet, mean, weights)

    return fold(sums())


def _tail(chain: Chain, basis: BasisOf, layer: str, end: Basis) -> Folded:
    return folded_tail(chain.section(layer, basis.end(layer)), end)


def _moments(context: Context, keys: tuple[str, ...], layer: str) -> Moments:
    return fold(files.moments_in(layer, p) for p in files.parts(context, MOMENTS, keys))


class Rotations(Stage[Shard[BasisOf]]):
    """One shard a layer."""

    name = ROTATIONS
    title = "bases of layers"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[BasisOf]]:
        for basis in bases_of(plan):
            moments = moment_keys(plan, basis.of)
            for layer in reversed(basis.of.rotated):
                sampled = tuple(shard.key for shard in jacobians(plan, basis, layer))
                yield Shard(basis, layer, moments=moments, parts=sampled)

    def groups(self, plan: Plan, shard: Shard[BasisOf]) -> Iterable[str]:
        return (rotated(shard.of, shard.at),)

    def needs(self, plan: Plan, shard: Shard[BasisOf]) -> tuple[str, ...]:
        found = [moments_of(shard.layers)]
        if shard.of.kind != "pca" and shard.at != shard.layers.layers[-1]:
            found += of_layer(shard.of, shard.of.end(shard.at))
        if shard.parts:
            found.append(f"jacobians {shard.of.key} {shard.at}")
        return tuple(found)

    @torch.no_grad()
    def run(self, context: Context, shard: Shard[BasisOf]) -> Done:
        basis = _basis(context, shard)
        return files.write_tensors(context, self.name, shard.key, basis.tensors(), kept=basis.k)

    def alike(self, shard: Shard[BasisOf]) -> str:
        return shard.of.key

    def whose(self, plan: Plan, shard: Shard[BasisOf]) -> str:
        return owner(shard)


def _basis(context: Context, shard: Shard[BasisOf]) -> Basis:
    basis, layer = shard.of, shard.at
    moments = _moments(context, shard.moments, layer)
    cut = Cut(**context.config.bases.cut.model_dump())
    if basis.kind == "pca" or layer == basis.of.layers[-1]:
        return pca(moments, cut, basis.of.apart(layer))
    end = files.read_basis(context.run, context.log, basis, basis.end(layer))
    if shard.parts:
        read = files.parts(context, Jacobians.name, shard.parts)
        sums = fold(files.sums_in("jacobian", part) for part in read)
        jacobian, constant = sums.mean("jacobian"), float(sums.mean("constant"))
    else:
        tail = _tail(chain_in(context, basis.of, "float64"), basis, layer, end)
        read = files.parts(context, MOMENTS, shard.moments)
        slopes = fold(files.sums_in(f"{layer}/slopes", part) for part in read)
        assert tail.form is not None
        q = tail.outlet.encode @ tail.outlet.encode.T
        jacobian = tail.form.pulled(q, slopes)
        constant = tail.form.constant(tail.outlet, moments.mean, slopes)
    constant += float(end.constant)
    return interaction_basis(moments, jacobian, constant, cut, basis.of.apart(layer))
