"""What exact patching and ACDC cost, against one edge-ablated run an edge.

    python -m benchmarks.patching [--quick] [--device cuda]

Both sides run in this process, one after the other: `exact` on random edges of the whole graph,
and `ablated_logits` of a model that lacks one of them, which is timed on a few and multiplied.
`acdc` is timed the same way on the edges that EAP ranks first, and counts its forwards: rows that
its blocks compute, in whole forwards of the batch.
"""

import argparse
from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np
import torch

from benchmarks.attribution import random_batch
from benchmarks.timing import median_s, report
from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.graph import select
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.network.layers import Layer
from edgesweep.engine.patches import make_patch

N_EDGES, N_CANDIDATES, N_ALONE, PATCH = 1000, 200, 20, make_patch("counterfactual")


def scores_of(
    name: str, model: Model, batch: PromptBatch, mask: np.ndarray | None, rows: int, tau: float = 0
) -> np.ndarray:
    settings = Settings(candidates=mask, rows=rows, tau=tau)
    metric = "kl" if "acdc" in name else "logit_diff"
    result = METHODS[name].attribute(model, batch, PATCH, metric, settings)
    return result.scores.double().mean(0).cpu().numpy()


def one_edge_s(model: Model, batch: PromptBatch, edges: np.ndarray, repeats: int) -> float:
    """Seconds of an ablated run that lacks one edge: the mean over a few."""
    inputs = model.prepare(batch.clean, batch.real)
    values = PATCH.values(model, batch, inputs)

    def run() -> None:
        for edge in edges:
            mask = np.ones((1, model.graph.n_edges), dtype=bool)
            mask[0, edge] = False
            ablated_logits(model, inputs, values, mask)

    return median_s(run, repeats) / len(edges)


def forwards_of(work: Callable[[], object], model: Model, n_inputs: int) -> float:
    """Rows that pass through the MLPs, in whole forwards of the batch."""
    seen, real = 0, Layer.mlp

    def counting(layer: Layer, stream: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += int(stream.shape[:-2].numel())
        return real(layer, stream)

    with mock.patch.object(Layer, "mlp", counting):
        work()
    return seen / (n_inputs * model.spec.n_layers)


def measure(model: Model, batch: PromptBatch, repeats: int, rows: int) -> None:
    graph, draw = model.graph, np.random.default_rng(0)
    edges = draw.choice(graph.n_edges, N_EDGES, replace=False)
    mask = np.isin(np.arange(graph.n_edges), edges)
    about = {"model": model.name, "batch": len(batch), "rows": rows, "n_edges": graph.n_edges}
    about["threads"] = torch.get_num_threads()
    alone = one_edge_s(model, batch, edges[:N_ALONE], repeats)
    cost = median_s(partial(scores_of, "exact", model, batch, mask, rows), repeats)
    report("exact", cost, N_EDGES * alone, 0.2, edges=N_EDGES, **about)
    chosen = select(scores_of("eap_both", model, batch, None, rows), "topk_abs", N_CANDIDATES)
    for tau in (0.0, 0.001, 0.01):
        search = partial(scores_of, "acdc", model, batch, chosen, rows, tau)
        kept = int((search() > tau).sum())
        forwards = forwards_of(search, model, len(batch)) / N_CANDIDATES
        cost = median_s(search, repeats)
        found = {"tau": tau, "kept": kept, "forwards_an_edge": round(forwards, 3)}
        report("acdc", cost, N_CANDIDATES * alone, 1.0, edges=N_CANDIDATES, **found, **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat, indicative")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(resolve_model("smollm2-135m"), device=args.device)
    measure(model, random_batch(4, 40_000), 1 if args.quick else 3, args.rows)


if __name__ == "__main__":
    main()
