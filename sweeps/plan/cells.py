"""Values that name the work: cells, circuits, conditions, and the shards of every stage.

All are frozen; keys are made of their contents alone, so nothing is ever found by position. A shard
is what an executor hands to a worker: small, and it says all that the worker needs to look up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgesweep.storage import layout
from edgesweep.sweeps.plan.canonical import digest, number, slug


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

    @property
    def key(self) -> str:
        return f"{self.method}-{digest(asdict(self))[:10]}"

    @property
    def source(self) -> str:
        """What its means and references are of."""
        return layout.source(self.dataset, self.features)

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
    def is_refined(self) -> bool:
        """Whether another cell's scores say which edges are looked at."""
        return self.n_top is not None

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, **asdict(self), "candidates": self.candidates}


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


@dataclass(frozen=True)
class Condition:
    """How a circuit is run: what is ablated, with which patch, and which of its blocks are left.

    `blocks` is `all`, `without:ioi`, `only:ioi`, or `complement`: the model without the circuit.
    """

    ablation: str
    eval_patch: str
    blocks: str = "all"

    @property
    def needs_fit(self) -> bool:
        """Whether a block model says which edges are left: none before it is fitted."""
        return self.blocks not in ("all", "complement")

    @property
    def selected(self) -> str:
        """The stored mask that it begins with: of a complement, the circuit's."""
        return self.blocks if self.needs_fit else "all"

    @property
    def key(self) -> str:
        left = "" if self.blocks == "all" else f".{self.blocks.replace(':', '-')}"
        return f"{self.ablation}.{self.eval_patch}{left}"


@dataclass(frozen=True)
class Rows:
    """A block of inputs of one split, all of one member task."""

    member: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.start:06d}"


@dataclass(frozen=True)
class DictionaryShard:
    """The training of one site's dictionary. `digest` is of how it is made."""

    model: str
    site: str
    digest: str
    stage = "dictionaries"

    @property
    def key(self) -> str:
        return f"{self.site}-{self.digest[:10]}"


@dataclass(frozen=True)
class MeanShard:
    """The mean that stands in for the prompts of one group: of every source, or, with `features`
    (their digest), of every feature and error term."""

    dataset: str
    group: str
    index: int
    features: str = ""
    stage = "means"

    @property
    def key(self) -> str:
        return f"{self.source}.{self.index:04d}-{slug(self.group)}"

    @property
    def source(self) -> str:
        """The values that it is a mean of."""
        return layout.source(self.dataset, self.features)


@dataclass(frozen=True)
class AttributeShard:
    """Scores of a block of inputs; `index` counts the cell's shards. Of `blocks` ranges of target
    positions it has the `block`-th."""

    cell: Cell
    rows: Rows
    index: int
    block: int = 0
    blocks: int = 1

    @property
    def stage(self) -> str:
        return "refine" if self.cell.is_refined else "attribute"

    @property
    def key(self) -> str:
        part = "" if self.blocks == 1 else f".{self.block:03d}"
        return f"{self.cell.key}.{self.rows.key}{part}"


@dataclass(frozen=True)
class ReduceShard:
    """The fold of a cell's partials over one subset of its shards; `leaves` are their keys."""

    cell: Cell
    subset: str
    leaves: tuple[str, ...]

    @property
    def stage(self) -> str:
        return "reduce_refined" if self.cell.is_refined else "reduce"

    @property
    def leaf_stage(self) -> str:
        return "refine" if self.cell.is_refined else "attribute"

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.subset}"

    @property
    def group(self) -> str:
        """Its folder in aggregates.zarr."""
        return self.cell.key if self.subset == "all" else f"{self.cell.key}/{self.subset}"


@dataclass(frozen=True)
class ReferenceShard:
    """The full model and the empty circuit on a block of inputs; with `features` (their digest),
    the full and the empty graph over features."""

    dataset: str
    eval_patch: str
    rows: Rows
    features: str = ""
    stage = "evaluate"

    @property
    def key(self) -> str:
        return f"reference.{self.source}.{self.eval_patch}.{self.rows.key}"

    @property
    def source(self) -> str:
        """The graph and the prompts that it is of."""
        return layout.source(self.dataset, self.features)


@dataclass(frozen=True)
class EvaluateShard:
    """Some circuits of one cell under one condition on a block of inputs.

    `index` counts the groups of circuits of the cell.
    """

    cell: Cell
    circuits: tuple[str, ...]
    index: int
    condition: Condition
    rows: Rows

    @property
    def stage(self) -> str:
        return "block_evaluate" if self.condition.needs_fit else "evaluate"

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.index:03d}.{self.condition.key}.{self.rows.key}"


@dataclass(frozen=True)
class BlockShard:
    """One chain of the block model of a cell's circuit; which circuit, the scores decide.

    `patch` is the evaluation patch whose pruning makes the fitted graph.
    """

    cell: Cell
    chain: int
    seed: int
    patch: str
    circuit: str = ""
    stage = "blocks"

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.chain:03d}"


@dataclass(frozen=True)
class ProbeShard:
    """Single edges of one cell on a block of inputs.

    `kind` is `minimality`: every edge of a circuit is taken out of it in turn, under `patch`; or
    `interpolation`: some edges of the full model move from clean to patch.
    """

    cell: Cell
    kind: str
    patch: str
    rows: Rows
    stage = "probe"

    @property
    def split(self) -> str:
        return "eval" if self.kind == "minimality" else "build"

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.kind}.{self.patch}.{self.rows.key}"


@dataclass(frozen=True)
class BootstrapShard:
    """How far a cell's mean scores and their ranking would move with other inputs.

    `leaves` are the keys of its attribution shards, `members` the inputs of each member task.
    """

    cell: Cell
    leaves: tuple[str, ...]
    members: tuple[tuple[int, int], ...]
    stage = "bootstrap"

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def leaf_stage(self) -> str:
        return "refine" if self.cell.is_refined else "attribute"


Shard = (
    DictionaryShard
    | MeanShard
    | AttributeShard
    | ReduceShard
    | ReferenceShard
    | EvaluateShard
    | ProbeShard
    | BootstrapShard
    | BlockShard
)

#: in the order in which they run; those of one row may run at once
WAVES: tuple[tuple[str, ...], ...] = (
    ("dictionaries",),
    ("means",),
    ("attribute",),
    ("reduce",),
    ("refine",),
    ("reduce_refined",),
    ("blocks", "evaluate", "probe", "bootstrap"),
    ("block_evaluate",),
)
STAGES = tuple(stage for wave in WAVES for stage in wave)
