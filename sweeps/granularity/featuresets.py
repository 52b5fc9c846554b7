"""From `features` in a config to the sites of a model and their dictionaries.

Dictionaries that are there are read once, for their size and digest; those that the run trains are
known by how they are trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgesweep.engine.dictionaries.base import DictionaryError
from edgesweep.engine.dictionaries.files import load_dictionary
from edgesweep.engine.graph import FeatureGraph, NodeNumbers
from edgesweep.engine.model import ModelSource
from edgesweep.engine.network.base import LOGITS, SiteError, Sites
from edgesweep.sweeps.config.features import BASES, BY_INTERACTION, Features, Trained
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.interactions.graphs import skeleton
from edgesweep.sweeps.plan.canonical import digest

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config


@dataclass(frozen=True)
class SiteDictionary:
    """The dictionary of one site.

    Attributes:
        site: its name.
        source: where it is; "" where the run trains it.
        trained: how it is trained; None where it is there.
        n_features: its size.
        digest: of its numbers, or of how they are made.
        width: of the site.
        end: of a basis by what acts on what, the later site that it is to act on, or `logits`; "".
        end_key: of that site's dictionary, which is made before; "" where there is none.
    """

    site: str
    source: str
    trained: Trained | None
    n_features: int
    digest: str
    width: int
    end: str = ""
    end_key: str = ""

    @property
    def key(self) -> str:
        return f"{self.site}-{self.digest[:10]}"


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The chosen sites of one model.

    Attributes:
        model: label of the model.
        dictionaries: of every site, in forward order.
        parents: for every site and `logits`, the sites that it is computed from.
        settings: what the config says of it.
    """

    model: str
    dictionaries: tuple[SiteDictionary, ...]
    parents: Mapping[str, tuple[str, ...]]
    settings: Features
    kind: ClassVar[type[FeatureGraph]] = FeatureGraph

    @cached_property
    def digest(self) -> str:
        return digest(self.identity)[:10]

    @property
    def identity(self) -> list[Any]:
        """What its nodes hang on."""
        sites = [(d.site, d.digest) for d in self.dictionaries]
        return [self.model, self.settings.error, sites]

    @property
    def sizes(self) -> dict[str, int]:
        """Nodes of each site, its error apart."""
        return {d.site: d.n_features for d in self.dictionaries}

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(d.site for d in self.dictionaries)

    @cached_property
    def numbers(self) -> NodeNumbers:
        """Numbers of its nodes."""
        return NodeNumbers(self.sizes)

    @property
    def n_nodes(self) -> int:
        """Nodes that write: all but the logits."""
        return self.numbers.logits

    @cached_property
    def n_edges_possible(self) -> int:
        """Edges that the sites allow among all nodes of their dictionaries, whatever was found; of
        error terms where they are nodes."""
        errors = self.settings.error == "node"
        return self.n_edges_among({site: n + errors for site, n in self.sizes.items()})

    def n_edges_among(self, sizes: Mapping[str, int]) -> int:
        """Edges that the sites allow among so many nodes of each and the logits."""
        n = {**sizes, LOGITS: 1}
        return sum(n[p] * n[site] for site, of in self.parents.items() for p in of)

    def trained(self) -> Iterator[SiteDictionary]:
        """Those that the run trains."""
        return (d for d in self.dictionaries if d.trained is not None)

    def graph(self, source: np.ndarray, target: np.ndarray) -> FeatureGraph:
        """The graph of the edges between these numbered nodes.

        Its edges are ordered by target, then source, which is the order of the numbers.
        """
        nodes = np.unique(np.concatenate([source, target]))
        return self._graph(nodes, np.stack([source, target], axis=1))

    def complete_graph(self, nodes: np.ndarray) -> FeatureGraph:
        """The graph of all edges among these numbered nodes and the logits."""
        return self.kind.complete(self.parents, self.numbers.by_site(np.unique(nodes)))

    def _graph(self, nodes: np.ndarray, pairs: np.ndarray) -> FeatureGraph:
        nodes = nodes[nodes < self.n_nodes]
        places = np.searchsorted(np.append(nodes, self.n_nodes), pairs)
        return self.kind(self.parents, self.numbers.by_site(nodes), places)


