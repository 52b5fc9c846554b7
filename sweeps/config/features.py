"""The sections of a config that are about dictionaries and the features that they make."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from edgesweep.sweeps.config.fields import NotNegative, Positive, Section, Text, one_of, within

#: what an edge's weight is of
TARGETS = ("attribution", "value", "metric")


#: kinds of dictionaries that are bases; of these, what is told by what acts on what
BASES, BY_INTERACTION = ("lib", "gib", "pca"), ("lib", "gib")


class Trained(Section):
    """A dictionary that the run makes itself, before all else, of the activations of its site over
    prompts of the run's tasks: `prompts` of each task, clean and patch.

    `kind` topk keeps the `k` largest features a position, relu pays `l1` for each. lib, gib and pca
    are computed, and keep the first `features` directions at most: of pca those that vary most; of
    lib those that act most on the next site of the set that has lib, after the last of them on the
    logits; of gib on the logits. What acts on what is told by the Jacobians at `jacobians` prompts
    of each task, with so many random signs for the positions as `sources`, 0 for each by itself.
    """

    kind: Annotated[str, one_of("topk", "relu", *BASES)]
    features: Annotated[int, within(1, 10**6)] = 1024
    k: Annotated[int, within(1)] = 16
    l1: NotNegative = 0.01
    steps: Annotated[int, within(1, 10**7)] = 1000
    batch: Annotated[int, within(1, 10**6)] = 256
    lr: Positive = 1e-3
    prompts: Annotated[int, within(1, 10**6)] = 256
    jacobians: Annotated[int, within(1, 10**6)] = 16
    sources: Annotated[int, within(0, 10**4)] = 1


#: as many regions at each site as it has heads; as many as the block model finds
OF_HEADS, AUTO = "heads", "auto"
#: which need no samples
GIVEN = ("heads", "random")
PARTITIONS = (*GIVEN, "sbm", "ward", "kmeans", "spectral", "spectral_svd")


class Regions(Section):
    """How the features of each site are parted into regions, which are the nodes then. (A site of
    which the dictionary is `none` stays whole.)

    `partition`: the model's heads, of `attn3.z` by `identity`; features drawn with the `seed` into
    regions of equal sizes; a weighted block model (the shortest of `chains`, its blocks merged
    where they are more than are asked for) or a clustering of what goes together: `of` features'
    attribution (integrated gradients of `steps` steps, of the sweep's first metric and patch, for
    cells of all of them; of 0 steps the gradient is that at the clean run, which one backward has
    for all sites) or activation, with a sample for each of the positions or the inputs that it is
    `over`. `blocks`: regions of a site, a number, as many as it has heads, or `auto`, as many as
    the block model finds.
    """

    partition: Annotated[str, one_of(*PARTITIONS)]
    blocks: Any = OF_HEADS
    of: Annotated[str, one_of("attribution", "activation")] = "attribution"
    over: Annotated[str, one_of("positions", "inputs")] = "positions"
    steps: Annotated[int, within(0, 1000)] = 1
    chains: Annotated[int, within(1, 1000)] = 1
    seed: Annotated[int, within(0, 2**31 - 1)] = 0

    @field_validator("blocks")
    @classmethod
    def _is_a_word_or_a_number(cls, value: Any) -> Any:
        if value in (OF_HEADS, AUTO):
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"is no number of regions; allowed: {OF_HEADS}, {AUTO}, or 1 or more")
        return value

    @model_validator(mode="after")
    def _can_be_had(self) -> Regions:
        if self.blocks == AUTO and self.partition != "sbm":
            raise ValueError(
                f"has blocks {AUTO!r}, which only partition 'sbm' finds; allowed for "
                f"{self.partition!r}: {OF_HEADS}, or a number"
            )
        if self.partition == OF_HEADS and self.blocks != OF_HEADS:
            raise ValueError(f"has blocks {self.blocks!r} and heads are as many as there are")
        return self


def _given_as(value: Any) -> str:
    return "trained" if isinstance(value, dict | Trained) else "text"


#: where a dictionary is, or how it is trained; the tags keep a fault in one from being told as if
#: it were in the other
GivenDictionary = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Trained, Tag("trained")], Discriminator(_given_as)
]


class Features(Section):
    """How a set of dictionaries takes a model apart. One set is `features` itself, and
    `sweep.nodes: features` names it; several stand in it by name.

    `dictionaries`: site (`embed`, `resid3`, `attn3`, `mlp3`, or `resid*` for every layer) -> where
    its dictionary is (a file, a folder, a hub name, `identity`, `none`; `{layer}` stands for the
    layer), or how it is trained (`Trained`). `error`: what error terms are in an ablated run;
    `target`: what an edge's weight is of: the target's value in its own units, its attribution (the
    same in units of the metric), or the metric with the target alone changed. Of each input
    the `keep` largest edges are stored, of all inputs together `edges`. Target positions are split
    over `position_shards`. With `regions` its nodes are regions of features (`Regions`).
    """

    dictionaries: dict[str, GivenDictionary] = Field(default_factory=dict)
    error: Annotated[str, one_of("node", "clean", "patch", "zero")] = "node"
    target: Annotated[str, one_of(*TARGETS)] = "attribution"
    keep: Annotated[int, within(1, 10**7)] = 20000
    edges: Annotated[int, within(1, 10**8)] = 200000
    position_shards: Annotated[int, within(1, 1000)] = 1
    regions: Regions | None = None


def sets_of_features(value: Any) -> Any:
    """One set without a name is called `features`."""
    if not value:
        return {}
    named = isinstance(value, dict) and not set(value) & set(Features.model_fields)
    is_set = named and all(item is None or isinstance(item, dict) for item in value.values())
    return {k: item or {} for k, item in value.items()} if is_set else {"features": value}
