"""Patch values: what a source is taken to write where an edge from it is dropped.

    counterfactual   what it writes on the input's patch prompt (one forward)
    resample         what it writes on another clean prompt of the same task, template and length,
                     drawn from the same split with a seed
    zero             nothing
    mean             its mean over patch prompts of the build split, per position within a group of
                     equal task, template and length, or pooled over a task's real positions
    noise            its clean value plus Gaussian noise, `scale` times as large: its root mean
                     square over the prompt's real positions is the unit

Means are sums and counts until the end, so that shards fold exactly.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.network import Inputs, Model, PromptBatch, RunValues, SourceValues
from edgesweep.engine.network.base import Network
from edgesweep.engine.network.values import stack_sources, table_values, zero_values
from edgesweep.tasks import Example

#: all numbers of one side of an example
Side = tuple[Any, ...]
Partners = Mapping[Side, Side]


class PatchError(ValueError):
    """A patch that cannot be had for these prompts; the message is one line."""


class Patch(Protocol):
    """A kind of patch values, resolved batch by batch.

    Attributes:
        kind: its name in configs and results.
        n_forwards: forwards it costs a batch.
    """

    kind: str
    n_forwards: int

    def values(self, model: Model, batch: PromptBatch, inputs: Inputs) -> SourceValues:
        """Patch values of every source for this batch; `inputs` are the clean ones."""


class Counterfactual:
    """Values of the run on the patch prompts."""

    kind, n_forwards = "counterfactual", 1

    @torch.no_grad()
    def run(self, network: Network, batch: PromptBatch) -> Any:
        """The run that the values are of."""
        return network.run(network.prepare(batch.patch, batch.real))

    def values(self, model: Model, batch: PromptBatch, inputs: Inputs) -> SourceValues:
        return RunValues(model, self.run(model, batch))


class Resample:
    """Values of the run on each prompt's partner.

    Args:
        partners: clean tokens of a prompt -> clean tokens of its partner (`resample_partners`).
    """

    kind, n_forwards = "resample", 1

    def __init__(self, partners: Partners) -> None:
        self._partners = partners

    @torch.no_grad()
    def run(self, network: Network, batch: PromptBatch) -> Any:
        """The run that the values are of."""
        for prompt in batch.prompts:
            if prompt.clean not in self._partners:
                raise PatchError(
                    f"patch 'resample' has no partner for a prompt of group {_group(prompt)!r}; "
                    "make partners of all prompts of the split"
                )
        given = batch.side([self._partners[prompt.clean] for prompt in batch.prompts])
        return network.run(network.prepare(given, batch.real))

    def values(self, model: Model, batch: PromptBatch, inputs: Inputs) -> SourceValues:
        return RunValues(model, self.run(model, batch))


def resample_partners(prompts: Sequence[Example], seed: int) -> dict[Side, Side]:
    """A partner for each prompt: the next one round a circle drawn with the seed, among the
    prompts of equal task, template and length with other tokens. Whom a prompt gets depends on the
    whole split and on no batch.

    Raises:
        PatchError: a prompt is alone in its group.
    """
    groups: dict[str, list[Side]] = {}
    for prompt in prompts:
        groups.setdefault(_group(prompt), []).append(prompt.clean)
    partners: dict[Side, Side] = {}
    for group, members in groups.items():
        circle = sorted(set(members))
        if len(circle) < 2:
            raise PatchError(
                f"patch 'resample' needs two different prompts of group {group!r} "
                "(task/template/length) and has one; raise data.n_build and data.n_eval"
            )
        random.Random(f"{seed}/{group}").shuffle(circle)
        partners |= zip(circle, [*circle[1:], circle[0]], strict=True)
    return partners


def _group(prompt: Example) -> str:
    return mean_groups([prompt], pooled=False)[0]


class Noise:
    """Clean values plus noise. What a prompt gets depends on its tokens and the seed alone, not on
    the batch, its padding or the processor.

    Args:
        scale: root mean square of the noise, in units of the value's own.
        seed: of the draws.
    """

    kind, n_forwards = "noise", 1

    def __init__(self, seed: int, scale: float) -> None:
        self._seed, self._scale = seed, scale

    @torch.no_grad()
    def values(self, model: Model, batch: PromptBatch, inputs: Inputs) -> SourceValues:
        clean = stack_sources(model, RunValues(model, model.run(inputs))).transpose(0, 1)
        rows = [
            self._disturbed(table, prompt, real.to(table.device))
            for table, prompt, real in zip(clean, batch.prompts, batch.real, strict=True)
        ]
        return table_values(model, rows)

    def _disturbed(self, clean: Tensor, prompt: Example, real: Tensor) -> Tensor:
        """`[sources, positions, d_model]` of one prompt; padding stays as it is."""
        key = hashlib.sha256(f"{self._seed}/{prompt.clean}".encode()).digest()[:8]
        draw = torch.Generator().manual_seed(int.from_bytes(key, "big") % 2**63)
        values = clean[:, real].to(torch.promote_types(clean.dtype, torch.float32))
        noise = torch.randn(values.shape, generator=draw, dtype=torch.float32).to(values)
        size = values.square().mean((1, 2), keepdim=True).sqrt()
        out = clean.clone()
        out[:, real] = (values + self._scale * size * noise).to(out)
        return out


class Zero:
    """Every source writes nothing; attention output biases, which are no node's, remain."""

    kind, n_forwards = "zero", 0

    def values(self, model: Model, batch: PromptBatch, inputs: Inputs) -> SourceValues:
        return zero_values(model, inputs.embed)


