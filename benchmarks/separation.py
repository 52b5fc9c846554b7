"""How well single directions of a run's bases tell a group of classes from all others, such as the
animals of CIFAR-10 from its vehicles (Bushnaq et al. 2024, section 5.2).

For each network, layer and basis: the direction whose activations separate best on the build
prompts, and its AUROC on the evaluation prompts, beside the network's own: of the log odds that its
outputs give the group. One JSON line each.

    .venv/bin/python -m benchmarks.separation runs/cifar-lib 2,3,4,5,6,7
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

import edgesweep as es
from edgesweep.engine.bases.chain import Chain
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import LOGITS
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.tasks import example_of

AT_ONCE = 500


def auroc(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Of each column of `[inputs, k]`: the chance that one of the group is above another, or below
    it if that is more likely."""
    n_in, n_out = int(inside.sum()), int((~inside).sum())
    above = rankdata(values, axis=0)[inside].sum(0) - n_in * (n_in + 1) / 2
    found = above / (n_in * n_out)
    return np.maximum(found, 1 - found)


def cuts(chain: Chain, run: es.Run, dataset: str, split: str) -> tuple[dict[str, Any], np.ndarray]:
    """The value of every cut on a split, `[inputs, width]`, and the inputs' classes."""
    prompts, parts, classes = PromptRows(run.directory, dataset, split, example_of), {}, []
    for first in range(0, len(prompts), AT_ONCE):
        batch = PromptBatch.make(prompts[first : first + AT_ONCE])
        inputs = chain.prepare(batch.clean, batch.real)
        value, at = chain.start(inputs), chain.first
        for name in chain.widths:
            value = value if name == at else chain.section(at, name)(value, inputs)
            at = name
            parts.setdefault(name, []).append(value[:, 0])
        classes.append(batch.good[:, 0].numpy())
    return {name: torch.cat(of) for name, of in parts.items()}, np.concatenate(classes)


def rows(run: es.Run, group: list[int]) -> Iterator[dict[str, Any]]:
    graphs = run.directory.plan["graphs"]
    models = dict(zip(_labels(graphs), run.config["sweep"]["model"], strict=True))
    for model, path in models.items():
        chain = chain_of(load_model(resolve_model(path), "cpu", "float64"))
        mine = [g for g in graphs if g["model"] == model]
        (build, train), (held, test) = (
            cuts(chain, run, mine[0]["dataset"], split) for split in ("build", "eval")
        )
        sides = np.isin(train, group), np.isin(test, group)
        odds = torch.logsumexp(held[LOGITS][:, group], 1)
        rest = [c for c in range(held[LOGITS].shape[1]) if c not in group]
        odds = (odds - torch.logsumexp(held[LOGITS][:, rest], 1)).numpy()
        yield {"model": model, "of": "network", "auroc": float(auroc(odds[:, None], sides[1])[0])}
        for about in mine:
            graph = run.interaction_graph(about["basis"], model=model)
            for layer in about["rotated"]:
                basis = graph.bases[layer]
                best = int(auroc(basis.encoded(build[layer]).numpy(), sides[0]).argmax())
                found = auroc(basis.encoded(held[layer])[:, [best]].numpy(), sides[1])[0]
                told = {"layer": layer, "direction": best, "auroc": round(float(found), 4)}
                yield {"model": model, "of": about["basis"], **told}


def _labels(graphs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(graph["model"] for graph in graphs))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("group", help="classes, as 2,3,4,5,6,7")
    given = parser.parse_args()
    run = es.open(given.run)
    for row in rows(run, [int(c) for c in given.group.split(",")]):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
