"""Which interaction graphs a run has: frozen values, whose keys are made of their contents
alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from edgesweep.engine.bases.chain import Chain
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.jacobians import is_closed
from edgesweep.engine.model.kinds import kind_of
from edgesweep.engine.network.base import LOGITS, SiteError
from edgesweep.sweeps.config.fields import INTERACTIONS, ConfigError, did_you_mean
from edgesweep.sweeps.plan.canonical import digest, slug

if TYPE_CHECKING:
    from edgesweep.engine.model import ModelSource
    from edgesweep.sweeps.config.load import Config

#: outputs that can be nodes each by itself
MOST_LOGITS = 4096


@dataclass(frozen=True)
class Layered:
    """Node layers of a model on a task's prompts.

    Attributes:
        model, task: labels. dataset: key of the prompts.
        layers: in forward order, with their widths.
        mixing: of each section, whether a position reads others.
        closed: of each section, whether its Jacobian's second moment has a closed form.
        closed_to_end: the same of what lies from each layer to the last.
        rotate_last: whether the last layer has a basis of its own.
        norms, positions: see `engine.bases.cuts.chain_of`.
        isolated: layers whose first coordinate, a norm's variance, is a direction by itself.
        aliases: what the published code calls each layer.
        shares: of each section, its share of the network's pieces.
    """

    model: str
    task: str
    dataset: str
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    mixing: tuple[bool, ...]
    closed: tuple[bool, ...]
    closed_to_end: tuple[bool, ...]
    rotate_last: bool
    norms: str
    positions: str
    isolated: tuple[str, ...]
    aliases: tuple[str, ...]
    shares: tuple[float, ...]

    @cached_property
    def key(self) -> str:
        return f"{self.dataset}.{digest(asdict(self))[:8]}"

    @property
    def layers_of(self) -> Layered:
        """Itself: what a basis and a graph are of."""
        return self

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        return tuple(pairwise(self.layers))

    def following(self, layer: str) -> str:
        """The next layer."""
        return self.layers[self.layers.index(layer) + 1]

    @property
    def rotated(self) -> tuple[str, ...]:
        """The layers that have bases."""
        return self.layers if self.rotate_last else self.layers[:-1]

    def width(self, layer: str) -> int:
        return self.widths[self.layers.index(layer)]

    def share(self, start: str, end: str) -> float:
        """How much of the network lies between two layers."""
        return sum(self.shares[self.layers.index(start) : self.layers.index(end)])

    def needs_sums(self, layer: str) -> bool:
        """Whether any basis takes the closed form of what follows a layer."""
        place = self.layers.index(layer)
        return any(of[place : place + 1] == (True,) for of in (self.closed, self.closed_to_end))

    def apart(self, layer: str) -> int | None:
        """The coordinate that is a direction by itself."""
        return 0 if layer in self.isolated else None


@dataclass(frozen=True)
class BasisOf:
    """One kind of basis, lib, gib or pca, of all layers."""

    of: Layered
    kind: str

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.of.key}"

    @property
    def layers_of(self) -> Layered:
        return self.of

    def end(self, layer: str) -> str:
        """The layer by whose directions a layer's importance is measured."""
        return self.of.layers[-1] if self.kind == "gib" else self.of.following(layer)

    def is_sampled(self, layer: str) -> bool:
        """Whether it takes vector-Jacobian products."""
        if self.kind == "pca" or layer == self.of.layers[-1]:
            return False
        closed = self.of.closed_to_end if self.kind == "gib" else self.of.closed
        return not closed[self.of.layers.index(layer)]


@dataclass(frozen=True)
class Graph:
    """The interactions in a basis, by so many steps of a rule."""

    basis: BasisOf
    steps: int
    rule: str

    @cached_property
    def key(self) -> str:
        return f"{self.basis.kind}-{digest([self.basis.key, self.steps, self.rule])[:10]}"

    @property
    def of(self) -> Layered:
        return self.basis.of

    @property
    def layers_of(self) -> Layered:
        return self.basis.of

    @property
    def kind(self) -> str:
        return self.basis.kind

    def total(self, start: str) -> int:
        """What the published search of a section starts from: sizes before any cut, with the
        constants."""
        of, end = self.of, self.of.following(start)
        return (of.width(start) + 1) * (of.width(end) + (end in of.rotated))

    @property
    def columns(self) -> dict[str, Any]:
        """As rows of tables tell it."""
        of = self.of
        told = {"graph": self.key, "model": of.model, "task": of.task, "basis": self.kind}
        return told | {"steps": self.steps, "rule": self.rule}

    def as_dict(self) -> dict[str, Any]:
        """As plan.json holds it."""
        of = self.of
        return {
            "key": self.key,
            "basis": self.basis.kind,
            "bases": self.basis.key,
            "model": of.model,
            "task": of.task,
            "dataset": of.dataset,
            "layers": list(of.layers),
            "widths": list(of.widths),
            "rotated": list(of.rotated),
            "aliases": list(of.aliases),
            "steps": self.steps,
            "rule": self.rule,
        }


