"""What interaction graphs take: bytes on disk and in memory, and what `--dry-run` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgesweep.engine.bases.ablation import KEPT_NUMBERS
from edgesweep.sweeps.config.schema import NUMBER_BYTES
from edgesweep.sweeps.interactions.loading import EVAL_BATCH
from edgesweep.sweeps.interactions.shards import blocks, n_units

if TYPE_CHECKING:
    from edgesweep.sweeps.interactions.graphs import Layered
    from edgesweep.sweeps.plan.plan import Plan

#: a batch of cotangents with what autograd holds of it, and of attributions
WORKING_BYTES = 8 * (8 * 2**21 + 4 * 2**22)


#: numbers of edges that searches ask for beside the grid
TRIED = 60


def _moment_bytes(plan: Plan, of: Layered) -> int:
    """Of one shard's moments: every layer's, and the slopes of closed sections."""
    closed = [
        n_units(plan, of, a) for (a, _), is_so in zip(of.sections, of.closed, strict=True) if is_so
    ]
    return 8 * (sum(d * (d + 1) for d in of.widths) + sum(n**2 for n in closed))


def disk_bytes(plan: Plan) -> int:
    """Of all files of interaction graphs."""
    found = 0
    for of in dict.fromkeys(graph.of for graph in plan.graphs):
        found += len(blocks(plan, of)) * _moment_bytes(plan, of)
    found += _kept_bytes(plan)
    for graph in plan.graphs:
        of, n = graph.of, len(blocks(plan, graph.of))
        pairs = sum(of.width(a) * of.width(b) for a, b in of.sections)
        found += 8 * (2 * n + 2) * pairs + 8 * 3 * sum(d * d for d in of.widths)
        tried = plan.config.edges_needed.points + TRIED
        found += 8 * tried * len(plan.dataset_of(of.dataset).data.evaluation) * len(of.sections)
    return found


def _input_bytes(plan: Plan, of: Layered) -> list[int]:
    """Of the interactions of one input, by section, if they are kept."""
    if not plan.config.interactions.keep_inputs:
        return []
    return [4 * of.width(b) * (1 + of.width(a)) for a, b in of.sections]


def _kept_bytes(plan: Plan) -> int:
    """Of those of all inputs."""
    return sum(
        len(plan.dataset_of(graph.of.dataset).data.build) * sum(_input_bytes(plan, graph.of))
        for graph in plan.graphs
    )


def memory_bytes(plan: Plan) -> Iterator[int]:
    """An actor's at the peak of any shard, beside its process: weights in float64 and in the run's
    own precision, moments folded and being read, a batch of cotangents, and evaluation prompts at
    one layer with what is kept of their runs."""
    number = NUMBER_BYTES[plan.config.execution.dtype]
    for of in dict.fromkeys(graph.of for graph in plan.graphs):
        weights = (8 + number % 8) * plan.resolved.models[of.model].sizes.n_params
        data = plan.dataset_of(of.dataset)
        n_eval = len(data.data.evaluation)
        held = 4 * n_eval * data.length * max(of.widths) * 4
        held += 4 * KEPT_NUMBERS * -(-n_eval // EVAL_BATCH)
        block = max(rows.stop - rows.start for rows in blocks(plan, of))
        held += 2 * block * max(_input_bytes(plan, of), default=0)
        yield weights + 3 * _moment_bytes(plan, of) + WORKING_BYTES + held


def told(plan: Plan) -> Iterator[str]:
    """A line a graph, and what keeping each input's interactions takes."""
    for graph in plan.graphs:
        of = graph.of
        layers = " -> ".join(f"{n} ({d})" for n, d in zip(of.layers, of.widths, strict=True))
        sampled = [start for start, _ in of.sections if graph.basis.is_sampled(start)]
        how = f"; sampled from {', '.join(sampled)}" if sampled else "; all in closed form"
        yield (
            f"  {graph.key}: {of.model}, {of.task}, {graph.basis.kind}, interactions, "
            f"{graph.steps} steps ({graph.rule}); {layers}{how}"
        )
    if kept := _kept_bytes(plan):
        yield f"  interactions of each input (interactions.keep_inputs): {kept / 1e6:,.1f} MB"
