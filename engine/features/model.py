"""A network whose sites are read in the features of dictionaries."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.dictionaries.base import Dictionary, NoDictionary
from edgesweep.engine.graph import NodeNumbers
from edgesweep.engine.network.base import LOGITS, Inputs, Network, Site, Slopes, Value, Values


class FeatureModel:
    """A network whose sites are read in the features of dictionaries.

    Args:
        dictionaries: site -> dictionary. The network's first site is one in any case; without a
            dictionary it is one node, its error.

    Attributes:
        sites: in forward order.

    Raises:
        SiteError: a name that is no site of the network.
        ValueError: a dictionary of another width than its site's.
    """

    def __init__(self, model: Network, dictionaries: Mapping[str, Dictionary]) -> None:
        self.model = model
        self.sites: tuple[Site, ...] = model.sites.chosen(dictionaries)
        first = model.sites.first
        whole = NoDictionary(self.width(first)).to(model.device, model.dtype)
        self._dictionaries = {first: whole, **dictionaries}
        for name, dictionary in self._dictionaries.items():
            if dictionary.d_model != self.width(name):
                raise ValueError(
                    f"the dictionary of site {name} is {dictionary.d_model} wide; "
                    f"{model.name} is {self.width(name)}"
                )

    def dictionary(self, site: str) -> Dictionary:
        return self._dictionaries[site]

    def width(self, site: str) -> int:
        """Numbers of a site's value at one position."""
        return int(self.model.sites.width(site))

    def parents(self, target: str) -> tuple[Site, ...]:
        """Chosen sites that a target (a site's name, or `logits`) is computed from."""
        found: tuple[Site, ...] = self.model.sites.parents(self.sites, target)
        return found

    def all_parents(self) -> dict[str, tuple[str, ...]]:
        """The parents of every site and of the logits, as `FeatureGraph` takes them."""
        names = [site.name for site in self.sites]
        later = (*names[1:], LOGITS)
        found: dict[str, tuple[str, ...]] = {names[0]: ()}
        return found | {name: tuple(p.name for p in self.parents(name)) for name in later}

    @cached_property
    def numbers(self) -> NodeNumbers:
        """Numbers of its nodes."""
        names = [site.name for site in self.sites]
        return NodeNumbers({name: self.dictionary(name).n_features for name in names})

    def site_values(self, run: Any) -> dict[str, Value]:
        """The value of every chosen site in a run, `[inputs, positions, width]`."""
        found = self.model.site_values(run)
        return {site.name: found[site.name] for site in self.sites}

    def segment(
        self,
        target: str,
        values: Values,
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "rows positions width"] | Float[Tensor, "rows outputs"]:
        """The value of a target from its parents'; of `logits`, what the metric reads.

        Args:
            values: of at least the target's parents, `[rows, positions, width]`.
            rows: the input that each row belongs to; None: row i is input i.
        """
        found = self.model.section(self.sites, target, values, inputs, rows)
        return self.model.logits(found, inputs, rows) if target == LOGITS else found

    def pull_back(
        self, target: str, values: Values, inputs: Inputs, number: int, first: int = 0
    ) -> Slopes:
        """A target's section, linearised; see `engine.network.base.Network`."""
        return self.model.pull_back(self.sites, target, values, inputs, number, first)
