"""How well the networks do whose interactions are found, as they are, on both splits of their task:
of networks on the way of a training this is its course."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from edgesweep.engine.bases.ablation import SCORES, mean_positions, spliced
from edgesweep.engine.network import PromptBatch
from edgesweep.storage.tables import NETWORK_SCORES, Table
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import Layered
from edgesweep.sweeps.interactions.loading import at_once, chain_in
from edgesweep.sweeps.stages.base import Done, Passes, Row, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View

NAME = NETWORK_SCORES.name
SPLITS = ("build", "eval")


@dataclass(frozen=True)
class NetworkShard:
    """A network on the prompts of a split."""

    of: Layered
    split: str

    @property
    def dataset(self) -> str:
        return self.of.dataset

    @property
    def key(self) -> str:
        return f"{self.of.key}.{self.split}"


class NetworkScores(Stage[NetworkShard]):
    """One shard a network and split."""

    name = NAME
    title = "networks as they are"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[NetworkShard]:
        for of in dict.fromkeys(graph.of for graph in plan.graphs):
            for split in SPLITS:
                yield NetworkShard(of, split)

    @torch.inference_mode()
    def run(self, context: Context, shard: NetworkShard) -> Done:
        chain, prompts = chain_in(context, shard.of), context.prompts(shard.dataset, shard.split)
        batches, size = [], at_once(chain, prompts)
        parts: dict[str, list[Tensor]] = {metric: [] for metric in SCORES}
        for first in range(0, len(prompts), size):
            batches.append(batch := PromptBatch.make(prompts[first : first + size]))
            inputs = chain.prepare(batch.clean, batch.real)
            logits = spliced(chain, chain.first, chain.start(inputs), inputs)
            for metric, (score, _) in SCORES.items():
                parts[metric].append(score(logits, batch).double().cpu())
        found = {metric: torch.cat(scores) for metric, scores in parts.items()}
        if chain.everywhere:
            found["nll"] /= mean_positions(batches)
        return files.write_tensors(context, self.name, shard.key, found)

    def passes(self, plan: Plan, shard: NetworkShard) -> Passes:
        return Passes(2.0 * -(-plan.n_inputs(shard.split) // plan.config.execution.micro_batch))

    def alike(self, shard: NetworkShard) -> str:
        return shard.split

    def whose(self, plan: Plan, shard: NetworkShard) -> str:
        return f"{shard.of.model} on {shard.of.task}"


def network_tables(view: View) -> Mapping[Table, pd.DataFrame]:
    """How well they do, if the run has interaction graphs."""
    return {NETWORK_SCORES: pd.DataFrame(list(_rows(view)))} if view.plan.graphs else {}


def _rows(view: View) -> Iterator[Row]:
    for shard in view.plan.stages[NAME]:
        if shard.key not in view.done[NAME]:
            continue
        of = shard.of
        for metric, scores in files.read_tensors(view.run, view.log, NAME, shard.key).items():
            n = len(scores)
            error = float(np.std(scores.numpy(), ddof=1) / n**0.5) if n > 1 else float("nan")
            yield {
                "model": of.model,
                "task": of.task,
                "split": shard.split,
                "metric": metric,
                "score": float(scores.mean()),
                "standard_error": error,
                "n_inputs": n,
            }
