"""Node values: what every feature and error node of a site is worth, clean and patched.

A node's patch value, by the kind of patch:

    counterfactual   its value in the run on the input's patch prompt
    resample         its value in the run on another clean prompt of the same group
    zero             f = 0 and ε = 0, so that the site is worth the dictionary's bias
    mean             its mean over the prompts of the build split: f and ε each, per position within
                     a group of equal task, template and length, or pooled

x = D(f) + ε with D affine, so the site's patch value follows from its nodes' in every case. A node
(feature, position) is *active* if it is non-zero in the clean or in the patch run, which is what is
kept of features here; tests/features/test_values.py pins both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.dictionaries.base import Dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import Inputs, Run, Value
from edgesweep.engine.patches import (
    Counterfactual,
    MeanPartial,
    Partners,
    PatchError,
    Resample,
    make_patch,
    mean_groups,
)
from edgesweep.tasks import Example

Features = Float[Tensor, "inputs positions features"]


@dataclass(frozen=True)
class SiteValues:
    """The nodes of one site in one run.

    Attributes:
        x: the site's value, D(f) + ε.
        error: ε.
        input, position, feature: of the non-zero features at real positions, in this order.
        f: their values.
    """

    x: Value
    error: Value
    input: Int[Tensor, " nonzero"]
    position: Int[Tensor, " nonzero"]
    feature: Int[Tensor, " nonzero"]
    f: Float[Tensor, " nonzero"]

    @classmethod
    def of(
        cls, dictionary: Dictionary, f: Features, error: Value, real: Bool[Tensor, "inputs pos"]
    ) -> "SiteValues":
        """From features as a table."""
        row, place, number = ((f != 0) & real[..., None]).nonzero(as_tuple=True)
        x = dictionary.decode(f) + error
        return cls(x, error, row, place, number, f[row, place, number])

    def some(self, numbers: Int[Tensor, " some"]) -> Float[Tensor, "inputs positions some"]:
        """The features of these numbers, 0 at padding; a number may be asked for repeatedly."""
        wanted, inverse = torch.unique(numbers, return_inverse=True)
        out = self.x.new_zeros(*self.x.shape[:2], len(wanted) + 1)
        column = torch.searchsorted(wanted, self.feature)
        known = torch.isin(self.feature, wanted)
        out[self.input[known], self.position[known], column[known]] = self.f[known]
        return out[..., inverse]


class NodeValues:
    """The nodes of all sites in a run of a batch, or the values that stand in for them.

    Args:
        sites: by name, in forward order.
        from_one_run: all values are those of one run.
    """

    def __init__(self, sites: Mapping[str, SiteValues], *, from_one_run: bool) -> None:
        self.sites, self.from_one_run = sites, from_one_run

    def values(self, site: str) -> Value:
        """x of a site."""
        return self.sites[site].x

    def error(self, site: str) -> Value:
        """ε of a site."""
        return self.sites[site].error

    def features(
        self, site: str, numbers: Int[Tensor, " some"]
    ) -> Float[Tensor, "inputs positions some"]:
        """Some features of a site, 0 at padding."""
        return self.sites[site].some(numbers)


def run_nodes(features: FeatureModel, inputs: Inputs, run: Run) -> NodeValues:
    """The nodes of a run."""
    sites = {
        name: SiteValues.of(
            features.dictionary(name), *split(features.dictionary(name), x), inputs.real
        )
        for name, x in features.site_values(run).items()
    }
    return NodeValues(sites, from_one_run=True)


def split(
    dictionary: Dictionary, x: Float[Tensor, "*rows width"]
) -> tuple[Float[Tensor, "*rows features"], Float[Tensor, "*rows width"]]:
    """f = E(x) and ε = x − D(f)."""
    f = dictionary.encode(x)
    return f, x - dictionary.decode(f)


@dataclass(frozen=True)
class Active:
    """Active features of a site, sorted by input, position and feature.

    Attributes:
        input, position, feature: where; one entry an active feature.
        clean, patch: f in the clean run, and its patch value.
    """

    input: Int[Tensor, " active"]
    position: Int[Tensor, " active"]
    feature: Int[Tensor, " active"]
    clean: Float[Tensor, " active"]
    patch: Float[Tensor, " active"]

    def __len__(self) -> int:
        return len(self.feature)

    def of_input(self, number: int) -> "Active":
        """The entries of one input."""
        ends = torch.tensor([number, number + 1], device=self.input.device)
        first, last = torch.searchsorted(self.input, ends).tolist()
        parts = (self.input, self.position, self.feature, self.clean, self.patch)
        return Active(*(part[first:last] for part in parts))


def active_features(clean: SiteValues, patch: SiteValues) -> Active:
    """Features of a site that are non-zero in one of two runs."""
    n_positions = clean.x.shape[1]
    width = 1 + int(max((v.feature.max() for v in (clean, patch) if len(v.f)), default=0))

    def codes(of: SiteValues) -> Tensor:
        return (of.input * n_positions + of.position) * width + of.feature

    both = torch.unique(torch.cat([codes(clean), codes(patch)]))
    values = [clean.f.new_zeros(len(both)) for _ in range(2)]
    for value, of in zip(values, (clean, patch), strict=True):
        value[torch.searchsorted(both, codes(of))] = of.f
    place, feature = both // width, both % width
    return Active(place // n_positions, place % n_positions, feature, *values)


class FeaturePatch(Protocol):
    """A kind of patch values of nodes, resolved batch by batch.

    Attributes:
        kind: its name in configs and results.
        n_forwards: forwards it costs a batch.
    """

    kind: str
    n_forwards: int

    def values(self, features: FeatureModel, batch: PromptBatch, inputs: Inputs) -> NodeValues:
        """Patch values of every node for this batch; `inputs` are the clean ones."""


class RunNodes:
    """Values in the run that a patch of a network makes (counterfactual, resample)."""

    def __init__(self, patch: Counterfactual | Resample) -> None:
        self._patch, self.kind, self.n_forwards = patch, patch.kind, patch.n_forwards

    @torch.no_grad()
    def values(self, features: FeatureModel, batch: PromptBatch, inputs: Inputs) -> NodeValues:
        return run_nodes(features, inputs, self._patch.run(features.model, batch))


class ZeroNodes:
    """No feature is active and nothing is left over."""

    kind, n_forwards = "zero", 0

    @torch.no_grad()
    def values(self, features: FeatureModel, batch: PromptBatch, inputs: Inputs) -> NodeValues:
        sites, none = {}, torch.zeros(0, dtype=torch.long, device=inputs.embed.device)
        for site in features.sites:
            error = inputs.embed.new_zeros(*inputs.real.shape, features.width(site.name))
            bias = features.dictionary(site.name).bias.to(error)
            sites[site.name] = SiteValues(error + bias, error, none, none, none, error[:0, 0, 0])
        return NodeValues(sites, from_one_run=False)


class MeanNodes:
    """Means by group (see `mean_groups`).

    Args:
        tables: group -> `[1, positions, columns]` of `node_mean_partials`; one position if pooled.
        pooled: whether the tables are pooled over positions.
    """

    kind, n_forwards = "mean", 0

    def __init__(self, tables: Mapping[str, np.ndarray], *, pooled: bool) -> None:
        self._tables, self._pooled = dict(tables), pooled

    @torch.no_grad()
    def values(self, features: FeatureModel, batch: PromptBatch, inputs: Inputs) -> NodeValues:
        groups = mean_groups(batch.prompts, pooled=self._pooled)
        for missing in sorted(set(groups) - self._tables.keys()):
            raise PatchError(
                f"patch 'mean' has no mean for prompts of group {missing!r} (task/template/length):"
                " no build prompt is alike; raise data.n_build or use pooled means"
            )
        sites = {}
        for site, columns in node_columns(features).items():
            dictionary = features.dictionary(site)
            table = inputs.embed.new_zeros(*inputs.real.shape, columns.stop - columns.start)
            for row, group in enumerate(groups):
                mean = torch.as_tensor(self._tables[group][0, :, columns])
                table[row, inputs.real[row]] = mean.to(table)
            f, error = table.tensor_split([dictionary.n_features], dim=-1)
            sites[site] = SiteValues.of(dictionary, f, error, inputs.real)
        return NodeValues(sites, from_one_run=False)


def make_feature_patch(
    kind: str,
    means: Mapping[str, np.ndarray] | None = None,
    *,
    pooled: bool = False,
    partners: Partners | None = None,
) -> FeaturePatch:
    """The patch of that kind.

    Raises:
        PatchError: a kind that nodes of dictionaries do not have, `mean` without its tables,
            `resample` without its partners.
    """
    if kind == "noise":
        raise PatchError(
            "patch 'noise' is not defined for features; use counterfactual, resample, mean or zero"
        )
    if kind == "zero":
        return ZeroNodes()
    if kind == "mean" and means is not None:
        return MeanNodes(means, pooled=pooled)
    patch = make_patch(kind, partners=partners)
    assert isinstance(patch, Counterfactual | Resample)
    return RunNodes(patch)


def node_columns(features: FeatureModel) -> dict[str, slice]:
    """Where a table of means keeps each site: its features, then the coordinates of its error."""
    columns, start = {}, 0
    for site in features.sites:
        width = features.dictionary(site.name).n_features + features.width(site.name)
        columns[site.name] = slice(start, start + width)
        start += width
    return columns


@torch.no_grad()
def node_mean_partials(
    features: FeatureModel,
    prompts: Sequence[Example],
    *,
    pooled: bool,
    over: str = "patch",
    micro_batch: int = 16,
) -> dict[str, MeanPartial]:
    """Sums of every node's value, by group: `[1, positions, columns]` (`node_columns`), float64.

    Args:
        pooled: sum over real positions too.
        over: "patch" or "clean" prompts.
        micro_batch: prompts a forward.
    """
    partials: dict[str, MeanPartial] = {}
    by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(by_length), micro_batch):
        batch = PromptBatch.make([prompts[i] for i in by_length[start : start + micro_batch]])
        table = _node_table(features, getattr(batch, over), batch.real)
        for i, group in enumerate(mean_groups(batch.prompts, pooled=pooled)):
            values = table[i, batch.real[i]].double().cpu().numpy()[None]
            part = MeanPartial(values, 1)
            if pooled:
                part = MeanPartial(values.sum(1, keepdims=True), values.shape[1])
            partials[group] = partials[group].merge(part) if group in partials else part
    return partials


def _node_table(
    features: FeatureModel, given: Tensor, real: Tensor
) -> Float[Tensor, "inputs positions columns"]:
    model = features.model
    values = features.site_values(model.run(model.prepare(given, real)))
    parts = [part for site, x in values.items() for part in split(features.dictionary(site), x)]
    return torch.cat(parts, dim=-1)
