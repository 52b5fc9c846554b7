"""What is drawn at random beside a cell's circuit, and run as that is.

random blocks   block ablation with random nodes in the place of a block's own, as many of each
                kind; labels stay with the blocks, and `embed` and `logits` where they are
rewired         circuits with the degrees of the circuit's sources and targets, and only edges
                that the model has (`engine.graph.rewiring`)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.graph import STEPS_AN_EDGE, Graph, allowed_edges, edges_of, hub, rewire
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.storage import layout
from edgesweep.storage.packing.masks import write_masks
from edgesweep.storage.tables import DRAWN, STRUCTURE, Table
from edgesweep.sweeps.circuits import nearest, ran_mask, read_fitted_key
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import Cell, Condition, Part
from edgesweep.sweeps.stages.base import Gate, Row
from edgesweep.sweeps.stages.blockmodels.blocks import lacks_graph_tool, read_fitted
from edgesweep.sweeps.stages.evaluate import Evaluate, EvaluateShard, planned_values
from edgesweep.sweeps.tables.results import drawn_rows
from edgesweep.sweeps.tables.structure import MODES, random_contrast_rows

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.storage.arrays import Planned
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View


class Drawn(Evaluate):
    """Masks by name, under edge ablation with each evaluation patch. `part`: what a condition calls
    them."""

    part: Part
    tables: tuple[Table, ...] = (DRAWN,)

    def names(self, plan: Plan, cell: Cell) -> tuple[str, ...]:
        """Of all that is drawn of a cell, in order."""
        raise NotImplementedError

    def waits_for(self, cell: Cell) -> tuple[str, ...]:
        """The groups that must be whole before it is drawn."""
        raise NotImplementedError

    def masks(self, view: View, cell: Cell) -> Mapping[str, EdgeMask]:
        """What is drawn, before pruning, by name."""
        raise NotImplementedError

    def shards(self, plan: Plan) -> Iterator[EvaluateShard]:
        size = plan.config.execution.circuits_per_batch
        for cell in plan.cells:
            names = self.names(plan, cell)
            for condition in self._conditions(plan) if names else ():
                for rows in plan.eval_rows(plan.dataset(cell)):
                    for index, start in enumerate(range(0, len(names), size)):
                        some = names[start : start + size]
                        yield EvaluateShard(cell, some, index, condition, rows)

    def needs(self, plan: Plan, shard: EvaluateShard) -> tuple[str, ...]:
        values = plan.values(shard.cell, shard.condition.eval_patch)
        return (*values, groups.drawn(shard.cell.key, self.name))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for cell in plan.cells:
            if self.names(plan, cell):
                name = groups.drawn(cell.key, self.name)
                yield Gate(name, self.waits_for(cell), partial(self._write, cell=cell))

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        width = plan.config.execution.circuits_per_batch
        for cell in plan.cells:
            if names := self.names(plan, cell):
                for condition in self._conditions(plan):
                    yield planned_values(run, plan, cell, condition, len(names), width)

    def _conditions(self, plan: Plan) -> list[Condition]:
        patches = plan.config.evaluate.eval_patch
        return [Condition("edge", patch, self.part) for patch in patches]

    def _write(self, view: View, cell: Cell) -> None:
        nodes, graph, drawn = view.plan.nodes(cell), view.graph(cell), self.masks(view, cell)
        for condition in self._conditions(view.plan):
            ran = {name: ran_mask(nodes, graph, mask, condition) for name, mask in drawn.items()}
            write_masks(view.run, layout.ran(cell.key, condition.key), ran)


class RandomBlocks(Drawn):
    """Of the fitted circuit of a mixture."""

    name = "random_blocks"
    title = "ablation of random blocks"
    part = Part("random_blocks")
    tables = (DRAWN, STRUCTURE)

    def names(self, plan: Plan, cell: Cell) -> tuple[str, ...]:
        if not plan.block_conditions(cell):
            return ()
        members, draws = plan.dataset(cell).members, range(plan.config.blocks.draws)
        return tuple(_named(m, task, i) for i in draws for m in MODES for task in members)

    def waits_for(self, cell: Cell) -> tuple[str, ...]:
        return groups.fitted(cell.key), groups.fits(cell.key)

    def lacks(self, plan: Plan) -> str:
        return lacks_graph_tool(plan) if plan.stages[self.name] else ""

    def masks(self, view: View, cell: Cell) -> Mapping[str, EdgeMask]:
        fitted = read_fitted(view, cell)
        assert fitted is not None
        graph, bottom, found = view.graph(cell), fitted.model.blocks(0), {}
        members, seed = view.plan.dataset(cell).members, _seed(view.plan, cell, self.name)
        for draw in range(view.plan.config.blocks.draws):
            moved = fitted.labelled.moved(_shuffled(graph, fitted.nodes, bottom, seed + draw))
            for task, member in enumerate(members):
                found[_named("without", member, draw)] = moved.without(task)
                found[_named("only", member, draw)] = moved.only(task)
        return {name: found[name] for name in self.names(view.plan, cell)}

    def rows(self, view: View, cell: Cell) -> Mapping[Table, Iterable[Row]]:
        if not self.names(view.plan, cell) or not view.is_whole("blocks", cell):
            return {}
        drawn = drawn_rows(view, cell, self.name, read_fitted_key(view.run, cell), _told)
        contrasts: Iterable[Row] = ()
        if view.is_whole(self.name, cell):
            contrasts = random_contrast_rows(view, cell, self._conditions(view.plan), _named)
        return {DRAWN: drawn, STRUCTURE: contrasts}


class Rewired(Drawn):
    """Of the circuit of about `measures.rewired_edges` edges of each cell that scores the edges of
    the model."""

    name = "rewired"
    title = "random circuits of equal degrees"
    part = Part("rewired")

    def names(self, plan: Plan, cell: Cell) -> tuple[str, ...]:
        fits = plan.nodes(cell).same_in_all_cells and not plan.is_nodes(cell)
        draws = range(plan.config.measures.rewired if fits else 0)
        return tuple(_named("rewired", "", draw) for draw in draws)

    def waits_for(self, cell: Cell) -> tuple[str, ...]:
        return (groups.circuits(cell.key),)

    def masks(self, view: View, cell: Cell) -> Mapping[str, EdgeMask]:
        graph, seed = view.graph(cell), _seed(view.plan, cell, self.name)
        mask = view.ran(cell, view.plan.fitted_condition)[_rewired_of(view, cell)]
        pairs = np.stack([graph.edge_source, graph.edge_target], axis=1)[mask].astype(np.int64)
        allowed, n_steps = allowed_edges(graph), STEPS_AN_EDGE * len(pairs)
        start = hub(pairs, allowed, seed)
        return {
            name: edges_of(graph, rewire(start, allowed, n_steps, seed + 1 + draw).pairs)
            for draw, name in enumerate(self.names(view.plan, cell))
        }

    def rows(self, view: View, cell: Cell) -> Mapping[Table, Iterable[Row]]:
        if not self.names(view.plan, cell):
            return {}
        circuit = _rewired_of(view, cell)
        return {DRAWN: drawn_rows(view, cell, self.name, circuit, _told)}


def _rewired_of(view: View, cell: Cell) -> str:
    return nearest(view, cell, view.plan.config.measures.rewired_edges)


def _seed(plan: Plan, cell: Cell, what: str) -> int:
    told = {"seed": plan.config.seed, "cell": cell.identity, "drawn": what}
    return int(digest(told)[:8], 16)


def _named(mode: str, task: str, draw: int) -> str:
    """The name of what is drawn."""
    return f"{Part(mode, task)}~{draw:04d}"  # type: ignore[arg-type]


def _told(name: str) -> Row:
    part, _, draw = name.partition("~")
    return {"blocks": part, "draw": int(draw)}


def _shuffled(graph: Graph, nodes: Sequence[int], block_of: np.ndarray, seed: int) -> np.ndarray:
    """Blocks of as many nodes of each kind, drawn at random; fixed nodes stay."""
    draw, found = np.random.default_rng(seed), block_of.copy()
    kinds = ["" if n in graph.fixed_nodes else graph.node_table.kind[n] for n in nodes]
    for kind in sorted(set(kinds) - {""}):
        mine = np.flatnonzero(np.array(kinds) == kind)
        found[mine] = draw.permutation(block_of[mine])
    return found
