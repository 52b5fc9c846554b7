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
    layers     none
               class     one partition for several tables of weights, one a class: every layer has
                         means and variances of its own, with a prior in common, so that Σ is the
                         sum of the layers' ln P but for a constant (Peixoto 2015;
                         tests/regions/test_layers.py); flat

The first level of the published encoding has nearly a block a unit, whatever the weights: a block
of one has few weights with any other, which cost next to nothing there, and the level above
describes them. So the partition is that of the second. A nested fit of a simple graph may have
the same idle level, which `level: auto` steps over (tests/regions/test_encodings.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MODELS, FITS, ENCODINGS = ("nix", "microcanonical"), ("flat", "nested"), ("simple", "published")
LAYERS = ("none", "class")


@dataclass(frozen=True)
class Encoding:
    """Which block model.

    Attributes:
        model, fit, encoding, layers: see the module.
        level: of a nested fit, 0 the lowest; "auto": the lowest that has N / 5 blocks at most.
        max_rounds, n_iter: of merge-split after the agglomeration, and of sweeps in each.

    Raises:
        ValueError: what does not go together.
    """

    model: str = "nix"
    fit: str = "flat"
    encoding: str = "simple"
    level: int | Literal["auto"] = "auto"
    layers: str = "none"
    max_rounds: int = 10
    n_iter: int = 10

    def __post_init__(self) -> None:
        words = {"model": MODELS, "fit": FITS, "encoding": ENCODINGS, "layers": LAYERS}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                told = f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                raise ValueError(told)
        if self.fit == "nested" and self.model != "microcanonical":
            raise ValueError("fit 'nested' has model 'nix'; allowed with it: microcanonical")
        if self.encoding == "published" and self.fit != "nested":
            raise ValueError("encoding 'published' has fit 'flat'; allowed with it: nested")

        if self.layers != "none" and self.fit == "nested":
            raise ValueError(f"layers {self.layers!r} has fit 'nested'; allowed with it: flat")

    @property
    def is_ours(self) -> bool:
        """Whether the engine fits it without graph-tool (`weighted.fit_blocks`)."""
        told = self.model, self.fit, self.encoding, self.layers
        return told == ("nix", "flat", "simple", "none")
