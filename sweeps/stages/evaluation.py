"""What an actor does for references, circuits and block models. One function a kind of shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgesweep.engine.blockmodel import fit_chain
from edgesweep.engine.evaluation import evaluate_circuits, evaluate_reference
from edgesweep.engine.features.ablation.evaluation import (
    FeatureBatch,
    evaluate_feature_circuits,
    evaluate_feature_nodes,
    evaluate_feature_reference,
)
from edgesweep.engine.graph import FeatureGraph, touched_nodes
from edgesweep.engine.methods import METHODS
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.atomic import to_json
from edgesweep.storage.blocks import write_block, write_file
from edgesweep.sweeps.circuits import evaluated_mask, simple_graph
from edgesweep.sweeps.context import Context, with_halving
from edgesweep.sweeps.notfinite import counted
from edgesweep.sweeps.plan.cells import BlockShard, Condition, EvaluateShard, ReferenceShard, Rows
from edgesweep.sweeps.prepare import read_mask

Writes = list[dict[str, Any]]
Extra = dict[str, Any]
ByName = dict[Any, np.ndarray]


#: beside metrics: activation mass of circuits, and what of it took the mask of an error node
MASS, FALLBACK = "mass", "fallback_mass"


def run_reference(context: Context, shard: ReferenceShard) -> tuple[Writes, Extra]:
    """Each metric of the full model and of the empty circuit, `[input]`, float64."""
    settings = context.settings
    if shard.features:
        return _feature_reference(context, shard)
    model = context.model(settings.datasets[shard.dataset])
    patch = context.patch(shard.eval_patch, shard.dataset, "eval")

    def measure(batch: PromptBatch) -> ByName:
        full, empty = evaluate_reference(model, batch, patch, settings.reference_metrics)
        sides = {"full": full, "empty": empty}
        return {(side, m): values for side, found in sides.items() for m, values in found.items()}

    return _written_reference(context, shard, measure)


def _written_reference(
    context: Context, shard: ReferenceShard, measure: Callable[[PromptBatch], ByName]
) -> tuple[Writes, Extra]:
    found, micro_batch = _over_inputs(context, shard.dataset, shard.rows, measure)
    context.check_alive()
    return [
        _write(context, layout.reference(shard.source, shard.eval_patch, *name), shard.rows, row)
        for name, row in found.items()
    ], {"micro_batch": micro_batch, **counted((m, row) for (_, m), row in found.items())}


def _feature_reference(context: Context, shard: ReferenceShard) -> tuple[Writes, Extra]:
    """The model, the empty graph over features, and how far the full one is from the model."""
    settings = context.settings
    features = context.feature_model(settings.datasets[shard.dataset])
    patch = context.feature_patch(shard.eval_patch, shard.dataset, "eval", shard.features)

    def measure(batch: PromptBatch) -> ByName:
        given = FeatureBatch.make(features, batch, patch)
        found = evaluate_feature_reference(
            given, settings.reference_metrics, errors=settings.feature_error
        )
        sides = {"full": found.full, "empty": found.empty}
        values = {(side, m): row for side, by in sides.items() for m, row in by.items()}
        return values | dict(zip(layout.DISTANCES, (found.distance, found.scale), strict=True))

    return _written_reference(context, shard, measure)


def run_evaluate(context: Context, shard: EvaluateShard) -> tuple[Writes, Extra]:
    """Each metric of each circuit under the shard's condition, `[input]`, float64."""
    cell, metrics = shard.cell, context.settings.metrics
    if cell.features:
        return _evaluate_features(context, shard)
    model = context.model(cell.model)
    patch = context.patch(shard.condition.eval_patch, cell.dataset, "eval")
    masks = np.stack([_mask(context, shard, circuit) for circuit in shard.circuits])

    def measure(batch: PromptBatch) -> ByName:
        return evaluate_circuits(model, batch, masks, patch, metrics)

    return _written_values(context, shard, measure)


