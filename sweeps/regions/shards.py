"""Shards of regions of interest, and the groups by which they wait for each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesweep.engine.blockmodel import chain_seeds

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Rows
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.regions.sites import PartitionOf, UnitsOf

#: names of stages
MEANS, MOMENTS, TIES, CHAINS = "unit_means", "unit_moments", "unit_ties", "region_chains"
PARTITIONS, ABLATION, VIEWS, JUDGE = "partitions", "region_ablation", "region_views", "region_judge"


@dataclass(frozen=True)
class _Of:
    """What all of them are of."""

    of: UnitsOf

    @property
    def dataset(self) -> str:
        return self.of.dataset


@dataclass(frozen=True)
class UnitShard(_Of):
    """A block of build inputs; `means`: keys of the shards that a mean patch is the mean of."""

    rows: Rows
    means: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.of.key}.{self.rows.key}"


@dataclass(frozen=True)
class TiesShard(_Of):
    """All build inputs; `parts` are keys of the blocks."""

    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.of.key


@dataclass(frozen=True)
class ChainShard(_Of):
    """A chain of the block model."""

    number: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.of.key}.{self.number}"


@dataclass(frozen=True)
class PartitionShard(_Of):
    """A partition; keys of the chains and of the blocks of inputs that it is of."""

    which: PartitionOf
    chains: tuple[str, ...]
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.which.key


@dataclass(frozen=True)
class JudgeShard(_Of):
    """graph-tool has a look at the shortest of some chains."""

    chains: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.of.key


@dataclass(frozen=True)
class AblationShard(_Of):
    """The evaluation inputs without regions of a partition, under a patch."""

    which: PartitionOf
    patch: str
    means: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.which.key}.{self.patch}"


@dataclass(frozen=True)
class ViewShard(_Of):
    """What regions of a partition see."""

    which: PartitionOf
    means: tuple[str, ...]
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.which.key


def unit_shards(plan: Plan, of: UnitsOf) -> list[UnitShard]:
    """Of all blocks of build inputs."""
    means = mean_keys(plan, of, of.build_patch)
    return [UnitShard(of, rows, means) for rows in plan.blocks(of.dataset)]


def part_keys(plan: Plan, of: UnitsOf) -> tuple[str, ...]:
    return tuple(shard.key for shard in unit_shards(plan, of))


def mean_shards(plan: Plan, of: UnitsOf) -> list[UnitShard]:
    """What the mean of a site's values is of, where any patch asks for it."""
    asked = (*plan.config.sweep.build_patch, *plan.config.evaluate.eval_patch)
    return [UnitShard(of, rows) for rows in plan.blocks(of.dataset)] if "mean" in asked else []


def mean_keys(plan: Plan, of: UnitsOf, patch: str) -> tuple[str, ...]:
    return tuple(shard.key for shard in mean_shards(plan, of)) if patch == "mean" else ()


def chain_shards(plan: Plan, of: UnitsOf) -> list[ChainShard]:
    seeds = chain_seeds(plan.dataset_of(of.dataset).seed, plan.config.rois.chains)
    return [ChainShard(of, number, seed) for number, seed in enumerate(seeds)]


def chain_keys(plan: Plan, of: UnitsOf) -> tuple[str, ...]:
    return tuple(shard.key for shard in chain_shards(plan, of))


# --- groups ------------------------------------------------------------------------------------


def means_of(of: UnitsOf, patch: str) -> tuple[str, ...]:
    """What reads a site under a patch waits for."""
    return (f"means of units {of.key}",) if patch == "mean" else ()


def moments_of(of: UnitsOf) -> str:
    """All moments and attributions of a site's units."""
    return f"moments of units {of.key}"


def ties_of(of: UnitsOf) -> str:
    """Their correlations."""
    return f"ties of units {of.key}"


def chains_of(of: UnitsOf) -> str:
    """All chains of their block model."""
    return f"chains of regions {of.key}"


def parted(which: PartitionOf) -> str:
    """A partition."""
    return f"partition {which.key}"