def graphs_of(config: Config, models: dict[str, Any], datasets: Any) -> tuple[Graph, ...]:
    """All interaction graphs that a config asks for. Raises ConfigError."""
    if not config.bases_of:
        return ()
    sweep = config.sweep
    if "trapezoid" in sweep.rule and 1 in sweep.steps:
        raise ConfigError(
            "sweep.steps: 1 is too few for rule 'trapezoid', which has both ends; allowed: 2 or "
            f"more, or another rule ({INTERACTIONS!r} as published: steps 1, rule right)"
        )
    wanted, n = config.bases.n_jacobian, config.data.n_build
    if wanted != "all" and wanted > n:
        raise ConfigError(f"bases.n_jacobian: {wanted}, of {n} build prompts; allowed: at most {n}")
    layered = [_layered(config, models[d.model].source, d) for d in datasets]
    return tuple(
        Graph(BasisOf(of, kind), steps, rule)
        for of in layered
        for kind in config.bases_of
        for steps in sweep.steps
        for rule in sweep.rule
    )


def _layered(config: Config, source: ModelSource, dataset: Any) -> Layered:
    bases = config.bases
    chain = skeleton(source, bases.norms, bases.positions)
    names = _layers(config, chain, source.name)
    pairs = list(pairwise(names))
    sections = [chain.section(*pair) for pair in pairs]
    mixing = tuple(section.mixes for section in sections)
    if bases.sources and not any(mixing):
        raise ConfigError(
            f"bases.sources: {bases.sources}, and no section of {source.name!r} mixes "
            "positions; allowed: 0"
        )
    last = bases.rotate_last
    isolated = chain.variances if bases.isolate else frozenset[str]()
    of = Layered(
        dataset.model,
        dataset.task,
        dataset.key,
        names,
        tuple(chain.widths[name] for name in names),
        mixing,
        tuple(map(is_closed, sections)),
        tuple(is_closed(chain.section(name, names[-1])) for name in names[:-1]),
        names[-1] != LOGITS if last == "auto" else bool(last),
        bases.norms,
        bases.positions,
        tuple(name for name in names if name in isolated),
        tuple(chain.aliases[name] for name in names),
        tuple(len(section.pieces) / len(chain.pieces) for section in sections),
    )
    _check_last(of)
    _check_rank(chain, of, dataset)
    _check_followed(config, of, dataset)
    return of


def _layers(config: Config, chain: Chain, model: str) -> tuple[str, ...]:
    """The chosen cuts. Raises ConfigError."""
    cuts, wanted = list(chain.widths), config.bases.layers
    if wanted == "auto":
        return tuple(cuts[:-1] if chain.widths[cuts[-1]] > MOST_LOGITS else cuts)
    for name in wanted:
        if name not in cuts:
            raise ConfigError(
                f"bases.layers: {name!r} is no cut of {model!r}; allowed: {', '.join(cuts)}"
                + did_you_mean(name, cuts)
            )
    places = [cuts.index(name) for name in wanted]
    if places != sorted(places):
        ordered = ", ".join(cuts[place] for place in sorted(places))
        raise ConfigError(f"bases.layers: {list(wanted)} are not in forward order; give {ordered}")
    return tuple(wanted)


def _check_last(of: Layered) -> None:
    """Interactions with each of so many logits are no graph."""
    if of.layers[-1] not in of.rotated and of.widths[-1] > MOST_LOGITS:
        raise ConfigError(
            f"bases.layers: {of.layers[-1]!r} of {of.model!r} has {of.widths[-1]:,} outputs, each "
            f"a node by itself; allowed: at most {MOST_LOGITS:,}, or layers that end before it"
        )


def _check_rank(chain: Chain, of: Layered, dataset: Any) -> None:
    """Fewer vectors than their width have no full second moment."""
    for name in of.rotated:
        once = chain.is_read(name)
        n = sum(1 if once else len(p) for p in dataset.data.build)
        if n < of.width(name):
            raise ConfigError(
                f"data.n_build: {len(dataset.data.build)} prompts give {n} vectors at {name!r}, "
                f"whose width is {of.width(name)}: its second moment would have rank {n}; allowed: "
                f"enough for {of.width(name)} vectors"
            )


def _check_followed(config: Config, of: Layered, dataset: Any) -> None:
    """At all positions nll is that of next tokens, of which there must be some."""
    if of.positions == "all" and config.edges_needed.metric == "nll" and dataset.length < 2:
        raise ConfigError(
            f"edges_needed.metric: nll at all positions is of next tokens, and a prompt of "
            f"{of.task!r} is one token; allowed: accuracy, or bases.positions read"
        )


@lru_cache(maxsize=8)
def skeleton(source: ModelSource, norms: str = "whole", positions: str = "read") -> Chain:
    """The network's pieces, without its numbers."""
    config = source.config
    kind = kind_of(config)
    with torch.device("meta"):
        hf = kind.auto.from_config(config, trust_remote_code=False)
    try:
        return chain_of(kind.network(hf, source.name, None), norms, positions)
    except SiteError as error:
        raise ConfigError(f"sweep.nodes: {source.name!r}: {error}") from None


def layer_of(name: str) -> str:
    """A layer as part of a file name."""
    return slug(name)
