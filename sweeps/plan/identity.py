"""The identity of a run: what its id is the hash of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesweep.storage.rundir import SCHEMA_VERSION

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.resolve import Dataset, Resolved


def identity_of(resolved: Resolved) -> dict[str, Any]:
    """What changes numbers. Not here: executor, address, actors, GPUs, caps, interpreters."""
    config = resolved.config
    execution = config.execution
    sweep = config.sweep.model_dump(mode="json", exclude={"model", "task", "seed"})
    if config.seeds != (config.seed,):
        sweep["seed"] = list(config.seeds)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "seed": config.seed,
        "models": {m.label: m.source.digest for m in resolved.models.values()},
        "tasks": {_named(d, config.seed): d.fingerprint for d in resolved.datasets.values()},
        "sweep": sweep,
        "features": _feature_identity(resolved),
        "evaluate": config.evaluate.model_dump(mode="json", exclude={"circuits"}),
        "circuits": {
            f"{model}/{task}": {circuit.name: circuit.digest for circuit in circuits}
            for (model, task), circuits in resolved.given.items()
        },
        # windows of a text are in the tasks' fingerprints
        "data": config.data.model_dump(mode="json", exclude={"context"}),
        "blocks": config.blocks.model_dump(mode="json"),
        "measures": config.measures.model_dump(mode="json"),
        "scores": config.scores.model_dump(mode="json"),
        "headlines": config.report.headline.model_dump(mode="json", include={"level", "choose"}),
        **_graph_identity(resolved),
        **_roi_identity(resolved),
        "numerics": {
            "dtype": execution.dtype,
            "threads": execution.threads,
            "micro_batch": execution.micro_batch,
            "circuits_per_batch": execution.circuits_per_batch,
            "shard_inputs": execution.shard_inputs,
        },
    }


def _graph_identity(resolved: Resolved) -> dict[str, Any]:
    """Nothing where there are no interaction graphs, so that other runs keep their ids."""
    if not resolved.graphs:
        return {}
    config = resolved.config
    return {
        "graphs": sorted(graph.key for graph in resolved.graphs),
        "bases": config.bases.model_dump(mode="json"),
        "interactions": config.interactions.model_dump(mode="json"),
        "edges_needed": config.edges_needed.model_dump(mode="json"),
        "modules": config.modules.model_dump(mode="json"),
    }


def _roi_identity(resolved: Resolved) -> dict[str, Any]:
    """The same of regions of interest."""
    if not resolved.rois:
        return {}
    told = resolved.config.rois.model_dump(mode="json", exclude={"max_units"})
    return {"rois": {**told, "units": sorted(of.key for of in resolved.rois)}}


def _named(dataset: Dataset, seed: int) -> str:
    name = f"{dataset.model}/{dataset.task}"
    return name if dataset.seed == seed else f"{name}/seed {dataset.seed}"


def _feature_identity(resolved: Resolved) -> dict[str, Any]:
    """Nothing over heads. Where a dictionary lies is no identity; what it holds, and how its
    features are parted, is in the set's digest."""
    return {
        name: {
            **settings.model_dump(mode="json", exclude={"dictionaries", "regions"}),
            "sets": {model: resolved.nodes[model, name].digest for model in resolved.models},
        }
        for name, settings in resolved.config.features.items()
    }
