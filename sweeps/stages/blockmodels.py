"""Block models of the run: which circuit is fitted, what was found, and what is left of the
circuit without a task's blocks or with only them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from edgesweep.engine.blockmodel import (
    BlockModel,
    BlockModelError,
    Chain,
    block_model,
    find_interpreter,
)
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.blocks import read_file
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.circuits import LabelledBlocks, evaluated_mask, simple_graph
from edgesweep.sweeps.config.load import ConfigError
from edgesweep.sweeps.graphs import graph_of, scores_of
from edgesweep.sweeps.plan.cells import BlockShard, Cell, Condition
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.prepare import Circuit, circuits_of, make_block_arrays, write_mask


@dataclass(frozen=True)
class Fitted:
    """A cell's block model.

    Attributes:
        circuit: the circuit that was fitted.
        model: the kept partition, over the nodes' names.
        labels: member task of each bottom block.
        labelled: the blocks of the bottom level with their labels.
    """

    circuit: Circuit
    model: BlockModel
    labels: tuple[str, ...]
    labelled: LabelledBlocks


def graph_tool_is_here(plan: Plan) -> bool:
    """Whether block models can be fitted. Raises ConfigError if the interpreter that the config
    names cannot."""
    if not any(plan.has_blocks(cell) for cell in plan.cells):
        return True
    try:
        return find_interpreter(plan.config.execution.graph_tool) is not None
    except BlockModelError as error:
        raise ConfigError(f"execution.graph_tool: {error}") from None


def fitted_circuit(committed: Committed, plan: Plan, cell: Cell) -> Circuit:
    """The circuit of a cell whose pruned edges are nearest in number to `blocks.n_edges`; the first
    of several."""
    graph, wanted = graph_of(committed.run, plan, cell), plan.config.blocks.n_edges
    condition = Condition("edge", plan.fitted_patch)

    def distance(circuit: Circuit) -> int:
        mask = evaluated_mask(graph, circuit.mask, condition, errors=plan.config.features.error)
        return abs(int(mask.sum()) - wanted)

    return min(circuits_of(committed, plan, cell), key=distance)


def chain_shards(plan: Plan, cell: Cell) -> list[BlockShard]:
    """The cell's chains."""
    shards = plan.stages["blocks"]
    return [s for s in shards if isinstance(s, BlockShard) and s.cell == cell]


def read_fitted(committed: Committed, plan: Plan, cell: Cell, log: CommitLog) -> Fitted | None:
    """The cell's block model, the shortest of its chains; None until all are committed."""
    shards = chain_shards(plan, cell)
    if not shards or not all(log.is_committed("blocks", s.key) for s in shards):
        return None
    run = committed.run
    chains = [_chain(run, log, shard) for shard in shards]
    circuit = fitted_circuit(committed, plan, cell)
    graph, members = graph_of(run, plan, cell), plan.dataset(cell).members
    condition = Condition("edge", plan.fitted_patch)
    mask = evaluated_mask(graph, circuit.mask, condition, errors=plan.config.features.error)
    nodes, _ = simple_graph(graph, mask)
    model = block_model([graph.nodes[n] for n in nodes], chains)
    scores = np.stack([_scores(committed, plan, cell, circuit, member) for member in members])
    labelled = LabelledBlocks(graph, mask, nodes, model.blocks(0), scores)
    labels = tuple(members[i] for i in labelled.labels)
    return Fitted(circuit, model, labels, labelled)


def _chain(run: RunDirectory, log: CommitLog, shard: BlockShard) -> Chain:
    write = log.record("blocks", shard.key)["writes"][0]
    return Chain.from_dict(json.loads(read_file(run, write)))


def _scores(
    committed: Committed, plan: Plan, cell: Cell, circuit: Circuit, member: str
) -> np.ndarray:
    alone = len(plan.dataset(cell).members) == 1
    found = scores_of(committed, plan, cell, circuit.aggregation, "all" if alone else member)
    assert found is not None
    return found


def write_block_masks(run: RunDirectory, plan: Plan, cell: Cell, fitted: Fitted) -> None:
    """What each block ablation leaves of the fitted circuit, and the arrays for its values."""
    make_block_arrays(run, plan, cell, fitted.circuit.key)
    members = plan.dataset(cell).members
    for condition in plan.block_conditions(cell):
        mode, _, member = condition.blocks.partition(":")
        keep = fitted.labelled.without if mode == "without" else fitted.labelled.only
        write_mask(run, fitted.circuit.key, condition.blocks, keep(members.index(member)))
