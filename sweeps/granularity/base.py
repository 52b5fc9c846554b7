"""What a kind of nodes is: how a model is taken apart, and all that hangs on it.

A config names ways to take a model apart (`sweep.nodes`): `heads`, or sets of dictionaries. Its
`Kind` checks the config and makes, of each model, its `Nodes`: a small value that a plan asks for
sizes and a worker for numbers. What stages do is the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from edgesweep.engine.graph import Graph
    from edgesweep.engine.graph.circuits import CircuitStats, EdgeMask
    from edgesweep.engine.methods import Passes as MethodPasses
    from edgesweep.engine.methods import Settings
    from edgesweep.engine.network import PromptBatch
    from edgesweep.engine.patches import MeanPartial
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.featuresets import SiteDictionary
    from edgesweep.sweeps.granularity.regionsets import RegionSet
    from edgesweep.sweeps.granularity.words import Words
    from edgesweep.sweeps.plan.cells import Cell, Condition
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset, ResolvedModel
    from edgesweep.sweeps.stages.attribute import AttributeShard
    from edgesweep.sweeps.stages.base import Passes
    from edgesweep.tasks import Example

#: values of one batch, inputs last, by name
ByName = dict[Any, "np.ndarray"]
Measure = Callable[["PromptBatch"], ByName]


class Nodes(Protocol):
    """One model taken apart in one way.

    Attributes:
        digest: what cells, means and references are known by; "" for heads.
        error: what error terms are in an ablated run; "node" where there are none.
        same_in_all_cells: whether its edges are those of the architecture, so that cells can be
            compared edge by edge, resampled and costed; else its scores say which there are.
        distances: what a reference says beside metrics, as (side, name).
        n_nodes: nodes that write.
        max_edges: edges of its graph, or a bound on them.
        words: how pages speak of them.
        position_shards: ranges of target positions, where scores are lists.
        parted: how features are parted, where nodes are regions of them.
    """

    @property
    def digest(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def same_in_all_cells(self) -> bool: ...
    @property
    def distances(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def methods(self) -> Collection[str]:
        """Those that attribute them."""

    @property
    def n_nodes(self) -> int: ...
    @property
    def max_edges(self) -> int: ...
    @property
    def position_shards(self) -> int: ...
    @property
    def parted(self) -> RegionSet | None: ...
    @property
    def words(self) -> Words: ...

    def sites(self) -> list[dict[str, Any]]:
        """Sites with their dictionaries, as pages are told."""

    # --- what a plan asks ----------------------------------------------------------------------
    def fields(self, method: str) -> dict[str, Any]:
        """What it says of a cell: `features`, `target`, `keep`."""

    def trained(self) -> Iterable[SiteDictionary]:
        """The dictionaries that the run trains."""

    def n_scores(self, cell: Cell) -> int:
        """Scores an input: edges, or nodes that write; of lists of edges, what is kept of all."""

    def target_rows(self, config: Config) -> int:
        """Inputs of a shard, if nothing else is asked for."""

    def mean_shape(self) -> tuple[int, int]:
        """Rows and columns of a mean at one position."""

    def graph_place(self, cell: Cell) -> str:
        """Where a cell's graph lies in attributions.zarr; cells that have one graph share it."""

    def prepare(self, run: RunDirectory, cell: Cell) -> None:
        """Writes a cell's graph, where it is known before any score."""

    def passes(self, plan: Plan, shard: AttributeShard) -> Passes:
        """What attributing a shard costs."""

    def batch_passes(self, cell: Cell, settings: Settings) -> MethodPasses | None:
        """What its method costs a batch, where that is known."""

    def actor_bytes(self, plan: Plan, cell: Cell, mean_bytes: int) -> int:
        """An actor's memory, beside its process, at the peak of a shard of the cell."""

    # --- what is known once scores are reduced -------------------------------------------------
    def write_graph(self, run: RunDirectory, cell: Cell, kept: Callable[[], np.ndarray]) -> None:
        """Writes a reduced cell's graph. `kept`: of a method that scores nodes, those that any
        circuit keeps."""

    def graph(self, run: RunDirectory, cell: Cell) -> Graph:
        """The graph of a reduced cell."""

    def numbers(self, graph: Graph) -> np.ndarray:
        """Where a graph's `sources` stand among the scores of a method that scores nodes."""

    def ablatable(self, graph: Graph, mask: EdgeMask) -> EdgeMask:
        """A circuit without what is not ablated."""

    def stats(self, graph: Graph, mask: EdgeMask, ablation: str, of_nodes: bool) -> CircuitStats:
        """Size of a circuit as it is run; `of_nodes`: it was chosen by its nodes."""

    # --- what a worker does --------------------------------------------------------------------
    def mean_partials(self, context: Context) -> Callable[..., dict[str, MeanPartial]]:
        """What computes partial means of every node's values, by group."""

    def scores(
        self, context: Context, cell: Cell, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, Any]]:
        """`scores` `[input, scored]`, a float32 tensor where the model is, and arrays of what lies
        beside them, `[input]` float64, batch by batch."""

    def lists(
        self, context: Context, shard: AttributeShard, prompts: Sequence[Example], micro_batch: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Of a cell whose scores are lists: the largest edges of each input, batch by batch."""

    def reference(self, context: Context, dataset: str, eval_patch: str) -> Measure:
        """What measures (side, metric) of the full model and of the empty circuit."""

    def evaluation(
        self, context: Context, cell: Cell, condition: Condition, masks: np.ndarray
    ) -> Measure:
        """What measures circuits `[circuit, edge]` under a condition: `[circuit, input]`."""


class Kind(Protocol):
    """How a kind of nodes is checked against a config, and made of a model. `methods`: those that
    attribute it."""

    @property
    def methods(self) -> Collection[str]: ...

    def check(self, config: Config, nodes: str) -> None:
        """Raises ConfigError for what it cannot do."""

    def resolve(
        self, config: Config, nodes: str, model: ResolvedModel, datasets: Sequence[Dataset]
    ) -> Nodes:
        """The nodes of a model. Raises ConfigError."""
