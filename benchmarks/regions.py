"""Regions: folding co-moments against one matrix product; the weighted block model against
graph-tool's own search from nothing.

    python -m benchmarks.regions [--units 400,600,800] [--alone 1500]

Seconds are of CPU, this process's and graph-tool's, on one thread. Of `--units` both sides are
measured. graph-tool goes on with rounds of merge-split until its description is within 0.1% of
ours, or its rounds are over: `reached` says which. `longer` is how much longer our description is
than its (a share; negative: shorter), and graph-tool's own sum of ours must agree
(`engine.regions.judge`). `--alone` is ours without graph-tool, which takes n^2.6. Units are sums of
30 hidden causes, with noise. The goals are of 1,500 units.

Edges between regions are beside edges between the coordinates that they are made of, each a target:
a (region, position) there and a (coordinate, position) here; `whole` is the ratio of all edges.
What each side does once is in both, so that few regions are many times a coordinate, and less.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch

from benchmarks.timing import quartiles, ratios, report
from edgesweep.engine.bases.moments import Moments, fold
from edgesweep.engine.blockmodel import Interpreter, find_interpreter
from edgesweep.engine.dictionaries.base import Identity
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, FeatureEdges, attribute_edges
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_nodes
from edgesweep.engine.features.values import make_feature_patch
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.regions.attribution import region_edges
from edgesweep.engine.regions.correlation import correlation, moments_of
from edgesweep.engine.regions.graph import Partitions
from edgesweep.engine.regions.judge import Judging, judge
from edgesweep.engine.regions.weighted import Partition, fit_blocks
from edgesweep.tasks import Prompt

SAMPLES, UNITS, PART = 8000, 1600, 2048


def samples(n: int, units: int, seed: int = 0) -> np.ndarray:
    """Rectified sums of hidden causes, `[n, units]`."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(n, 30))
    made: np.ndarray = np.maximum(causes @ rng.normal(size=(30, units)) / 5, 0)
    return made + rng.normal(size=(n, units)) / 4


def co_moments() -> None:
    x = samples(SAMPLES, UNITS)

    def folded() -> Moments:
        return fold(moments_of(x[start : start + PART]) for start in range(0, SAMPLES, PART))

    gemm, rows = torch.as_tensor(x), torch.as_tensor(x.copy())
    products = {"gemm": lambda: gemm.T @ rows, "dsyrk": lambda: x.T @ x}  # numpy sees the symmetry
    for name, product in products.items():
        found = ratios(folded, product, 7)
        line = {"name": f"co_moments_per_{name}", "ratio": quartiles(found), "goal": 1.5}
        print(json.dumps({**line, "samples": SAMPLES, "units": UNITS}), flush=True)


def edges(n: int) -> None:
    model = tiny_model("gpt2", n_layers=3, width=256)
    sites = ("attn0.z", "attn1.z", "attn2.z")
    features = FeatureModel(model, {site: Identity(model.sites.width(site)) for site in sites})
    rng = np.random.default_rng(0)
    clean, patch = (tuple(rng.integers(1, 64, 10).tolist()) for _ in range(2))
    batch = PromptBatch.make([Prompt(clean, patch, (1,), (2,), "random", "t", {"end": 9}, "", "")])
    ends = FeatureBatch.of(features, batch, make_feature_patch("counterfactual"))
    nodes, settings = attribute_nodes(ends, "logit_diff", steps=3), EdgeSettings(steps=3)
    regions = Partitions(features, dict.fromkeys(sites, np.arange(256) % n))
    graph = regions.complete()

    def of_features() -> FeatureEdges:
        return attribute_edges(ends, nodes, "logit_diff", settings)

    found = ratios(
        lambda: region_edges(regions, graph, ends, nodes, "logit_diff", settings), of_features, 5
    )
    fine = int(of_features().n_targets.sum())
    share = fine / (1 + 2 * n * 10)  # the logits, and regions of two sites at ten positions
    line = {"name": "region_edges_per_target", "ratio": quartiles([r * share for r in found])}
    whole = {"whole": [round(r, 4) for r in quartiles_of(found)], "width": 256, "regions": n}
    print(json.dumps({**line, "goal": 1.0, **whole}), flush=True)


def quartiles_of(values: list[float]) -> list[float]:
    return np.quantile(values, [0.25, 0.5, 0.75]).tolist()


def fitted(n_units: int) -> tuple[np.ndarray, Partition, float]:
    """Fisher's z, our partition, and what it took."""
    z = correlation(moments_of(samples(2000, n_units))).z
    start = time.process_time()
    return z, fit_blocks(z, 0), time.process_time() - start


def alone(n_units: int) -> None:
    _, ours, cost = fitted(n_units)
    found = {"units": n_units, "blocks": ours.n_blocks, "nats": round(ours.length, 1)}
    print(json.dumps({"name": "weighted_block_model_alone", "cost_s": round(cost, 1), **found}))


def block_model(n_units: int, interpreter: Interpreter) -> None:
    z, ours, cost = fitted(n_units)
    judge(z, ours, interpreter, Judging(max_rounds=0))
    enough = ours.length + 1e-3 * abs(ours.length)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = judge(z, None, interpreter, Judging(max_rounds=50, until=enough), timeout_s=7200)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report(
        "weighted_block_model",
        cost,
        unit,
        0.1,
        units=n_units,
        blocks=ours.n_blocks,
        their_blocks=theirs.partition.n_blocks,
        longer=round((ours.length - theirs.partition.length) / abs(theirs.partition.length), 6),
        longer_than_first=round((ours.length - theirs.given) / abs(theirs.given), 6),
        reached=theirs.partition.length <= enough,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", default="400")
    parser.add_argument("--alone", default="")
    torch.set_num_threads(1)
    asked = parser.parse_args()
    co_moments()
    edges(4)
    edges(64)
    for n in filter(None, asked.alone.split(",")):
        alone(int(n))
    interpreter = find_interpreter()
    if interpreter is None:
        print("no graph-tool here: the block model has nothing to be measured against")
        return
    for n in filter(None, asked.units.split(",")):
        block_model(int(n), interpreter)


if __name__ == "__main__":
    main()
