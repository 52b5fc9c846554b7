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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from engine.features.segments import FeatureModel
from engine.model import Inputs, PromptBatch
from engine.model.dictionaries import Dictionary
from engine.model.layers import Stream
from engine.model.transformer import Logits
from engine.patches import MeanPartial, Patch, PatchError, make_patch, mean_groups
from tasks import Prompt

Features = Float[Tensor, "inputs positions features"]


@dataclass(frozen=True)
class Active:
    """Active features of a site at real positions, sorted by input, position and feature.

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


@dataclass(frozen=True)
class SiteNodes:
    """Clean and patch values of the nodes of one site.

    Attributes:
        dictionary: of the site.
        clean, patch: the site's value x, of which x_patch = D(f_patch) + ε_patch.
        clean_error, patch_error: ε.
        active: the features that are non-zero in one of them.
    """

    dictionary: Dictionary
    clean: Stream
    patch: Stream
    clean_error: Stream
    patch_error: Stream
    active: Active

    def at(self, t: float) -> Stream:
        """The site's value at t of the way from patch to clean."""
        return torch.lerp(self.patch, self.clean, t)

    def dense(self, values: Float[Tensor, " active"]) -> Features:
        """One number an active feature (`active.clean`, say) as a table, zero elsewhere."""
        shape = (*self.clean.shape[:2], self.dictionary.n_features)
        table = values.new_zeros(shape)
        table[self.active.input, self.active.position, self.active.feature] = values
        return table


@dataclass(frozen=True)
class Nodes:
    """Node values of a batch.

    Attributes:
        inputs: the clean batch, ready for the layers.
        logits: of the clean run.
        sites: by name, in forward order.
        from_one_run: all patch values are those of one run.
    """

    batch: PromptBatch
    inputs: Inputs
    logits: Logits
    sites: Mapping[str, SiteNodes]
    from_one_run: bool


class NodePatch(Protocol):
    """A kind of patch values of nodes, resolved batch by batch.

    Attributes:
        kind: its name in configs and results.
        n_forwards: forwards it costs a batch.
        from_one_run: all values are those of one run.
    """

    kind: str
    n_forwards: int
    from_one_run: bool

    def values(
        self, features: FeatureModel, batch: PromptBatch, inputs: Inputs
    ) -> Iterator[tuple[Features, Stream]]:
        """f and ε of every site in forward order; `inputs` are the clean ones."""


class RunNodes:
    """Values in the run that a patch of streams makes (counterfactual, resample)."""

    from_one_run = True

    def __init__(self, patch: Patch) -> None:
        self._patch, self.kind, self.n_forwards = patch, patch.kind, patch.n_forwards

    def values(
        self, features: FeatureModel, batch: PromptBatch, inputs: Inputs
    ) -> Iterator[tuple[Features, Stream]]:
        run = self._patch.values(features.model, batch, inputs).run  # type: ignore[attr-defined]
        for site, x in features.site_values(run).items():
            yield split(features.dictionary(site), x)


class ZeroNodes:
    """No feature is active and nothing is left over."""

    kind, n_forwards, from_one_run = "zero", 0, False

    def values(
        self, features: FeatureModel, batch: PromptBatch, inputs: Inputs
    ) -> Iterator[tuple[Features, Stream]]:
        shape = inputs.embed.shape[:2]
        for site in features.sites:
            n_features = features.dictionary(site.name).n_features
            yield inputs.embed.new_zeros(*shape, n_features), torch.zeros_like(inputs.embed)


class MeanNodes:
    """Means by group (see `mean_groups`).

    Args:
        tables: group -> `[1, positions, columns]` of `node_mean_partials`; one position if pooled.
        pooled: whether the tables are pooled over positions.
    """

    kind, n_forwards, from_one_run = "mean", 0, False

    def __init__(self, tables: Mapping[str, np.ndarray], *, pooled: bool) -> None:
        self._tables, self._pooled = dict(tables), pooled

    def values(
        self, features: FeatureModel, batch: PromptBatch, inputs: Inputs
    ) -> Iterator[tuple[Features, Stream]]:
        groups = mean_groups(batch.prompts, pooled=self._pooled)
        for missing in sorted(set(groups) - self._tables.keys()):
            raise PatchError(
                f"patch 'mean' has no mean for prompts of group {missing!r} (task/template/length):"
                " no build prompt is alike; raise data.n_build or use pooled means"
            )
        for site, columns in node_columns(features).items():
            n_features = features.dictionary(site).n_features
            table = inputs.embed.new_zeros(*inputs.real.shape, columns.stop - columns.start)
            for row, group in enumerate(groups):
                mean = torch.as_tensor(self._tables[group][0, :, columns]).to(table)
                table[row, inputs.real[row]] = mean
            yield table[..., :n_features], table[..., n_features:]


def make_node_patch(
    kind: str,
    means: Mapping[str, np.ndarray] | None = None,
    *,
    pooled: bool = False,
    partners: Mapping[tuple[int, ...], tuple[int, ...]] | None = None,
) -> NodePatch:
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
    return RunNodes(make_patch(kind, partners=partners))


@torch.no_grad()
def node_values(features: FeatureModel, batch: PromptBatch, patch: NodePatch) -> Nodes:
    """Clean and patch values of every node of a batch."""
    inputs = features.model.prepare(batch.clean, batch.real)
    run = features.model.run(inputs)
    assert run.logits is not None
    patched = patch.values(features, batch, inputs)
    sites = {}
    for (name, x), (f_patch, error_patch) in zip(
        features.site_values(run).items(), patched, strict=True
    ):
        dictionary = features.dictionary(name)
        f_clean, error_clean = split(dictionary, x)
        x_patch = dictionary.decode(f_patch) + error_patch
        active = active_features(f_clean, f_patch, inputs.real)
        sites[name] = SiteNodes(dictionary, x, x_patch, error_clean, error_patch, active)
    return Nodes(batch, inputs, run.logits, sites, patch.from_one_run)


def split(dictionary: Dictionary, x: Stream) -> tuple[Features, Stream]:
    """f = E(x) and ε = x − D(f)."""
    f = dictionary.encode(x)
    return f, x - dictionary.decode(f)


def active_features(
    clean: Features, patch: Features, real: Bool[Tensor, "inputs positions"]
) -> Active:
    """Features that are non-zero in one of two runs, at real positions."""
    found = ((clean != 0) | (patch != 0)) & real[..., None]
    where = found.nonzero(as_tuple=True)
    return Active(*where, clean[where], patch[where])


def node_columns(features: FeatureModel) -> dict[str, slice]:
    """Where a table of means keeps each site: its features, then the coordinates of its error."""
    columns, start = {}, 0
    for site in features.sites:
        width = features.dictionary(site.name).n_features + features.model.d_model
        columns[site.name] = slice(start, start + width)
        start += width
    return columns


@torch.no_grad()
def node_mean_partials(
    features: FeatureModel,
    prompts: Sequence[Prompt],
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
    by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].clean), i))
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
    features: FeatureModel, tokens: Tensor, real: Tensor
) -> Float[Tensor, "inputs positions columns"]:
    model = features.model
    values = features.site_values(model.run(model.prepare(tokens, real)))
    parts = [part for site, x in values.items() for part in split(features.dictionary(site), x)]
    return torch.cat(parts, dim=-1)
