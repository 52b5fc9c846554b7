"""What an actor does for cells over features. One function a kind of shard.

A number's way: prompts -> of each input its largest edges, as a list -> one block of rows of the
cell's lists; the driver commits it; the reducer adds up the lists of all inputs edge by edge, keeps
the strongest edges, and from then on the cell has a graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.torch

from edgesweep.engine.dictionaries.files import dictionary_bytes
from edgesweep.engine.features.edges import EdgeSettings, FeatureEdges, attribute_edges
from edgesweep.engine.features.ends import Ends
from edgesweep.engine.features.nodes import attribute_nodes, node_scores
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.training import Training, activations, fit_of, spliced_losses, train
from edgesweep.storage import fold, layout
from edgesweep.storage.blocks import read_block, write_block, write_file
from edgesweep.storage.sparse_fold import SparseFold, fold_inputs, part_of, strongest
from edgesweep.sweeps.config.schema import Trained
from edgesweep.sweeps.context import Context, with_halving
from edgesweep.sweeps.plan.cells import AttributeShard, Cell, DictionaryShard, ReduceShard
from edgesweep.tasks import Example, TaskError, build_task

Writes = list[dict[str, Any]]
Extra = dict[str, Any]
#: entries of lists that a reducer holds at once
PART_ENTRIES = 4_000_000
#: texts on which a trained dictionary is spliced into the model
SPLICED = 128


def train_dictionary(context: Context, shard: DictionaryShard) -> tuple[Writes, Extra]:
    """The dictionary of one site, as a file of its own, and how well it fits."""
    settings = context.settings
    chosen = settings.features[shard.model].dictionaries
    trained = next(d.trained for d in chosen if d.site == shard.site)
    assert trained is not None
    prompts = [
        p for task in settings.tasks for p in _training_prompts(context, shard, task, trained)
    ]
    texts = list(dict.fromkeys(t for p in prompts for t in (p.clean, p.patch)))
    x = activations(context.model(shard.model), shard.site, texts, settings.micro_batch)
    told = trained.model_dump(exclude={"prompts"})
    dictionary = train(x.float(), Training(**told, seed=settings.seed))
    fit = asdict(fit_of(dictionary, x.float()))
    some = texts[:: max(1, len(texts) // SPLICED)]
    fit |= spliced_losses(
        context.model(shard.model), shard.site, dictionary, some, x.float().mean(0)
    )
    context.check_alive()
    tensors, metadata = dictionary_bytes(dictionary)
    data = safetensors.torch.save(tensors, metadata)
    write = write_file(context.run, layout.dictionary(shard.key), data)
    return [write], {"fit": {**fit, "positions": len(x)}}


def _training_prompts(
    context: Context, shard: DictionaryShard, task: str, trained: Trained
) -> tuple[Example, ...]:
    """As many prompts of each member as are asked for, or, of a file with fewer, those of the build
    split; none of the evaluation split, which a file deals out first."""
    settings = context.settings
    keys = [k for k, model in settings.datasets.items() if model == shard.model]
    n_eval = Counter(p.task for p in context.prompts(keys[0], "eval")).most_common(1)[0][1]
    source = settings.models[shard.model]
    try:
        data = build_task(
            task,
            source.tokenizer(),
            trained.prompts,
            n_eval,
            settings.seed,
            n_vocab=source.sizes.n_vocab,
            own=source.path,
            shape=source.shape,
        )
    except TaskError:  # a file with fewer prompts
        return tuple(p for key in keys for p in context.prompts(key, "build"))
    return data.build


# --- nodes ------------------------------------------------------------------------------------


def scores_of_nodes(
    context: Context, cell: Cell, prompts: tuple[Example, ...], micro_batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Scores of all features and error nodes, batch by batch, in the arrays of a cell over
    heads."""
    for ends in _ends(context, cell, prompts, micro_batch):
        found = attribute_nodes(ends, cell.build_metric, **_quadrature(cell))
        scores = np.zeros((len(ends.batch), ends.numbers.logits), dtype=np.float32)
        for row, of_input in zip(scores, node_scores(ends, found), strict=True):
            row[of_input.node] = of_input.score
        unknown = np.full(len(scores), np.nan)
        clean = found.metric_clean.double().cpu().numpy()
        yield {
            "scores": scores,
            "residual": unknown,
            "metric_clean": clean,
            "metric_baseline": unknown,
        }


