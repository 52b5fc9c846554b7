"""What interaction graphs are made of: modules of directions, and block models, of the interactions
that the published search says are needed, or the robust rule where that alone was asked for. A
shard is a graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgesweep.engine.bases.structure.layerblocks import layer_blocks
from edgesweep.engine.bases.structure.modularity import (
    HOW_TO_INSTALL,
    Section,
    Wiring,
    has_leiden,
    modularity,
    modules_of,
)
from edgesweep.engine.blockmodel import HOW_TO_INSTALL as HOW_TO_INSTALL_GRAPH_TOOL
from edgesweep.engine.blockmodel import BlockModelError, find_interpreter
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_file
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import Graph
from edgesweep.sweeps.interactions.shards import (
    LAYER_BLOCKS,
    MODULES,
    NEEDED,
    Shard,
    folded,
    owner,
    searched,
)
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: seconds of a Leiden partition, and of a chain of a block model, for each edge of the graph
LEIDEN_S, CHAIN_S = 1e-5, 2e-3


class _Structure(Stage[Shard[Graph]]):
    """Partitions of each graph."""

    def shards(self, plan: Plan) -> Iterator[Shard[Graph]]:
        if self.is_asked_for(plan):
            yield from (Shard(graph) for graph in plan.graphs)

    def is_asked_for(self, plan: Plan) -> bool:
        raise NotImplementedError

    def needs(self, plan: Plan, shard: Shard[Graph]) -> tuple[str, ...]:
        starts = (start for start, _ in shard.layers.sections)
        return (searched(shard.of), *(folded(shard.of, start) for start in starts))

    def run(self, context: Context, shard: Shard[Graph]) -> Done:
        wiring, names = wiring_of(context, shard.of)
        found = [] if wiring is None else self.partitions(context, wiring)
        told = {"nodes": names, "partitions": found}
        if wiring is not None:
            told |= {"n_linked": len(wiring.linked), "n_edges": len(wiring.pairs)}
        context.check_alive()
        data = json.dumps(told, sort_keys=True).encode()
        return [write_file(context.run, layout.layered_told(self.name, shard.key), data)], {}

    def partitions(self, context: Context, wiring: Wiring) -> list[dict[str, Any]]:
        """Each as rows of tables tell it."""
        raise NotImplementedError

    def alike(self, shard: Shard[Graph]) -> str:
        return ""

    def model(self, plan: Plan, shard: Shard[Graph]) -> str:
        return ""

    def whose(self, plan: Plan, shard: Shard[Graph]) -> str:
        return owner(shard)


class FindModules(_Structure):
    """Leiden's, at each resolution."""

    name = MODULES
    title = "modules"

    def is_asked_for(self, plan: Plan) -> bool:
        return plan.config.modules.leiden

    def lacks(self, plan: Plan) -> str:
        return "" if has_leiden() else HOW_TO_INSTALL

    def partitions(self, context: Context, wiring: Wiring) -> list[dict[str, Any]]:
        how, seed = context.config.modules, context.config.seed
        return [
            asdict(modules_of(wiring, resolution, how.seeds, seed, how.rewired))
            for resolution in how.resolution
        ]

    def passes(self, plan: Plan, shard: Shard[Graph]) -> Passes:
        how = plan.config.modules
        n = len(how.resolution) * how.seeds * (1 + how.rewired)
        return Passes(seconds=LEIDEN_S * n * _edges(plan, shard))


class FitLayerBlocks(_Structure):
    """Block models whose blocks are of one layer."""

    name = LAYER_BLOCKS
    title = "block models of interactions"

    def is_asked_for(self, plan: Plan) -> bool:
        return plan.config.modules.sbm

    def lacks(self, plan: Plan) -> str:
        if not (self.is_asked_for(plan) and plan.graphs):
            return ""
        try:
            found = find_interpreter(plan.config.execution.graph_tool)
        except BlockModelError as error:
            raise ConfigError(f"execution.graph_tool: {error}") from None
        return "" if found else HOW_TO_INSTALL_GRAPH_TOOL

    def partitions(self, context: Context, wiring: Wiring) -> list[dict[str, Any]]:
        if not len(wiring.pairs):
            return []
        chains, seed = context.config.modules.chains, context.config.seed
        found = layer_blocks(wiring, chains, seed, context.interpreter)
        told = asdict(found) | {"modules": found.blocks, "q": modularity(wiring, found.blocks)}
        del told["blocks"]
        return [told | {"resolution": 1.0}]

    def passes(self, plan: Plan, shard: Shard[Graph]) -> Passes:
        return Passes(seconds=CHAIN_S * plan.config.modules.chains * _edges(plan, shard))


def _edges(plan: Plan, shard: Shard[Graph]) -> float:
    """A guess at how many interactions are needed: some of each direction."""
    return 5.0 * sum(shard.layers.widths)


def wiring_of(context: Context, graph: Graph) -> tuple[Wiring | None, list[str]]:
    """The needed interactions between layers that have bases, and the names of their directions; no
    wiring of a network that only guesses."""
    run, log, layers = context.run, context.log, graph.of.rotated
    squares, kept = {}, {}
    for start, _ in graph.of.sections:
        record = log.record(NEEDED, Shard(graph, start).key)
        if "guesses" in record:
            return None, []
        squares[start] = files.read_interactions(run, log, graph, start).mean_square[:, 1:].numpy()
        needed: int = record["needed"] if "needed" in record else record["robust"]
        kept[start] = min(needed, squares[start].size)
    names = [files.read_basis(run, log, graph.basis, layer).names() for layer in layers]
    sections = [
        Section(layers.index(start), layers.index(end), squares[start], kept[start])
        for start, end in graph.of.sections
        if end in layers
    ]
    wiring = Wiring.of([len(of_layer) for of_layer in names], sections)
    pairs = zip(layers, names, strict=True)
    return wiring, [f"{layer}/{name}" for layer, of_layer in pairs for name in of_layer]