def _written_values(
    context: Context, shard: EvaluateShard, measure: Callable[[PromptBatch], ByName]
) -> tuple[Writes, Extra]:
    found, micro_batch = _over_inputs(context, shard.cell.dataset, shard.rows, measure)
    extra: Extra = {"micro_batch": micro_batch}
    if MASS in found:
        mass, fallback = found.pop(MASS).sum(1), found.pop(FALLBACK).sum(1)
        extra["fallback_share"] = (fallback / np.where(mass > 0, mass, 1.0)).round(6).tolist()
    extra |= counted(found.items())
    context.check_alive()
    return [
        _write(context, layout.value(circuit, shard.condition.key, metric), shard.rows, rows[i])
        for i, circuit in enumerate(shard.circuits)
        for metric, rows in found.items()
    ], extra


def _evaluate_features(context: Context, shard: EvaluateShard) -> tuple[Writes, Extra]:
    """Circuits of features: by their edges, or by the nodes that these touch."""
    settings, condition, cell = context.settings, shard.condition, shard.cell
    features, graph = context.feature_model(cell.model), context.cell_graph(cell)
    assert isinstance(graph, FeatureGraph)
    patch = context.feature_patch(condition.eval_patch, cell.dataset, "eval", cell.features)
    masks = np.stack([_mask(context, shard, circuit) for circuit in shard.circuits])
    by_nodes = condition.ablation == "node" or METHODS[cell.method].scores_nodes
    kept = np.stack([touched_nodes(graph, mask) for mask in masks])

    def measure(batch: PromptBatch) -> ByName:
        given, errors = FeatureBatch.make(features, batch, patch), settings.feature_error
        if by_nodes:
            return evaluate_feature_nodes(given, graph, kept, settings.metrics, errors=errors)
        found, run = evaluate_feature_circuits(given, graph, masks, settings.metrics, errors=errors)
        return found | {MASS: run.mass, FALLBACK: run.fallback_mass}

    return _written_values(context, shard, measure)


def _mask(context: Context, shard: EvaluateShard, circuit: str) -> np.ndarray:
    graph = context.cell_graph(shard.cell)
    selected = read_mask(context.run, circuit, shard.condition.selected)
    of_nodes = METHODS[shard.cell.method].scores_nodes
    errors = context.settings.feature_error
    return evaluated_mask(graph, selected, shard.condition, of_nodes=of_nodes, errors=errors)


def _over_inputs(
    context: Context, dataset: str, rows: Rows, measure: Callable[[PromptBatch], ByName]
) -> tuple[ByName, int]:
    """A measurement of all inputs of a block, a micro-batch at a time, inputs last."""
    prompts = context.prompts(dataset, "eval")[rows.start : rows.stop]

    def batches(micro_batch: int) -> Iterator[ByName]:
        for start in range(0, len(prompts), micro_batch):
            yield measure(PromptBatch.make(prompts[start : start + micro_batch]))

    def compute(micro_batch: int) -> ByName:
        parts = list(batches(micro_batch))
        return {name: np.concatenate([p[name] for p in parts], axis=-1) for name in parts[0]}

    return with_halving(context.settings.micro_batch, compute)


def _write(context: Context, name: str, rows: Rows, values: np.ndarray) -> dict[str, Any]:
    values = np.ascontiguousarray(values, dtype=np.float64)
    return write_block(context.run, layout.EVALUATIONS, name, rows.start, values)


def run_blocks(context: Context, shard: BlockShard) -> tuple[Writes, Extra]:
    """One chain of the block model of a circuit, as JSON in a file of its own."""
    options = context.settings.block_options
    assert options is not None
    graph = context.cell_graph(shard.cell)
    condition, errors = Condition("edge", shard.patch), context.settings.feature_error
    mask = evaluated_mask(graph, read_mask(context.run, shard.circuit), condition, errors=errors)
    nodes, edges = simple_graph(graph, mask)
    chain = fit_chain(edges, len(nodes), options, shard.seed, context.interpreter)
    context.check_alive()
    data = to_json(chain.to_dict())
    return [write_file(context.run, layout.chain(shard.key), data)], {"circuit": shard.circuit}
