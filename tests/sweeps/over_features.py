"""A run over features with every stage, and what its tests have in common."""

import numpy as np

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.arrays import open_array
from tests.sweeps.helpers import (
    BLOCKS,
    DATA,
    tiny,
)

HAS_GRAPH_TOOL = find_interpreter() is not None
ALL_DATA = (*DATA, "means.zarr", "dictionaries", "blocks")
DICTIONARIES = {
    "embed": "identity",
    "mlp1": {"kind": "relu", "features": 24, "steps": 20, "prompts": 4},
    "resid2": {"kind": "topk", "features": 32, "k": 4, "steps": 20, "prompts": 4},
}
PARENTS = {
    "embed": (),
    "mlp1": ("embed",),
    "resid2": ("embed", "mlp1"),
    "logits": ("resid2",),
}
N, BATCH = 8, 2  # build and evaluation prompts of both tasks; prompts in a forward


def config(**changes) -> dict:
    """A mixture over features with every stage; keywords change sections."""
    sections = {
        "sweep": {"nodes": "features", "method": ["ig_activations", "node_ig"], "steps": 2},
        "features": {"dictionaries": DICTIONARIES, "keep": 5000, "edges": 1000},
        "evaluate": {
            "aggregation": ["mean", "rms"],
            "threshold": [20, 200],
            "node_threshold": [5, 30],
            "eval_patch": ["counterfactual", "mean"],
        },
        "data": {"mean_positions": "pooled"},
        "blocks": {**BLOCKS, "method": "ig_activations", "chains": 1} if HAS_GRAPH_TOOL else {},
        "execution": {"max_attempts": 1, "shard_inputs": 4},
    }
    names = {*sections, *changes}
    return tiny(**{s: {**sections.get(s, {}), **changes.get(s, {})} for s in names})


def cell_of(plan, method):
    return next(c for c in plan.cells if c.method == method)


def stored(run, cell, name) -> np.ndarray:
    return np.asarray(open_array(run.attributions, layout.listed(cell.key, name))[...])


def batches(prompts):
    return [PromptBatch.make(prompts[i : i + BATCH]) for i in range(0, N, BATCH)]


def edges_of(run, plan) -> np.ndarray:
    """Codes of the edges that the aggregates are of."""
    cell = cell_of(plan, "ig_activations")
    ends = np.asarray(open_array(run.aggregates, layout.edges(cell.key))[...])
    return ends[:, 1] * (plan.nodes(cell).n_nodes + 1) + ends[:, 0]
