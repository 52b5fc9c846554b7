"""What edge ablation of features costs, against one batched block forward a distinct live mask.

    python -m benchmarks.features_ablation [--quick] [--device cuda]

Pythia-70m's sizes with random weights, a dictionary of 32,768 features with about 50 active a
position at the embeddings and after each layer, 15 tokens. The graph has `FAN_IN` random edges into
each active node; circuits are nested, as thresholds make them. The unit is one block's forward over
rows of 15 positions in micro-batches of the same size, times the rows that the run computed (the
distinct live masks; of the logits and of error terms too, though an error term costs an encoding of
the whole dictionary besides). Both sides run in this process, one after the other.
"""

import argparse
from collections.abc import Mapping

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from benchmarks.attribution import random_batch
from benchmarks.timing import median_s, report
from edgesweep.engine.dictionaries.base import Dictionary, Relu
from edgesweep.engine.features.ablation.edge_ablation import run_circuits
from edgesweep.engine.features.ablation.setting import MICRO_BYTES
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import active_features, make_feature_patch
from edgesweep.engine.graph import ERROR, FeatureGraph
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.network.architectures import ARCHITECTURES

N_FEATURES, N_ACTIVE, FAN_IN, N_VOCAB = 32_768, 50, 30, 40
SHARES = (0.25, 0.5)


def pythia_sized(device: str) -> Model:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048
    )
    kind = ARCHITECTURES["gpt_neox"].attention_kind
    hf = AutoModelForCausalLM.from_config(config, attn_implementation=kind)
    return Model(hf.to(device), "pythia-70m-sized")


def random_dictionaries(model: Model, batch: PromptBatch) -> Mapping[str, Dictionary]:
    """ReLU dictionaries of unit directions, biased so that about `N_ACTIVE` are on a position."""
    names = ["embed", *(f"resid{layer}" for layer in range(model.spec.n_layers))]
    bare = FeatureModel(model, {name: _relu(model, 0.0) for name in names})
    inputs = model.prepare(batch.clean, batch.real)
    values = bare.site_values(model.run(inputs))
    return {name: _on_average(bare.dictionary(name), values[name]) for name in names}


def _relu(model: Model, shift: float) -> Relu:
    directions = torch.randn(N_FEATURES, model.d_model, device=model.device)
    directions = directions / directions.norm(dim=1, keepdim=True)
    zero = torch.zeros(model.d_model, device=model.device)
    return Relu(directions, torch.full((N_FEATURES,), shift).to(zero), directions, zero)


def _on_average(dictionary: Dictionary, values: torch.Tensor) -> Dictionary:
    least = dictionary.encode(values.flatten(0, 1)).topk(N_ACTIVE, dim=-1).values[:, -1]
    ones = torch.ones(N_FEATURES, device=values.device)
    directions = dictionary.decoder
    return Relu(directions, -least.mean() * ones, directions, dictionary.bias)


def random_graph(given: FeatureBatch) -> FeatureGraph:
    """`FAN_IN` random edges into every active node, all of the last site's into the logits."""
    draw, parents = np.random.default_rng(0), given.features.all_parents()
    nodes = {
        site: [ERROR, *active_features(values, given.patch.sites[site]).feature.unique().tolist()]
        for site, values in given.clean.sites.items()
    }
    bare = FeatureGraph(parents, nodes, np.zeros((0, 2)))
    pairs = []
    for site, of in list(parents.items())[1:]:
        targets, sources = bare.site_nodes(site), bare.site_nodes(of[0])
        count = FAN_IN if site != "logits" else sources.stop - sources.start
        ends = np.repeat(np.arange(targets.start, targets.stop), count)
        pairs.append(np.stack([draw.integers(sources.start, sources.stop, len(ends)), ends], 1))
    return FeatureGraph(parents, nodes, np.concatenate(pairs))


def nested_circuits(graph: FeatureGraph) -> np.ndarray:
    rank = np.random.default_rng(1).random(graph.n_edges)
    return np.stack([rank < share for share in SHARES])


def block_s(given: FeatureBatch, repeats: int) -> float:
    """Seconds of one row through one block, in micro-batches as the runs have them."""
    n_inputs, n_positions = given.inputs.real.shape
    n_rows = MICRO_BYTES // given.features.model.row_bytes(n_positions)
    rows = torch.arange(n_rows, device=given.inputs.read.device) % n_inputs
    values = {"resid2": given.clean.values("resid2")[rows]}

    @torch.no_grad()
    def forward() -> None:
        given.features.segment("resid3", values, given.inputs, rows)

    return median_s(forward, repeats) / n_rows


def measure_ablation(model: Model, batch: PromptBatch, repeats: int) -> None:
    """One line: edge ablation of nested circuits, by the rows that it had to compute."""
    features = FeatureModel(model, random_dictionaries(model, batch))
    given = FeatureBatch.of(features, batch, make_feature_patch("counterfactual"))
    graph = random_graph(given)
    masks = nested_circuits(graph)

    def run() -> None:
        run_circuits(features, given.inputs, given.clean, given.patch, graph, masks)

    done = run_circuits(features, given.inputs, given.clean, given.patch, graph, masks)
    unit = block_s(given, 5) * done.n_rows
    active = [len(given.clean.sites[s.name].f) / batch.real.numel() for s in features.sites]
    report(
        "feature_edge_ablation",
        median_s(run, repeats),
        unit,
        1.5,
        n_masks=done.n_masks,
        n_rows=done.n_rows,
        n_shared=done.n_shared,
        n_skipped=done.n_skipped,
        fallback_share=done.fallback_share.round(4).tolist(),
        n_nodes=len(graph.nodes),
        n_edges=masks.sum(1).tolist(),
        active_a_position=round(float(np.mean(active)), 1),
        inputs=len(batch),
        threads=torch.get_num_threads(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat, indicative")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = pythia_sized(args.device)
    measure_ablation(model, random_batch(4, N_VOCAB), 1 if args.quick else 3)


if __name__ == "__main__":
    main()
