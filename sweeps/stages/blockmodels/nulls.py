"""What block models are held against: block models of random graphs with the degrees and the order
of the fitted circuit, of the circuits that halves of the build prompts give, and given partitions.

A random graph has the circuit's degrees, and only edges that the model has (`graph.rewiring`). The
degrees are those of its nodes as block models see them, or of its ports: then it is also as it was
what a node reads by its queries and by its keys, and that heads share keys and values. A chain is
fitted to each: it has had one try, as the first chain of the circuit has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.blockmodel import Chain, Job, run_jobs
from edgesweep.engine.graph import (
    STEPS_AN_EDGE,
    Graph,
    Rewired,
    allowed_edges,
    allowed_pairs,
    edges_of,
    hub,
    rewire,
    select,
)
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.engine.halves import halves
from edgesweep.engine.structure import coarser, kind_and_depth
from edgesweep.storage import fold, layout
from edgesweep.storage.atomic import to_json
from edgesweep.storage.blocks import read_block, read_file, write_file
from edgesweep.storage.tables import NULLS, STRUCTURE, Table
from edgesweep.sweeps.circuits import ran_mask, read_fitted_key, read_fitted_point, read_ran
from edgesweep.sweeps.labelled import simple_graph
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import Cell, Condition
from edgesweep.sweeps.stages.attribute import shards_of
from edgesweep.sweeps.stages.base import Done, Passes, Row, Stage
from edgesweep.sweeps.stages.blockmodels.blocks import (
    fitting,
    lacks_graph_tool,
    options_of,
    read_fitted,
)
from edgesweep.sweeps.tables.structure import null_rows, structure_rows

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View

#: kinds of shards; NODES and PORTS as in `blocks.keep`
GIVEN, NODES, PORTS, HALVES = "given", "nodes", "ports", "half"
#: random graphs that one process describes
DRAWS_A_SHARD = 10


@dataclass(frozen=True)
class NullShard:
    """Some descriptions that a cell's block model is held against.

    Attributes:
        kind: one of GIVEN, NODES, PORTS, HALVES.
        first, n_fits: which of that kind; of GIVEN, about as many.
        seed: of the kind. patch: the evaluation patch whose pruning makes the fitted graph.
        leaves, sizes: of HALVES, keys of the cell's attribution shards, and build prompts of each
            member.
    """

    cell: Cell
    kind: str
    first: int
    n_fits: int
    seed: int
    patch: str
    leaves: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.kind}.{self.first:05d}"


@dataclass(frozen=True)
class Described:
    """One graph, described.

    Attributes:
        null, draw: what it is, and which of them.
        nodes: places in the model's graph; blocks: of each. Of random graphs neither is kept.
        swapped, kept_halfway, kept: of random graphs, see `engine.graph.Rewired`; else NaN.
    """

    null: str
    draw: int
    n_nodes: int
    n_edges: int
    n_blocks: int
    description_length: float
    one_block: float
    nodes: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    swapped: float | None = None
    kept_halfway: float | None = None
    kept: float | None = None


class Nulls(Stage[NullShard]):
    """Descriptions, as JSON in a file a shard."""

    name = "nulls"
    title = "nulls of block models"
    tables = (NULLS, STRUCTURE)

    def shards(self, plan: Plan) -> Iterator[NullShard]:
        for cell in plan.cells:
            if plan.has_blocks(cell):
                yield from _shards_of(plan, cell)

    def needs(self, plan: Plan, shard: NullShard) -> tuple[str, ...]:
        return (groups.fitted(shard.cell.key),)

    def lacks(self, plan: Plan) -> str:
        return lacks_graph_tool(plan) if plan.stages[self.name] else ""

    def passes(self, plan: Plan, shard: NullShard) -> Passes:
        return fitting(plan, shard.n_fits)

    def alike(self, shard: NullShard) -> str:
        return f"{shard.cell.key}.{shard.kind}"

    def run(self, context: Context, shard: NullShard) -> Done:
        of = {GIVEN: _given, NODES: _shuffled_nodes, PORTS: _shuffled_ports, HALVES: _halves}
        told = list(of[shard.kind](context, shard))
        chains = run_jobs([job for job, _ in told], options_of(context.config), context.interpreter)
        found = [
            _described(job, chain, about) for (job, about), chain in zip(told, chains, strict=True)
        ]
        context.check_alive()
        data = to_json([asdict(one) for one in found])
        return [write_file(context.run, layout.null(shard.key), data)], {}

    def rows(self, view: View, cell: Cell) -> Mapping[Table, Iterable[Row]]:
        fitted = read_fitted(view, cell)
        shards = view.plan.of_cell(cell).get(self.name, ())
        if fitted is None or not shards:
            return {}
        whole = {s.kind for s in shards} - {
            s.kind for s in shards if s.key not in view.done[self.name]
        }
        found = [one for s in shards if s.kind in whole for one in _read(view, s)]
        return {
            NULLS: null_rows(cell, fitted, found),
            STRUCTURE: structure_rows(cell, fitted, found, view.graph(cell)),
        }


def _shards_of(plan: Plan, cell: Cell) -> Iterator[NullShard]:
    blocks, patch = plan.config.blocks, plan.fitted_condition.eval_patch

    def shard(kind: str, first: int, n_fits: int, **more: Any) -> NullShard:
        told = {"seed": plan.config.seed, "cell": cell.identity, "null": kind}
        return NullShard(cell, kind, first, n_fits, int(digest(told)[:8], 16), patch, **more)

    ports_are_nodes = not plan.nodes(cell).same_in_all_cells
    for kind in blocks.keep if blocks.shuffles else ():
        if kind == NODES or not ports_are_nodes:
            for first in range(0, blocks.shuffles, DRAWS_A_SHARD):
                yield shard(kind, first, min(DRAWS_A_SHARD, blocks.shuffles - first))
    if blocks.shuffles:
        yield shard(GIVEN, 0, 3)
    if blocks.halves and _has_halves(plan, cell):
        rows = plan.dataset(cell).member_rows("build").values()
        leaves = tuple(leaf.key for leaf in shards_of(plan, cell))
        yield shard(HALVES, 0, 2, leaves=leaves, sizes=tuple(r.stop - r.start for r in rows))


def _has_halves(plan: Plan, cell: Cell) -> bool:
    """Whether the scores of single inputs are all there, and inputs matter to them."""
    whole = plan.config.scores.keep == "all" and plan.nodes(cell).same_in_all_cells
    enough = plan.config.data.n_build > 1
    return whole and enough and cell.tau is None and cell.seed is None


# --- what an actor describes ------------------------------------------------------------------

#: a job, and what else is said of it
Told = tuple[Job, dict[str, Any]]


def _circuit(context: Context, shard: NullShard) -> tuple[Graph, EdgeMask]:
    """The graph, and the circuit that is fitted."""
    graph = context.nodes(shard.cell).graph(context.run, shard.cell)
    ran = read_ran(context.run, shard.cell, Condition("edge", shard.patch))
    return graph, ran[read_fitted_key(context.run, shard.cell)]


def _given(context: Context, shard: NullShard) -> Iterator[Told]:
    """The fitted graph, by kind and depth; coarser, of which the shortest counts."""
    graph, mask = _circuit(context, shard)
    nodes, edges = simple_graph(graph, mask)
    by_layer = kind_and_depth(graph.node_table, nodes)
    named = [
        ("kind_depth", by_layer),
        *(("kind_depth_coarse", p) for p in coarser(graph.node_table, nodes)),
    ]
    for draw, (null, bottom) in enumerate(named):
        job = Job(edges, len(nodes), (shard.seed + draw) % 2**32, bottom)
        yield job, {"null": null, "draw": max(draw - 1, 0), "nodes": tuple(nodes)}


def _shuffled_nodes(context: Context, shard: NullShard) -> Iterator[Told]:
    graph, mask = _circuit(context, shard)
    nodes, edges = simple_graph(graph, mask)
    numbers = np.array(nodes, dtype=np.int64)
    place = np.full(len(graph.nodes), -1)
    place[numbers] = np.arange(len(nodes))
    start, allowed = numbers[edges], allowed_pairs(graph)
    start = hub(start, allowed, shard.seed)
    for draw, seed in _draws(shard):
        drawn = rewire(start, allowed, STEPS_AN_EDGE * len(start), seed)
        yield Job(place[drawn.pairs], len(nodes), seed), _of_draw(shard, draw, drawn)


def _shuffled_ports(context: Context, shard: NullShard) -> Iterator[Told]:
    graph, mask = _circuit(context, shard)
    allowed = allowed_edges(graph)
    start = hub(np.stack([graph.edge_source, graph.edge_target], 1)[mask], allowed, shard.seed)
    for draw, seed in _draws(shard):
        drawn = rewire(start, allowed, STEPS_AN_EDGE * len(start), seed)
        nodes, edges = simple_graph(graph, edges_of(graph, drawn.pairs))
        yield Job(edges, len(nodes), seed), _of_draw(shard, draw, drawn)


def _draws(shard: NullShard) -> Iterator[tuple[int, int]]:
    """Which draws, and a seed each."""
    for draw in range(shard.first, shard.first + shard.n_fits):
        yield draw, (shard.seed + 1 + draw) % 2**32


def _of_draw(shard: NullShard, draw: int, drawn: Rewired) -> dict[str, Any]:
    chain = {"swapped": drawn.swapped, "kept_halfway": drawn.kept_halfway, "kept": drawn.kept}
    return {"null": shard.kind, "draw": draw, **chain}


def _halves(context: Context, shard: NullShard) -> Iterator[Told]:
    """The circuits that the same threshold finds in each half of the build prompts."""
    cell, (aggregation, selection, threshold) = (
        shard.cell,
        read_fitted_point(context.run, shard.cell),
    )
    nodes_of, condition = context.nodes(cell), Condition("edge", shard.patch)
    graph = nodes_of.graph(context.run, cell)
    for half, scores in enumerate(_scores_of_halves(context, shard, aggregation)):
        mask = ran_mask(nodes_of, graph, select(scores, selection, threshold, graph), condition)
        nodes, edges = simple_graph(graph, mask)
        about = {"null": HALVES, "draw": half, "nodes": tuple(nodes)}
        yield Job(edges, len(nodes), (shard.seed + half) % 2**32), about


def _scores_of_halves(context: Context, shard: NullShard, aggregation: str) -> Iterator[np.ndarray]:
    """Aggregated scores `[edge]` of either half, read one block of inputs at a time."""
    stage, name = "refine" if shard.cell.is_refined else "attribute", layout.scores(shard.cell.key)
    halved = halves(np.repeat(np.arange(len(shard.sizes)), shard.sizes), context.config.seed)
    trees = [fold.TreeFold(len(shard.leaves)) for _ in halved]
    for index, leaf in enumerate(shard.leaves):
        writes = [w for w in context.log.record(stage, leaf)["writes"] if w["array"] == name]
        rows = np.concatenate([read_block(context.run, write) for write in writes])
        first = writes[0]["start"]
        for half, tree in zip(halved, trees, strict=True):
            tree.add(index, fold.partial(rows[half[first : first + len(rows)]]))
    for tree in trees:
        total = tree.result()
        assert total is not None
        yield fold.finish(total)[aggregation]


def _described(job: Job, chain: Chain, about: Mapping[str, Any]) -> Described:
    bottom = chain.levels[0]
    return Described(
        **about,
        n_nodes=job.n_nodes,
        n_edges=len(np.unique(job.edges, axis=0)),
        n_blocks=len(set(bottom)),
        description_length=chain.description_length,
        one_block=chain.description_length_null,
        blocks=bottom if "nodes" in about else (),
    )


def _read(view: View, shard: NullShard) -> Sequence[Described]:
    write = view.log.record(Nulls.name, shard.key)["writes"][0]
    return [Described(**one) for one in json.loads(read_file(view.run, write))]
