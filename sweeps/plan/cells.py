"""Values that name the work: cells, circuits, conditions, blocks of inputs.

All are frozen; keys are made of their contents alone, so nothing is ever found by position.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from edgesweep.storage import layout
from edgesweep.sweeps.plan.canonical import digest, number


@dataclass(frozen=True)
class Cell:
    """One attribution: a point of the product of the sweep's axes.

    Attributes:
        model, task: labels, as in results.
        dataset: key of the prompts (of the model's digest and the prompts' fingerprint).
        steps, tau, seed: None where the method takes none.
        rule: the quadrature rule; "" where the method has none.
        n_top, n_random: how many edges are looked at, EAP's first and others; None and 0 for all.
        features: digest of the sites and dictionaries of a cell over features; "" over heads.
        target: what an edge into a feature is of; "" over heads and of methods that score nodes.
        keep: of each input, the largest edges that are stored; None where all are.
    """

    model: str
    task: str
    dataset: str
    nodes: str
    method: str
    steps: int | None
    build_patch: str
    build_metric: str
    rule: str = ""
    tau: float | None = None
    seed: int | None = None
    n_top: int | None = None
    n_random: int = 0
    features: str = ""
    target: str = ""
    keep: int | None = None

    @cached_property
    def key(self) -> str:
        return f"{self.method}-{digest(self.identity)[:10]}"

    @property
    def identity(self) -> dict[str, Any]:
        """What its key and seeds of its own are made of: a field more would change them, so what
        few cells have stands in a class of its own."""
        return asdict(self)

    @property
    def is_sparse(self) -> bool:
        """Whether its scores are lists of edges; which edges there are, the scores say."""
        return self.keep is not None

    @property
    def candidates(self) -> str:
        """The edges that are looked at, in words."""
        if self.n_top is None:
            return "all"
        return f"{self.n_top} of eap" + (f" + {self.n_random} random" if self.n_random else "")

    @property
    def source(self) -> str:
        """What its means and references are of: its prompts, and over features its graph."""
        return layout.source(self.dataset, self.features)

    @property
    def is_refined(self) -> bool:
        """Whether another cell's scores say which edges are looked at."""
        return self.n_top is not None

    @property
    def has_candidates(self) -> bool:
        """Whether it is noted which edges are looked at."""
        return self.is_refined

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, **asdict(self), "candidates": self.candidates}


@dataclass(frozen=True)
class GivenCell(Cell):
    """A circuit that was given, as a search would leave it: what scores above τ = 0.

    Attributes:
        given: its name.
        edges: digest of its edges.
    """

    given: str = ""
    edges: str = ""

    @property
    def has_candidates(self) -> bool:
        return True


@dataclass(frozen=True)
class CircuitSpec:
    """How a cell's aggregated scores become a circuit."""

    cell: str
    aggregation: str
    selection: str
    threshold: float

    @property
    def key(self) -> str:
        point = f"{self.aggregation}-{self.selection}-{number(self.threshold)}"
        return f"{self.cell}-{point}"

    @property
    def point(self) -> dict[str, Any]:
        """As columns of tables."""
        return {k: v for k, v in asdict(self).items() if k != "cell"}


@dataclass(frozen=True)
class Part:
    """Which part of a circuit is run: all of it, what is left `without` the blocks of a task or
    with `only` these, or its `complement`, the model without the circuit. Of what is drawn at
    random: the first two with `random_blocks`, and `rewired` circuits (`stages.drawn`)."""

    mode: Literal["all", "without", "only", "complement", "random_blocks", "rewired"] = "all"
    task: str = ""

    def __str__(self) -> str:
        return f"{self.mode}:{self.task}" if self.task else self.mode


@dataclass(frozen=True)
class Condition:
    """How a circuit is run: what is ablated, with which patch, and which part of it is left."""

    ablation: str
    eval_patch: str
    part: Part = Part()

    @property
    def is_plain_edge(self) -> bool:
        """Edge ablation of whole circuits."""
        return self.ablation == "edge" and self.part == Part()

    @property
    def key(self) -> str:
        left = "" if self.part == Part() else f".{str(self.part).replace(':', '-')}"
        return f"{self.ablation}.{self.eval_patch}{left}"


@dataclass(frozen=True, slots=True)
class Rows:
    """A block of inputs of one split, all of one member task."""

    member: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.start:06d}"
