"""Where each number lies in a run directory. The one place that spells these names.

attributions.zarr/<cell>/{scores [input, edge], residual, metric_clean, metric_baseline [input]}
attributions.zarr/<cell>/graph/{edge_source, edge_target, target_nodes}
aggregates.zarr/<cell>/partials [shard, statistic, edge], and folded <cell>/{mean, max, …} for
    all inputs, <cell>/<member>/{mean, …} for a member task
aggregates.zarr/<cell>/interval [end, edge] of the mean, and stability [resample]: the rank
    correlation of each resample's |mean scores| with those of all inputs
means.zarr/<dataset>/<group index> [source, position, d_model]
evaluations.zarr/candidates/<cell> [edge]: the edges that a refined cell looks at
evaluations.zarr/<circuit>/mask [edge], and mask.without-<member>, mask.only-<member>
evaluations.zarr/<circuit>/<ablation>.<eval_patch>[.<blocks>]/<metric> [input]
evaluations.zarr/<circuit>/minimality.<eval_patch>/<metric> [input, kept edge]: without that edge
evaluations.zarr/probes/<cell>/{minimality, interpolation} [place]: the edges looked at
evaluations.zarr/interpolation/<cell>/<metric> [input, place, fraction]
evaluations.zarr/reference/<dataset>/<eval_patch>/{full, empty}/<metric> [input]
blocks/<shard>.json, prompts/<dataset>.json
"""

from __future__ import annotations

from storage.rundir import AGGREGATES, ATTRIBUTIONS, EVALUATIONS
from sweeps.cells import Cell, Condition

__all__ = ["AGGREGATES", "ATTRIBUTIONS", "EVALUATIONS", "MEANS"]

MEANS = "means.zarr"
#: per input, beside the scores; float64
PER_INPUT = ("residual", "metric_clean", "metric_baseline")


def scores(cell: Cell) -> str:
    return f"{cell.key}/scores"


def per_input(cell: Cell, name: str) -> str:
    return f"{cell.key}/{name}"


def graph(cell: Cell, name: str) -> str:
    return f"{cell.key}/graph/{name}"


def partials(cell: Cell) -> str:
    return f"{cell.key}/partials"


def folded(group: str, statistic: str) -> str:
    return f"{group}/{statistic}"


def interval(cell: Cell) -> str:
    return f"{cell.key}/interval"


def stability(cell: Cell) -> str:
    return f"{cell.key}/stability"


def mean(dataset: str, index: int) -> str:
    return f"{dataset}/{index:04d}"


def mask(circuit: str, blocks: str = "all") -> str:
    return f"{circuit}/mask" if blocks == "all" else f"{circuit}/mask.{blocks.replace(':', '-')}"


def candidates(cell: Cell) -> str:
    return f"candidates/{cell.key}"


def minimality(circuit: str, patch: str, metric: str) -> str:
    return f"{circuit}/minimality.{patch}/{metric}"


def probed(cell: Cell, kind: str) -> str:
    return f"probes/{cell.key}/{kind}"


def interpolation(cell: Cell, name: str) -> str:
    return f"interpolation/{cell.key}/{name}"


def value(circuit: str, condition: Condition, metric: str) -> str:
    return f"{circuit}/{condition.key}/{metric}"


def reference(dataset: str, patch: str, side: str, metric: str) -> str:
    return f"reference/{dataset}/{patch}/{side}/{metric}"


def prompts(dataset: str) -> str:
    return f"prompts/{dataset}.json"


def chain(shard: str) -> str:
    return f"blocks/{shard}.json"