def _quadrature(cell: Cell) -> dict[str, Any]:
    """Of the path; attribution patching takes the gradient at its clean end."""
    if cell.steps is None:
        return {"steps": 1, "rule": "right"}
    return {"steps": cell.steps, "rule": cell.rule}


def _ends(
    context: Context, cell: Cell, prompts: tuple[Example, ...], micro_batch: int
) -> Iterator[Ends]:
    features = context.feature_model(cell.model)
    patch = context.feature_patch(cell.build_patch, cell.dataset, "build", cell.features)
    for start in range(0, len(prompts), micro_batch):
        batch = PromptBatch.make(prompts[start : start + micro_batch])
        yield Ends.of(features, batch, patch)


# --- edges ------------------------------------------------------------------------------------


def lists_of_edges(context: Context, shard: AttributeShard) -> tuple[Writes, Extra]:
    """The largest edges of a block of inputs and target positions."""
    rows, cell = shard.rows, shard.cell
    prompts = context.prompts(cell.dataset, "build")
    first, positions = shard.block * len(prompts) + rows.start, _positions(shard, prompts)

    def compute(micro_batch: int) -> dict[str, np.ndarray]:
        mine = prompts[rows.start : rows.stop]
        parts = [
            _as_lists(_edges(shard, ends, positions), cell.keep or 0)
            for ends in _ends(context, cell, mine, micro_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    found, micro_batch = with_halving(context.settings.micro_batch, compute)
    context.check_alive()
    writes = [
        write_block(context.run, layout.ATTRIBUTIONS, layout.listed(cell.key, name), first, values)
        for name, values in found.items()
    ]
    n_bad = int((~np.isfinite(found["weight"]) & (found["target"] >= 0)).sum())
    return writes, {"micro_batch": micro_batch, "n_bad": n_bad}


def _positions(shard: AttributeShard, prompts: tuple[Example, ...]) -> range:
    """A shard's target positions, of all prompts of the split: a batch's width hangs on the
    micro-batch, and shards of the same inputs may differ in that."""
    longest = max(len(prompt) for prompt in prompts)
    bounds = np.linspace(0, longest, shard.blocks + 1).round().astype(int)
    return range(int(bounds[shard.block]), int(bounds[shard.block + 1]))


def _edges(shard: AttributeShard, ends: Ends, positions: range) -> FeatureEdges:
    cell = shard.cell
    nodes = attribute_nodes(ends, cell.build_metric, **_quadrature(cell))
    how = EdgeSettings(target=cell.target, keep=cell.keep, **_quadrature(cell))
    return attribute_edges(ends, nodes, cell.build_metric, how, positions)


def _as_lists(found: FeatureEdges, keep: int) -> dict[str, np.ndarray]:
    """Rows of equal length; what is over is -1 and NaN."""
    n = len(found.inputs)
    arrays = {
        name: np.full((n, keep), -1 if dtype == "int64" else np.nan, dtype=dtype)
        for name, dtype in layout.LISTS.items()
    }
    for name, rows in arrays.items():
        for row, edges in zip(rows, found.inputs, strict=True):
            row[: len(edges.source)] = getattr(edges, name)
    scale = np.where(found.scale > 0, found.scale, 1.0)
    rest = {
        "count": [len(edges.source) for edges in found.inputs],
        "dropped": [edges.dropped_sum for edges in found.inputs],
        "dropped_abs": [edges.dropped_abs for edges in found.inputs],
        "residual": (found.residual / scale).max(1),
    }
    return arrays | {name: np.asarray(v, dtype=np.float64) for name, v in rest.items()}


# --- reduction --------------------------------------------------------------------------------


def reduce_lists(context: Context, shard: ReduceShard) -> tuple[Writes, Extra]:
    """The strongest edges of all inputs, and their statistics, of all and of each member."""
    cell, lists = shard.cell, _Lists(context, shard)
    n_parts = max(1, -(-lists.n_entries // PART_ENTRIES))
    parts = [lists.fold(part, n_parts) for part in range(n_parts)]
    n_edges = context.settings.feature_edges
    codes, dropped = strongest([_all(members) for members in parts], n_edges)
    context.check_alive()
    ends = np.full((n_edges, 2), -1, dtype=np.int64)
    ends[: len(codes), 1], ends[: len(codes), 0] = np.divmod(codes, lists.n_nodes)
    writes = [write_block(context.run, layout.AGGREGATES, layout.edges(cell.key), 0, ends)]
    names = lists.members if len(lists.members) > 1 else []
    for i, subset in enumerate(["all", *names]):
        folds = [_all(members) if subset == "all" else members[i - 1] for members in parts]
        group = ReduceShard(cell, subset, ()).group
        for name, values in _at(folds, codes).items():
            padded = np.full(n_edges, np.nan) if name in fold.AGGREGATIONS else np.zeros(n_edges)
            padded[: len(codes)] = values
            typed = padded.astype(np.float64 if name in fold.AGGREGATIONS else np.int64)
            path = layout.folded(group, name)
            writes.append(write_block(context.run, layout.AGGREGATES, path, 0, typed))
    return writes, {"dropped_share": max(dropped, 0.0)}


def _all(members: list[SparseFold]) -> SparseFold:
    total = SparseFold.empty()
    for member in members:
        total = total.merge(member)
    return total


def _at(folds: list[SparseFold], codes: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of some edges, each from the part that it falls into."""
    place = part_of(codes, len(folds))
    whole: dict[str, np.ndarray] = {}
    for part, found in enumerate(folds):
        mine = place == part
        for name, values in found.at(codes[mine]).finish().items():
            whole.setdefault(name, np.zeros(len(codes)))[mine] = values
    return whole


class _Lists:
    """The committed lists of a cell, a shard at a time.

    Attributes:
        members: names of the member tasks, in order.
        n_nodes: nodes and the logits; an edge's code is target * n_nodes + source.
        n_entries: of all lists together, at most.
    """

    def __init__(self, context: Context, shard: ReduceShard) -> None:
        self._context, self._shard = context, shard
        self.n_nodes = context.settings.features[shard.cell.model].n_nodes + 1
        log = context.log
        self._records = [log.record(shard.leaf_stage, key)["writes"] for key in shard.leaves]
        self._n_inputs = len(context.prompts(shard.cell.dataset, "build"))
        tasks = [p.task for p in context.prompts(shard.cell.dataset, "build")]
        self.members = list(dict.fromkeys(tasks))
        self._member = [self.members.index(task) for task in tasks]
        self.n_entries = sum(self._rows(r) for r in self._records) * (shard.cell.keep or 0)

    def _rows(self, writes: Writes) -> int:
        return int(self._write(writes, "source")["rows"])

    def _write(self, writes: Writes, name: str) -> dict[str, Any]:
        return next(w for w in writes if w["array"] == layout.listed(self._shard.cell.key, name))

    def fold(self, part: int, n_parts: int) -> list[SparseFold]:
        """The fold of each member, over the edges of one part."""
        inputs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for writes in self._records:
            for number, codes, weights in self._lists(writes):
                mine = part_of(codes, n_parts) == part
                inputs.setdefault(number, []).append((codes[mine], weights[mine]))
        per_input = [
            (np.concatenate([c for c, _ in inputs[i]]), np.concatenate([w for _, w in inputs[i]]))
            for i in sorted(inputs)
        ]
        return [
            fold_inputs(v for v, member in zip(per_input, self._member, strict=True) if member == m)
            for m in range(len(self.members))
        ]

    def _lists(self, writes: Writes) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(input, codes, weights) of one shard."""
        blocks = {
            name: read_block(self._context.run, self._write(writes, name))
            for name in ("source", "target", "weight")
        }
        first = self._write(writes, "source")["start"]
        for row in range(len(blocks["source"])):
            there = blocks["target"][row] >= 0
            codes = blocks["target"][row][there] * self.n_nodes + blocks["source"][row][there]
            yield (first + row) % self._n_inputs, codes, blocks["weight"][row][there]