def feature_set(
    config: Config, name: str, label: str, source: ModelSource, prompts: Sequence[str]
) -> FeatureSet:
    """The sites of a model as a config chooses them.

    Args:
        name: of the set, in the config.
        prompts: fingerprints of the model's tasks, on whose prompts dictionaries are trained.

    Raises:
        ConfigError: no dictionary, a site that the model lacks, a dictionary that cannot be read.
    """
    settings, sites = config.features[name], source.sites
    try:
        given = _per_site(settings.dictionaries, sites)
        chosen = sites.chosen(given)
    except SiteError as error:
        raise ConfigError(f"features.dictionaries: {error}") from None
    names = [site.name for site in chosen]
    _check_spelling(given, names, sites)
    if not given:
        raise ConfigError(
            "features.dictionaries: is empty; nodes 'features' need the dictionary of one site at "
            "least, as in {resid3: ./dictionaries/resid3} or {resid*: {kind: topk}}"
        )
    parents: dict[str, tuple[str, ...]] = {names[0]: ()}
    for name in (*names[1:], LOGITS):
        parents[name] = tuple(p.name for p in sites.parents(chosen, name))
    _check_cuts(given, source)
    made: dict[str, SiteDictionary] = {}
    bases = [name for name in names if _is_by_interaction(given.get(name))]
    for name in (n for n in names if n not in bases):
        made[name] = _dictionary(name, given.get(name, "none"), config, source, prompts)
    for name in reversed(bases):  # after those that they are to act on
        what = given[name]
        assert isinstance(what, Trained)
        of_kind = [d for d in made.values() if d.trained and d.trained.kind == what.kind == "lib"]
        end = (of_kind[-1].site, of_kind[-1].key) if of_kind else (LOGITS, "")
        made[name] = _dictionary(name, what, config, source, prompts, end)
    return FeatureSet(label, tuple(made[name] for name in names), parents, settings)


def _is_by_interaction(given: str | Trained | None) -> bool:
    return isinstance(given, Trained) and given.kind in BY_INTERACTION


def _check_cuts(given: Mapping[str, str | Trained], source: ModelSource) -> None:
    """What acts on what is told between cuts, and to logits that are a map of a normed stream."""
    for name, what in given.items():
        if not isinstance(what, Trained) or what.kind not in BY_INTERACTION:
            continue
        if name not in skeleton(source).widths:
            raise ConfigError(
                f"features.dictionaries.{name}: kind {what.kind!r} is of sites through which all "
                "of the network runs, such as embed and resid0; allowed here: pca, topk, relu"
            )
        if getattr(source.config, "final_logit_softcapping", None) is not None:
            raise ConfigError(
                f"features.dictionaries.{name}: kind {what.kind!r} takes logits that are linear in "
                f"the normed stream, and those of {source.name!r} are soft-capped; allowed: pca"
            )


def _check_spelling(given: Mapping[str, str | Trained], chosen: list[str], sites: Sites) -> None:
    """A site has one name, or its dictionary would be looked up under another and not be found."""
    for name in given:
        if name not in chosen:
            site = sites.named(name)[0]
            raise ConfigError(f"features.dictionaries: {name!r} is no site; write {site}")


def _per_site(given: Mapping[str, str | Trained], sites: Sites) -> dict[str, str | Trained]:
    """`resid*` for every layer that has no entry of its own; `{layer}` filled in."""
    found: dict[str, str | Trained] = {}
    for name, what in given.items():
        starred = "*" in name
        for site in sites.named(name) if starred else [name]:
            if starred and site in given:
                continue
            number = re.sub(r"\D", "", site)
            found[site] = what.replace("{layer}", number) if isinstance(what, str) else what
    return found


def _dictionary(
    site: str,
    given: str | Trained,
    config: Config,
    source: ModelSource,
    prompts: Sequence[str],
    end: tuple[str, str] | None = None,
) -> SiteDictionary:
    width = source.sites.width(site)
    if isinstance(given, Trained):
        size = min(width, given.features) if given.kind in BASES else given.features
        if given.kind == "topk" and given.k > size:
            raise ConfigError(
                f"features.dictionaries.{site}: k is {given.k} of {size} features; allowed: 1 to "
                f"{size}"
            )
        told = given.model_dump(mode="json", exclude=set() if end else {"jacobians", "sources"})
        made = [source.digest, told, list(prompts), config.seed]
        made += [*end, config.bases.cut.model_dump(mode="json")] if end else []
        return SiteDictionary(site, "", given, size, digest(made), width, *(end or ()))
    try:
        dictionary = load_dictionary(given, d_model=width)
    except DictionaryError as error:
        raise ConfigError(f"features.dictionaries.{site}: {error}") from None
    if dictionary.d_model != width:
        raise ConfigError(
            f"features.dictionaries.{site}: {given!r} is a dictionary of {dictionary.d_model} "
            f"numbers; {source.path} has {width}"
        )
    return SiteDictionary(site, given, None, dictionary.n_features, dictionary.digest, width)