@dataclass(frozen=True)
class MeanPartial:
    """A sum over prompts (float64) and how many entered it, for one group.

    Attributes:
        total: `[sources, positions, d_model]`; one position if pooled.
        count: prompts summed (positions, if pooled).
    """

    total: Float[np.ndarray, "sources positions d_model"]
    count: int

    def merge(self, other: "MeanPartial") -> "MeanPartial":
        return MeanPartial(self.total + other.total, self.count + other.count)

    def mean(self) -> Float[np.ndarray, "sources positions d_model"]:
        return self.total / self.count


class Mean:
    """Means by group (see `mean_groups`).

    Args:
        tables: group -> `[sources, positions, d_model]`; one position if pooled.
        pooled: whether the tables are pooled over positions.
    """

    kind, n_forwards = "mean", 0

    def __init__(self, tables: Mapping[str, np.ndarray], *, pooled: bool) -> None:
        self._tables, self._pooled = dict(tables), pooled

    def values(self, model: Model, batch: PromptBatch, inputs: Inputs) -> SourceValues:
        groups = mean_groups(batch.prompts, pooled=self._pooled)
        rows = [
            self._row(g, real, inputs.embed) for g, real in zip(groups, batch.real, strict=True)
        ]
        return table_values(model, rows)

    def _row(self, group: str, real: Tensor, like: Tensor) -> Float[Tensor, "sources pos d_model"]:
        if group not in self._tables:
            raise PatchError(
                f"patch 'mean' has no mean for prompts of group {group!r} (task/template/length): "
                "no build prompt is alike; raise data.n_build or use pooled means"
            )
        table = torch.as_tensor(self._tables[group], dtype=like.dtype, device=like.device)
        out = table.new_zeros(table.shape[0], len(real), table.shape[2])
        out[:, real.to(like.device)] = table
        return out


def mean_groups(prompts: Sequence[Example], *, pooled: bool) -> list[str]:
    """The group whose mean stands in for each prompt: `task/template/length`, or `task`."""
    return [p.task if pooled else f"{p.task}/{p.template}/{len(p)}" for p in prompts]


@torch.no_grad()
def mean_partials(
    model: Model, prompts: Sequence[Example], *, pooled: bool, over: str, micro_batch: int
) -> dict[str, MeanPartial]:
    """Sums of what every source writes, by group.

    Args:
        pooled: sum over real positions too.
        over: "patch" (the paper's mean ablation with corrupted inputs) or "clean".
        micro_batch: prompts a forward.
    """
    partials: dict[str, MeanPartial] = {}
    by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(by_length), micro_batch):
        batch = PromptBatch.make([prompts[i] for i in by_length[start : start + micro_batch]])
        inputs = model.prepare(getattr(batch, over), batch.real)
        written = stack_sources(model, RunValues(model, model.run(inputs))).double().cpu().numpy()
        for i, group in enumerate(mean_groups(batch.prompts, pooled=pooled)):
            values = written[:, i, batch.real[i].numpy()]
            part = MeanPartial(values, 1)
            if pooled:
                part = MeanPartial(values.sum(1, keepdims=True), values.shape[1])
            partials[group] = partials[group].merge(part) if group in partials else part
    return partials


PATCHES = ("counterfactual", "resample", "mean", "zero", "noise")
#: patches whose values are all those of one run
ONE_RUN = frozenset({"counterfactual", "resample"})


def make_patch(
    kind: str,
    means: Mapping[str, np.ndarray] | None = None,
    *,
    pooled: bool = False,
    partners: Partners | None = None,
    seed: int = 0,
    noise_scale: float = 1.0,
) -> Patch:
    """The patch of that kind.

    Raises:
        PatchError: an unknown kind, `mean` without its tables, `resample` without its partners.
    """
    if kind == "noise":
        return Noise(seed, noise_scale)
    if kind == "resample" and partners is not None:
        return Resample(partners)
    if kind == "counterfactual":
        return Counterfactual()
    if kind == "zero":
        return Zero()
    if kind == "mean" and means is not None:
        return Mean(means, pooled=pooled)
    raise PatchError(
        f"patch {kind!r} is none of {', '.join(PATCHES)}, or lacks its means or partners"
    )
