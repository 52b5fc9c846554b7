"""Other block models of the same weights, fitted by graph-tool: units parted by Fisher's z.

    model      nix             normal weights, of whose means and variances there is a prior
                               (`blockstate`)
               microcanonical  their sums and sums of squares are described besides, with no prior
    fit        flat
               nested          the blocks are described by blocks of their own, and so on; what is
                               taken is one level of these; microcanonical
    encoding   simple          each pair once, no loops, degrees are not described
               published       as in *Emerging Structures* (section 4.2): each pair twice, N loops
                               of weight 0, degree-corrected, and the second level taken
    layers     one partition for several tables of weights, of tasks or classes: every layer has
               its own means and variances (Peixoto 2015)

The first level of the published encoding has nearly a block a unit, whatever the weights: a block
of one has few weights with any other, which cost next to nothing there, and the level above
describes them. So the partition is that of the second. A nested fit of a simple graph may have
the same idle level, which `level: auto` steps over (tests/regions/test_encodings.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MODELS, FITS, ENCODINGS = ("nix", "microcanonical"), ("flat", "nested"), ("simple", "published")


@dataclass(frozen=True)
class Encoding:
    """Which block model.

    Attributes:
        model, fit, encoding: see the module.
        level: of a nested fit, 0 the lowest; "auto": the lowest that has N / 5 blocks at most.
        max_rounds, n_iter: of merge-split after the agglomeration, and of sweeps in each.

    Raises:
        ValueError: what does not go together.
    """

    model: str = "nix"
    fit: str = "flat"
    encoding: str = "simple"
    level: int | Literal["auto"] = "auto"
    max_rounds: int = 10
    n_iter: int = 10

    def __post_init__(self) -> None:
        for name, allowed in (("model", MODELS), ("fit", FITS), ("encoding", ENCODINGS)):
            if getattr(self, name) not in allowed:
                told = f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                raise ValueError(told)
        if self.fit == "nested" and self.model != "microcanonical":
            raise ValueError("fit 'nested' has model 'nix'; allowed with it: microcanonical")
        if self.encoding == "published" and self.fit != "nested":
            raise ValueError("encoding 'published' has fit 'flat'; allowed with it: nested")

    @property
    def is_ours(self) -> bool:
        """Whether the engine fits it without graph-tool (`weighted.fit_blocks`)."""
        return (self.model, self.fit, self.encoding) == ("nix", "flat", "simple")
