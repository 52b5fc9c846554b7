"""Heads against other regions of what attention writes, at equal numbers: is a head a good unit?

    python -m benchmarks.heads_regions [--task ioi] [--partition heads,ward,random] [--build 16]

On SmolLM2-135M. Sites are `attn0.z` to `attn29.z`, coordinates of the heads before W_O; in each
layer they are parted into as many regions as there are heads:

    heads    as the model has them
    ward     Ward's tree of Fisher's z of the coordinates' attributions, over (input, position)
    sbm      the shortest weighted block model of the same, its blocks merged down to that number
    random   coordinates drawn into regions of the heads' sizes, three times

Regions are ranked by the size of their mean attribution on the build split, the first k are kept,
and the others have their patch value in a run on prompts held out (node ablation): faithfulness of
the logit difference, by the number of regions kept and of edges among them. The interval is of the
difference from heads over held-out prompts (1,000 draws, 95%); random's is its range over draws.
"""

import argparse
import json
from collections.abc import Iterator

import numpy as np
import torch

from edgesweep.engine.dictionaries.base import Identity
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import NodeAttribution, attribute_nodes
from edgesweep.engine.features.values import make_feature_patch
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.regions.attribution import region_scores
from edgesweep.engine.regions.baselines import clustered
from edgesweep.engine.regions.correlation import correlation, moments_of
from edgesweep.engine.regions.graph import NO_REGION, Partitions, head_partitions
from edgesweep.engine.regions.running import run_region_nodes
from edgesweep.engine.regions.samples import samples
from edgesweep.engine.regions.weighted import fit_blocks, merged_to
from edgesweep.tasks import build_task

MODEL, METRIC = "smollm2-135m", "logit_diff"
KEPT, DRAWS = (10, 30, 60, 120, 200), 3


def partitions(
    wanted: list[str], ends: FeatureBatch, nodes: NodeAttribution
) -> Iterator[tuple[str, Partitions]]:
    """Name and partition of all sites, heads first."""
    heads = head_partitions(ends.features)
    yield "heads", heads
    for name in wanted:
        if name in ("ward", "sbm"):
            parts = {site: found(name, ends, nodes, site, of) for site, of in heads.of.items()}
            yield name, Partitions(ends.features, parts)
    for seed in range(DRAWS if "random" in wanted else 0):
        rng = np.random.default_rng(seed)
        drawn = {site: rng.permutation(of) for site, of in heads.of.items()}
        yield f"random{seed}", Partitions(ends.features, drawn)


def found(
    name: str, ends: FeatureBatch, nodes: NodeAttribution, site: str, heads: np.ndarray
) -> np.ndarray:
    """The region of each coordinate, by attributions that go together; those that do not vary are
    in none."""
    seen, n = samples(ends, nodes, [site], over="positions"), int(heads.max()) + 1
    ties = correlation(moments_of(seen))
    out = np.full(len(heads), NO_REGION)
    if name == "ward":
        out[ties.live] = clustered("ward", ties.z, seen[:, ties.live], n, 0)
    else:
        out[ties.live] = merged_to(ties.z, fit_blocks(ties.z, 0).blocks, n)
    return out


def kept_nodes(scores: np.ndarray, n_nodes: int) -> np.ndarray:
    """The embedding, the logits, and the first k others, `[k, nodes]`."""
    rank = np.argsort(np.argsort(-np.abs(scores.mean(0)[1:]), kind="stable"), kind="stable")
    kept = np.ones((len(KEPT), n_nodes), dtype=bool)
    kept[:, 1:-1] = rank[None] < np.array(KEPT)[:, None]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--partition", default="heads,ward,random")
    for name, default in (("build", 16), ("held", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(resolve_model(MODEL))
    data = build_task(asked.task, model.tokenizer, asked.build, asked.held, 0)  # type: ignore[attr-defined]
    layers = range(model.spec.n_layers)  # type: ignore[attr-defined]
    z = Identity(model.sites.width("attn0.z"))
    features = FeatureModel(model, {f"attn{layer}.z": z for layer in layers})
    patch = make_feature_patch("counterfactual")
    build = FeatureBatch.of(features, PromptBatch.make(list(data.build)), patch)
    held = FeatureBatch.of(features, PromptBatch.make(list(data.evaluation)), patch)
    nodes = attribute_nodes(build, METRIC, steps=1)
    objective, values = held.objective(METRIC), (held.clean, held.patch)
    whole, draw = objective(held.logits).numpy(), np.random.default_rng(0)
    some = draw.integers(0, asked.held, (1000, asked.held))
    of_heads = np.zeros(0)
    for name, regions in partitions(asked.partition.split(","), build, nodes):
        graph = regions.complete()
        kept = kept_nodes(region_scores(regions, build, nodes), len(graph.nodes))
        nothing = np.zeros((1, len(graph.nodes)), dtype=bool)
        sets = np.concatenate([nothing, kept])
        logits = run_region_nodes(regions, held.inputs, values, graph, sets)
        empty, *left = (objective(one).numpy() for one in logits)
        means = (np.stack(left)[:, some].mean(2) - empty[some].mean(1)) / (
            whole[some].mean(1) - empty[some].mean(1)
        )
        of_heads = means if name == "heads" else of_heads
        for k, one, beside in zip(KEPT, left, means - of_heads, strict=True):
            share = (one.mean() - empty.mean()) / (whole.mean() - empty.mean())
            low, high = np.quantile(beside, [0.025, 0.975]).round(3).tolist()
            line = {"partition": name, "regions": len(graph.nodes) - 2, "kept": k}
            line |= {"edges": graph.n_edges_among(kept[KEPT.index(k)])}
            line |= {"faithfulness": round(float(share), 3), "less_heads": [low, high]}
            print(json.dumps({"task": asked.task, **line}), flush=True)


if __name__ == "__main__":
    main()
