"""A network as a chain of pieces between cuts, and of sections between node layers.

A *cut* is a tensor that everything later is computed from; a *node layer* is a chosen cut, and a
*section* the pieces from one to the next. `cuts` makes the chain of a network. Unless all positions
are asked for, a cut that no later piece mixes over positions is read at the position of the answer
alone: what lies elsewhere acts on nothing that is measured there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool
from torch import Tensor, nn

from edgesweep.engine.bases.attention import Attention
from edgesweep.engine.bases.constant import Constant, folded
from edgesweep.engine.bases.forms import Form
from edgesweep.engine.network.base import Inputs, Value

Rows = Tensor | None
Step = Callable[[Value, Inputs, Rows], Value]


@dataclass(frozen=True)
class Piece:
    """What lies between two neighbouring cuts.

    Attributes:
        end: the cut after it, of that width.
        run: from the cut before it.
        mixes: whether a position reads others.
        form: its closed form, where it has one.
        attention: it, where it is a layer's.
        alias: what the published code calls its end.
        variance: whether the first coordinate of its end is the variance that a norm divides by.
    """

    end: str
    width: int
    run: Step
    mixes: bool = False
    form: Form | None = None
    attention: Attention | None = None
    alias: str = ""
    variance: bool = False


@dataclass(frozen=True, eq=False)
class Chain:
    """A network as pieces.

    Attributes:
        hf: the module whose biases are folded.
        prepare: see `engine.network.base.Network`.
        first, width, alias: its first cut, and what the published code calls it.
        everywhere: whether all cuts are read at all positions.
    """

    hf: nn.Module
    prepare: Callable[[Tensor, Bool[Tensor, "inputs positions"]], Inputs]
    first: str
    width: int
    pieces: tuple[Piece, ...]
    alias: str = ""
    everywhere: bool = False

    @cached_property
    def widths(self) -> dict[str, int]:
        """Of all cuts, in forward order."""
        return {self.first: self.width} | {piece.end: piece.width for piece in self.pieces}

    @property
    def aliases(self) -> dict[str, str]:
        """What the published code calls each cut; empty: it has none like it."""
        return {self.first: self.alias} | {piece.end: piece.alias for piece in self.pieces}

    @property
    def variances(self) -> frozenset[str]:
        """The cuts whose first coordinate is a norm's variance."""
        return frozenset(piece.end for piece in self.pieces if piece.variance)

    def section(self, start: str, end: str) -> Section:
        """The pieces from one cut to a later one."""
        names = list(self.widths)
        return Section(self, start, end, self.pieces[names.index(start) : names.index(end)])

    def is_read(self, name: str) -> bool:
        """Whether a cut is read at the position of the answer alone."""
        later = self.pieces[list(self.widths).index(name) :]
        return not self.everywhere and not any(piece.mixes for piece in later)

    def start(self, inputs: Inputs) -> Value:
        """The first cut's value."""
        return narrowed(inputs.embed, inputs) if self.is_read(self.first) else inputs.embed

    def real(self, name: str, inputs: Inputs) -> Bool[Tensor, "inputs positions"]:
        """Which positions of a cut's value are of the input."""
        return inputs.real[:, :1] | True if self.is_read(name) else inputs.real


@dataclass(frozen=True, eq=False)
class Section:
    """The function from one cut to another."""

    chain: Chain
    start: str
    end: str
    pieces: tuple[Piece, ...]

    @property
    def attention(self) -> Attention | None:
        """What it is, if that is one layer's attention."""
        return self.pieces[0].attention if len(self.pieces) == 1 else None

    @property
    def mixes(self) -> bool:
        return any(piece.mixes for piece in self.pieces)

    def __call__(
        self, f: Value, inputs: Inputs, rows: Rows = None, c: Constant | None = None
    ) -> Value:
        """`[rows, positions, width]` of its end.

        Args:
            rows: the input that each row belongs to; None: row i is input i.
            c: the folded constant at each row and position; None: 1.
        """
        for piece in self.pieces:
            with folded(self.chain.hf, c):
                f = piece.run(f, inputs, rows)
            if piece.mixes and self.chain.is_read(piece.end):
                f = narrowed(f, inputs, rows)
                c = None if c is None else narrowed(c, inputs, rows)
        return f


def narrowed(value: Value, inputs: Inputs, rows: Rows = None) -> Value:
    """A value at the position of each answer, `[rows, 1, width]`."""
    return inputs.at_read(value, rows)[:, None]
