"""One circuit of one model on one task, evaluated here and now as a sweep would evaluate it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.engine.evaluation import evaluate_circuits, evaluate_reference, faithfulness
from edgesweep.engine.graph import Circuit, circuit_stats
from edgesweep.engine.graph.circuit_files import given_circuit
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.engine.model import load_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import Patch, make_patch, mean_partials, resample_partners
from edgesweep.sweeps.circuits import ran_mask
from edgesweep.sweeps.config.load import Config, parse_config
from edgesweep.sweeps.plan.cells import Condition
from edgesweep.sweeps.plan.resolve import Dataset, resolve
from edgesweep.sweeps.stages.base import Row
from edgesweep.sweeps.tables.results import over_tasks

#: values of a circuit, the full model and the empty circuit, `[input]` each
Values = Mapping[str, np.ndarray]


def evaluate(
    model: str,
    task: str,
    circuit: Circuit | str | Path,
    *,
    ablation: str = "edge",
    eval_patch: str = "counterfactual",
    metric: str | Sequence[str] = "logit_diff",
    n: int = 32,
    seed: int = 0,
    device: str = "cpu",
    **data: Any,
) -> pd.DataFrame:
    """Faithfulness of a circuit over heads and MLPs, on the evaluation prompts that a sweep with
    this seed has.

    Args:
        model, task, ablation, eval_patch, metric: as in a config.
        circuit: a circuit, the file of one, or `known`.
        n: evaluation prompts of each member task.
        device: "cpu", "cuda", …
        data: further keys of a config's `data`: `n_build` (else `n`), the prompts that a mean patch
            is a mean of and that a JSONL task sets aside; `mean_positions`, `mean_over`,
            `noise_scale`.

    Returns:
        A row a metric and subset, of a mixture also the mean over its tasks and the worst of them:
        subset, metric, value, value_full, value_empty, faithfulness, n_inputs, n_nodes, n_edges (as
        they were run).

    Raises:
        ConfigError, CircuitError: one line on what cannot be used.
    """
    axes = {"ablation": ablation, "eval_patch": eval_patch, "metric": _listed(metric)}
    drawn = {"n_build": n, "n_eval": n, **data}
    sweep = {"model": model, "task": task}
    config = parse_config(
        {"name": "evaluate", "seed": seed, "sweep": sweep, "evaluate": axes, "data": drawn}
    )
    resolved = resolve(config)
    (found,), (dataset,) = resolved.models.values(), resolved.datasets.values()
    if not isinstance(circuit, Circuit):
        circuit = given_circuit(str(circuit), found.source, dataset.task)
    mask = circuit.mask(found.graph)
    nodes = resolved.nodes[found.label, "heads"]
    mask = ran_mask(nodes, found.graph, mask, Condition(ablation, eval_patch))
    stats = circuit_stats(found.graph, mask, by_nodes=ablation == "node")
    values = _measured(config, load_model(found.source, device), dataset, mask)
    sizes = {"n_nodes": stats.n_nodes, "n_edges": stats.n_edges}
    return pd.DataFrame(
        {"subset": subset, "metric": name, **measured, **sizes}
        for name, of_metric in values.items()
        for subset, measured in _by_subset(dataset, of_metric).items()
    )


def _by_subset(dataset: Dataset, values: Values) -> dict[str, Row]:
    """What a metric comes to on each subset, as rows of results have it."""
    found: dict[str, Row] = {
        subset: {**_means(values, inputs), "n_inputs": len(inputs)}
        for subset, inputs in _subsets(dataset)
    }
    return found | over_tasks(found)


def _listed(metric: str | Sequence[str]) -> list[str]:
    return [metric] if isinstance(metric, str) else list(metric)


def _measured(config: Config, model: Model, dataset: Dataset, mask: EdgeMask) -> dict[str, Values]:
    """Metric -> value, value_full, value_empty, a micro-batch at a time."""
    metrics, patch = config.evaluate.metric, _patch(config, model, dataset)
    prompts, step = dataset.data.evaluation, config.execution.micro_batch
    parts = []
    for start in range(0, len(prompts), step):
        batch = PromptBatch.make(prompts[start : start + step])
        found = evaluate_circuits(model, batch, mask[None], patch, metrics)
        full, empty = evaluate_reference(model, batch, patch, metrics)
        parts.append({m: np.stack([found[m][0], full[m], empty[m]]) for m in metrics})
    names = ("value", "value_full", "value_empty")
    rows = {m: np.concatenate([part[m] for part in parts], axis=1) for m in metrics}
    return {m: dict(zip(names, of_metric, strict=True)) for m, of_metric in rows.items()}


def _patch(config: Config, model: Model, dataset: Dataset) -> Patch:
    """The config's first evaluation patch for the evaluation prompts."""
    (kind,), data = config.evaluate.eval_patch, config.data
    pooled, means = data.mean_positions == "pooled", None
    if kind == "mean":
        step, over = config.execution.micro_batch, data.mean_over
        build = dataset.data.build
        partials = mean_partials(model, build, pooled=pooled, over=over, micro_batch=step)
        means = {group: partial.mean() for group, partial in partials.items()}
    return make_patch(
        kind,
        means,
        pooled=pooled,
        partners=resample_partners(dataset.data.evaluation, dataset.seed)
        if kind == "resample"
        else None,
        seed=dataset.seed,
        noise_scale=data.noise_scale,
    )


def _subsets(dataset: Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """`all`, and each member of a mixture, with the numbers of its prompts."""
    members = np.array([prompt.task for prompt in dataset.data.evaluation])
    yield "all", np.arange(len(members))
    if len(dataset.members) > 1:
        yield from ((member, np.flatnonzero(members == member)) for member in dataset.members)


def _means(values: Values, inputs: np.ndarray) -> dict[str, float]:
    """Means over a subset, and the ratio of means."""
    found = {name: float(np.mean(of_inputs[inputs])) for name, of_inputs in values.items()}
    return {**found, "faithfulness": faithfulness(*found.values())}
