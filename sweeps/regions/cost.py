"""What regions take: bytes on disk and in memory, and what `--dry-run` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgesweep.sweeps.regions.sites import partitions_of
from edgesweep.sweeps.regions.told import metrics_of, planned

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.regions.sites import UnitsOf


def disk_bytes(plan: Plan) -> int:
    """Of all files of regions."""
    found, config = 0, plan.config
    for of in plan.rois:
        n_build, n_eval = plan.n_inputs("build"), plan.n_inputs("eval")
        squares = of.n_units**2 * (1 + n_layers(config, of))
        found += 8 * len(plan.blocks(of.dataset)) * (squares + of.n_units * of.n_classes)
        found += 4 * n_build * of.n_units + 8 * squares
        n_runs = len(list(partitions_of(config, of))) * len(config.evaluate.eval_patch)
        each = len(planned(config, of)) * n_eval * (1 + len(metrics_of(config)))
        found += 4 * n_runs * each
    return found


def memory_bytes(plan: Plan) -> Iterator[int]:
    """An actor's at the peak of any shard, beside its process: moments being folded, Ward's tree of
    the rows of z, or the evaluation inputs at the site."""
    for of in plan.rois:
        weights = 4 * plan.resolved.models[of.model].sizes.n_params
        moments, held = 8 * of.n_units**2, 4 * plan.n_inputs("eval") * of.n_units
        tree = 2 * moments + 4 * plan.n_inputs("build") * of.n_units
        folded = (4 + 3 * n_layers(plan.config, of)) * moments
        yield weights + max(folded, tree, 8 * held)


def n_layers(config: Config, of: UnitsOf) -> int:
    """Of the block model, beside the correlations of all inputs."""
    return of.n_classes if config.rois.layers != "none" else 0


def told(plan: Plan) -> Iterator[str]:
    """A line a site."""
    rois = plan.config.rois
    for of in plan.rois:
        n = len(list(partitions_of(plan.config, of)))
        layers = f" of {n_layers(plan.config, of)} layers" * (rois.layers != "none")
        yield (
            f"  {of.key}: {of.model}, {of.task}, rois of {of.site} ({_units(of)}), {of.of} of the "
            f"{of.target} class, {of.build_patch}, {of.steps} steps ({of.rule}); {rois.chains} "
            f"chains{layers}, {n} partitions, {len(rois.tau)} shares of regions"
        )


def _units(of: UnitsOf) -> str:
    return f"{of.n_units} {of.unit}s"
