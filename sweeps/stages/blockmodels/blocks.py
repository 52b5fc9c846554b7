"""Block models: chains over the circuit of a cell whose size is nearest to what was asked for, and
what is left of it without a task's blocks or with only them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.blocklabels import SHARED
from edgesweep.engine.blockmodel import (
    HOW_TO_INSTALL,
    BlockModel,
    BlockModelError,
    BlockOptions,
    Chain,
    block_model,
    chain_seeds,
    find_interpreter,
    fit_chain,
)
from edgesweep.storage import layout
from edgesweep.storage.arrays import write_static
from edgesweep.storage.atomic import to_json
from edgesweep.storage.blocks import read_file, write_file
from edgesweep.storage.packing.masks import write_masks
from edgesweep.storage.tables import BLOCKS, STRUCTURE, Table
from edgesweep.sweeps.circuits import nearest, ran_mask, read_fitted_key, read_ran
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.labelled import LabelledBlocks, simple_graph
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import Cell, Condition
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Row, Stage
from edgesweep.sweeps.tables.structure import purity_rows

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View


#: of CPU (graph-tool 2.45): to import it, and a nested chain for each edge of a circuit of 2,800
START_S, EDGE_S = 0.9, 3.5e-4
#: the label of a block that no task owns
SHARED_LABEL = "shared"


@dataclass(frozen=True)
class BlockShard:
    """One chain of the block model of a cell's circuit; which circuit, the scores decide.

    `patch` is the evaluation patch whose pruning makes the fitted graph.
    """

    cell: Cell
    chain: int
    seed: int
    patch: str

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.chain:03d}"

    @property
    def n_fits(self) -> int:
        return 1


def chains_of(plan: Plan, cell: Cell) -> Iterator[BlockShard]:
    """A cell's chains; their seeds are its own."""
    if plan.has_blocks(cell):
        seed = int(digest({"seed": plan.config.seed, "cell": cell.identity})[:8], 16)
        for chain, own in enumerate(chain_seeds(seed, plan.config.blocks.chains)):
            yield BlockShard(cell, chain, own, plan.fitted_condition.eval_patch)


class Blocks(Stage[BlockShard]):
    """One chain a shard, as JSON in a file of its own."""

    name = "blocks"
    title = "block models"
    tables = (BLOCKS, STRUCTURE)

    def shards(self, plan: Plan) -> Iterator[BlockShard]:
        for cell in plan.cells:
            yield from chains_of(plan, cell)

    def groups(self, plan: Plan, shard: BlockShard) -> Iterable[str]:
        return (groups.fits(shard.cell.key),)

    def needs(self, plan: Plan, shard: BlockShard) -> tuple[str, ...]:
        return (groups.fitted(shard.cell.key),)

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for cell in plan.cells:
            if plan.has_blocks(cell):
                needs = (groups.circuits(cell.key),)
                yield Gate(groups.fitted(cell.key), needs, partial(_choose, cell=cell))

    def lacks(self, plan: Plan) -> str:
        return lacks_graph_tool(plan)

    def passes(self, plan: Plan, shard: BlockShard) -> Passes:
        return fitting(plan, shard.n_fits)

    def run(self, context: Context, shard: BlockShard) -> Done:
        graph = context.nodes(shard.cell).graph(context.run, shard.cell)
        circuit = read_fitted_key(context.run, shard.cell)
        mask = read_ran(context.run, shard.cell, Condition("edge", shard.patch))[circuit]
        nodes, edges = simple_graph(graph, mask)
        options = options_of(context.config)
        chain = fit_chain(edges, len(nodes), options, shard.seed, context.interpreter)
        context.check_alive()
        data = to_json(chain.to_dict())
        return [write_file(context.run, layout.chain(shard.key), data)], {"circuit": circuit}

    def rows(self, view: View, cell: Cell) -> Mapping[Table, Iterable[Row]]:
        fitted = read_fitted(view, cell)
        if fitted is None:
            return {BLOCKS: (), STRUCTURE: ()}
        rows = _block_rows(view, cell, fitted)
        return {BLOCKS: rows, STRUCTURE: purity_rows(view, cell, fitted)}


def fitting(plan: Plan, n_fits: int) -> Passes:
    """What fits in one process cost."""
    return Passes(seconds=START_S + n_fits * EDGE_S * plan.config.blocks.n_edges)


def options_of(config: Config) -> BlockOptions:
    blocks = config.blocks
    return BlockOptions(
        fit=blocks.fit,  # type: ignore[arg-type]
        degree_corrected=blocks.degree_corrected,
        n_iter=blocks.n_iter,
        patience=blocks.patience,
        max_rounds=blocks.max_rounds,
    )


