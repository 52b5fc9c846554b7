"""The section of a config on regions of interest, `sweep.nodes: rois`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, field_validator, model_validator

from edgesweep.engine.regions.encoding import ENCODINGS, FITS, LAYERS, MODELS, Encoding
from edgesweep.sweeps.config.fields import AXIS, Section, one_of, within
from edgesweep.sweeps.config.grids import grid_values

#: what `sweep.nodes` calls them, and the method that attributes their units
ROIS, METHOD = "rois", "node_ig"
#: the block model, which is always fitted; random blocks; each unit alone; clusterings
CLUSTERINGS = ("ward", "kmeans", "spectral", "spectral_svd", "cocluster")
PARTITIONS = ("sbm", "random", "singletons", *CLUSTERINGS)
#: as many blocks as the block model has
AUTO = "auto"


def _sizes(value: Any) -> Any:
    for size in value:
        if size != AUTO and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"has {size!r}; allowed: {AUTO}, or numbers of blocks, 1 or more")
    return value


def _sites(value: Any) -> Any:
    if value == AUTO:
        return value
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(site, str) and site.strip() for site in values):
        raise ValueError(f"is no list of sites; allowed: {AUTO}, or names of sites")
    if twice := next((site for i, site in enumerate(values) if site in values[:i]), None):
        raise ValueError(f"has {twice!r} twice; name each site once")
    return tuple(values)


class Rois(Section):
    """Regions of interest of a site of a network.

    `sites`: `auto`, the last before the outputs, or some. `unit`: what a site is made of, neurons,
    or channels with all places in one. `of`: what goes together over the build inputs, the units'
    attribution or activation. `target`: the class that is attributed, the one that the network
    predicts or the true label. `dead`: variance below which a unit is left out; `relative`: 1e-12
    of the median. `partition`: what is run beside each other; `blocks`: how many blocks clusterings
    and random blocks have, `auto` for as many as the block model. `chains` of the block model, of
    which the shortest is taken; `judge`: graph-tool has a look at it. `score`: a region's
    attribution is the mean or the sum of its units'. `tau`: shares of the regions that are ablated.
    `draws` of random blocks. `views`: regions of each class of which the page shows what they see.
    `model`, `fit`, `encoding`: which block model (`engine.regions.encoding`); all but the default
    are graph-tool's work, and are not judged. `level` of a nested fit, `auto` for the lowest with
    five units a block. `layers`: `class` for one block model of the units' correlations over the
    inputs of each class that is attributed, a layer a class, in place of those over all inputs.
    """

    sites: Annotated[Any, AfterValidator(_sites)] = AUTO
    unit: Annotated[str, one_of("neuron", "channel")] = "neuron"
    of: Annotated[str, one_of("attribution", "activation")] = "attribution"
    target: Annotated[str, one_of("predicted", "label")] = "predicted"
    dead: Any = "relative"
    partition: Annotated[tuple[Annotated[str, one_of(*PARTITIONS)], ...], AXIS] = PARTITIONS
    blocks: Annotated[tuple[Any, ...], AXIS, AfterValidator(_sizes)] = (AUTO,)
    chains: Annotated[int, within(1, 1000)] = 4
    model: Annotated[str, one_of(*MODELS)] = "nix"
    fit: Annotated[str, one_of(*FITS)] = "flat"
    encoding: Annotated[str, one_of(*ENCODINGS)] = "simple"
    level: Any = AUTO
    layers: Annotated[str, one_of(*LAYERS)] = "none"
    judge: bool = True
    score: Annotated[str, one_of("mean", "sum")] = "mean"
    tau: Any = grid_values({"linear": [0, 1, 20]})
    draws: Annotated[int, within(1, 1000)] = 20
    views: Annotated[int, within(0, 100)] = 1
    max_units: Annotated[int, within(2, 10**6)] = 20_000

    @field_validator("dead")
    @classmethod
    def _is_a_word_or_a_variance(cls, value: Any) -> Any:
        if value == "relative":
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ValueError("is no variance; allowed: relative, or a number, 0 or more")
        return float(value)

    @field_validator("tau")
    @classmethod
    def _are_shares(cls, value: Any) -> tuple[float, ...]:
        taus = tuple(sorted(set(grid_values(value))))
        if taus[0] < 0 or taus[-1] > 1:
            raise ValueError(f"has {taus[0] if taus[0] < 0 else taus[-1]:g}; allowed: 0 to 1")
        return taus

    @field_validator("level")
    @classmethod
    def _is_a_level(cls, value: Any) -> Any:
        if value != AUTO and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"is {value!r}; allowed: {AUTO}, or a level, 0 or more")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Rois:
        assert self.how  # it refuses what does not
        if self.layers != "none" and "sbm" not in self.partition:
            raise ValueError(
                f"layers {self.layers!r} are of the block model, and partition has no 'sbm'; "
                "allowed: a partition with 'sbm', or layers none"
            )
        return self

    @property
    def how(self) -> Encoding:
        """The block model."""
        how = self.model, self.fit, self.encoding, self.level
        return Encoding(*how, layers=self.layers)

    @property
    def cut(self) -> float | None:
        """The absolute cut of variance; None for the relative one."""
        return None if self.dead == "relative" else float(self.dead)

    @property
    def asked(self) -> tuple[int, ...]:
        """Numbers of blocks, 0 for as many as the block model has."""
        return tuple(0 if size == AUTO else size for size in self.blocks)
