"""The two ends of every path: clean and patch values of all nodes of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.evaluation import ByMetric
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import (
    Active,
    FeaturePatch,
    NodeValues,
    active_features,
    run_nodes,
)
from edgesweep.engine.graph import NodeNumbers
from edgesweep.engine.methods.gradients import Objective
from edgesweep.engine.metrics import measure, oriented
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import Inputs, Run, Value


@dataclass(frozen=True)
class FeatureBatch:
    """A batch with both ends of every path in it: what attribution and ablation start from.

    Attributes:
        inputs: the clean batch, ready for the layers.
        run: the clean run.
        clean, patch: values of all nodes in it, and those that stand in for them.
    """

    features: FeatureModel
    batch: PromptBatch
    inputs: Inputs
    run: Run
    clean: NodeValues
    patch: NodeValues

    @classmethod
    @torch.no_grad()
    def of(cls, features: FeatureModel, batch: PromptBatch, patch: FeaturePatch) -> "FeatureBatch":
        """Both ends of a batch."""
        inputs = features.model.prepare(batch.clean, batch.real)
        run = features.model.run(inputs)
        clean = run_nodes(features, inputs, run)
        return cls(features, batch, inputs, run, clean, patch.values(features, batch, inputs))

    @property
    def logits(self) -> Float[Tensor, "inputs outputs"]:
        """Of the clean run, as the metric reads them."""
        found: Tensor = self.run.logits
        return found

    @property
    def numbers(self) -> NodeNumbers:
        return self.features.numbers

    @cached_property
    def active(self) -> Mapping[str, Active]:
        """Features that are non-zero at one of the ends, by site."""
        return {
            name: active_features(self.clean.sites[name], self.patch.sites[name])
            for name in self.clean.sites
        }

    def path(
        self, site: str, ts: Float[Tensor, " steps"], number: int
    ) -> Float[Tensor, "steps positions width"]:
        """The value of a site on its way from patch to clean, for one input."""
        clean, patch = self.clean.values(site)[number], self.patch.values(site)[number]
        return torch.lerp(patch[None], clean[None], ts[:, None, None])

    def difference(self, site: str) -> Value:
        """x_clean − x_patch."""
        return self.clean.values(site) - self.patch.values(site)

    def objective(self, metric: str, numbers: Int[Tensor, " inputs"] | None = None) -> Objective:
        """λ of logits `[*rows, inputs, vocab]` of some inputs, compared with the clean run's."""
        batch, clean = self.batch, self.logits
        if numbers is not None:
            batch, clean = batch.at(numbers.cpu()), clean[numbers]
        return lambda logits: oriented(metric, logits, batch, clean)

    def measured(
        self, metrics: Sequence[str], logits: Float[Tensor, "*circuits inputs outputs"]
    ) -> ByMetric:
        """Each metric on each input, `[*circuits, inputs]`."""
        return {m: measure(m, logits, self.batch, self.logits).cpu().numpy() for m in metrics}