def lacks_graph_tool(plan: Plan) -> str:
    """How to have it, where block models are asked for and no interpreter has it. Raises
    ConfigError if the interpreter that the config names has not."""
    return why_no_graph_tool(plan) if any(plan.has_blocks(cell) for cell in plan.cells) else ""


def why_no_graph_tool(plan: Plan) -> str:
    """The same, whatever asks for it."""
    try:
        found = find_interpreter(plan.config.execution.graph_tool)
    except BlockModelError as error:
        raise ConfigError(f"execution.graph_tool: {error}") from None
    return "" if found else HOW_TO_INSTALL


def _choose(view: View, cell: Cell) -> None:
    """Notes which circuit is fitted."""
    circuit = nearest(view, cell, view.plan.config.blocks.n_edges)
    mask = read_ran(view.run, cell, view.plan.fitted_condition)[circuit]
    n_edges = mask.sum(keepdims=True)
    spec = next(spec for spec in view.plan.circuits(cell) if spec.key == circuit)
    told = {"circuit": circuit, **spec.point}
    write_static(view.run.evaluations, layout.fitted(cell.key), n_edges, told)


# --- what was found ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A cell's block model.

    Attributes:
        circuit: key of the circuit that was fitted.
        model: the kept partition, over the nodes' names.
        labels: member task of each bottom block, or SHARED_LABEL.
        labelled: the blocks of the bottom level with their labels.
        chains: all that were fitted. nodes: the fitted nodes' places in the graph. edges: of the
            fitted graph, between places in that list.
    """

    circuit: str
    model: BlockModel
    labels: tuple[str, ...]
    labelled: LabelledBlocks
    chains: tuple[Chain, ...]
    nodes: tuple[int, ...]
    edges: np.ndarray


def read_fitted(view: View, cell: Cell) -> Fitted | None:
    """The cell's block model, the shortest of its chains; None until all are committed."""
    shards = list(chains_of(view.plan, cell))
    if not shards or not view.done[Blocks.name].issuperset(s.key for s in shards):
        return None
    chains = [_chain(view, shard) for shard in shards]  # as they are numbered
    circuit = read_fitted_key(view.run, cell)
    graph, members = view.graph(cell), view.plan.dataset(cell).members
    mask = read_ran(view.run, cell, view.plan.fitted_condition)[circuit]
    nodes, edges = simple_graph(graph, mask)
    model = block_model([graph.nodes[n] for n in nodes], chains)
    scores = np.stack([_scores(view, cell, circuit, member) for member in members])
    margin = view.plan.config.blocks.margin
    labelled = LabelledBlocks(graph, mask, nodes, model.blocks(0), scores, margin)
    labels = tuple(SHARED_LABEL if i == SHARED else members[i] for i in labelled.labels)
    return Fitted(circuit, model, labels, labelled, tuple(chains), tuple(nodes), edges)


def _chain(view: View, shard: BlockShard) -> Chain:
    write = view.log.record(Blocks.name, shard.key)["writes"][0]
    return Chain.from_dict(json.loads(read_file(view.run, write)))


def _scores(view: View, cell: Cell, circuit: str, member: str) -> np.ndarray:
    alone = len(view.plan.dataset(cell).members) == 1
    spec = next(spec for spec in view.plan.circuits(cell) if spec.key == circuit)
    found = view.scores(cell, spec.aggregation, "all" if alone else member)
    assert found is not None
    return found


def write_blocks(view: View, cell: Cell) -> None:
    """What each block ablation leaves of the fitted circuit."""
    fitted = read_fitted(view, cell)
    assert fitted is not None
    nodes, graph = view.plan.nodes(cell), view.graph(cell)
    members = view.plan.dataset(cell).members
    for condition in view.plan.block_conditions(cell):
        part = condition.part
        keep = fitted.labelled.without if part.mode == "without" else fitted.labelled.only
        left = ran_mask(nodes, graph, keep(members.index(part.task)), condition)
        write_masks(view.run, layout.ran(cell.key, condition.key), {fitted.circuit: left})


def _block_rows(view: View, cell: Cell, fitted: Fitted) -> Iterator[Row]:
    """Rows of blocks.parquet."""
    model, options = fitted.model, view.plan.config.blocks
    bottom, labelled = model.blocks(0), fitted.labelled
    for level in range(len(model.levels)):
        for i, node in enumerate(model.nodes):
            yield {
                "circuit": fitted.circuit,
                "cell": cell.key,
                "fit": options.fit,
                "degree_corrected": options.degree_corrected,
                "level": level,
                "node": node,
                "block": int(model.blocks(level)[i]),
                "label": fitted.labels[bottom[i]],
                "share": float(labelled.shares[bottom[i]].max()),
                "margin": float(labelled.margins[bottom[i]]),
                "description_length": model.description_length,
            }
