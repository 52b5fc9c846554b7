"""What a worker holds while it lives: its model, the prompts, the means; each loaded once.

`WorkerSettings` is all that a worker is told, small and picklable; the rest it reads from the run
directory, which every worker must be able to reach.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from edgesweep.engine.blockmodel import BlockOptions, Interpreter, find_interpreter
from edgesweep.engine.dictionaries.base import Dictionary
from edgesweep.engine.dictionaries.files import load_dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import FeaturePatch, make_feature_patch
from edgesweep.engine.graph import EdgeGraph, Graph
from edgesweep.engine.model import ChangedError, ModelSource, load_model
from edgesweep.engine.network import Model
from edgesweep.engine.patches import Patch, make_patch, resample_partners
from edgesweep.engine.runtime import parent_alive
from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.blocks import read_block, read_file
from edgesweep.storage.records import read_record
from edgesweep.sweeps.granularity.featuresets import FeatureSet, SiteDictionary
from edgesweep.sweeps.graphs import feature_graph
from edgesweep.sweeps.plan.cells import Cell, DictionaryShard
from edgesweep.sweeps.plan.resolve import prompts_from_json
from edgesweep.tasks import Example

T = TypeVar("T")


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a run is told.

    Attributes:
        run: the run directory.
        models: label -> where it lies.
        datasets: dataset key -> label of its model.
        seeds: dataset key -> what its prompts, and so their patches, are drawn with.
        mean_shards: what is averaged (`MeanShard.source`) -> group -> key of the shard that holds
            its mean.
        features: label of a model -> its sites and dictionaries, if nodes are features.
        tasks: names of the tasks, whose prompts dictionaries are trained on.
        feature_edges: how many edges a graph over features keeps.
        feature_error: what error terms are in an ablated run.
    """

    run: Path
    models: Mapping[str, ModelSource]
    datasets: Mapping[str, str]
    seeds: Mapping[str, int]
    mean_shards: Mapping[str, Mapping[str, str]]
    features: Mapping[str, FeatureSet]
    tasks: tuple[str, ...]
    feature_edges: int
    feature_error: str
    metrics: tuple[str, ...]
    reference_metrics: tuple[str, ...]
    device: str
    dtype: str
    threads: int
    micro_batch: int
    circuits_per_batch: int
    seed: int
    pooled: bool
    mean_over: str
    noise_scale: float
    fractions: int
    bootstrap: int
    level: float
    block_options: BlockOptions | None
    graph_tool: str | None


class ZombieError(RuntimeError):
    """This worker's raylet is gone: another worker has, or will have, its shard."""


@dataclass
class Context:
    """A worker's own copies, made as shards ask for them."""

    settings: WorkerSettings
    _model: Model | None = field(default=None)
    _model_label: str = field(default="")
    _features: FeatureModel | None = field(default=None)

    @cached_property
    def run(self) -> RunDirectory:
        return RunDirectory.open(self.settings.run)

    @property
    def log(self) -> CommitLog:
        return CommitLog(self.run)

    def model(self, label: str) -> Model:
        """The model; one is held at a time."""
        if self._model is None or self._model_label != label:
            self._model = self._features = None
            source = self.settings.models[label]
            self._model = load_model(source, self.settings.device, self.settings.dtype)
            self._model_label = label
        return self._model

    def feature_model(self, label: str) -> FeatureModel:
        """The model with the dictionaries of its sites."""
        model = self.model(label)
        if self._features is None:
            chosen = self.settings.features[label].dictionaries
            found = {d.site: self._dictionary(label, d) for d in chosen}
            self._features = FeatureModel(model, found)
        return self._features

    def _dictionary(self, label: str, wanted: SiteDictionary) -> Dictionary:
        source = wanted.source
        if wanted.trained is not None:
            key = DictionaryShard(label, wanted.site, wanted.digest).key
            write = self.log.record("dictionaries", key)["writes"][0]
            read_file(self.run, write)  # is it what was committed?
            source = str(self.run.path / write["file"])
        model = self.model(label)
        found = load_dictionary(source, d_model=model.d_model)
        if wanted.trained is None and found.digest != wanted.digest:
            raise ChangedError(
                f"dictionary {source!r} of site {wanted.site} is not the one that the run was "
                "planned with; put that one back, or start another run"
            )
        return found.to(model.device, model.layers[0].w_out.dtype)

    def graph(self, label: str) -> EdgeGraph:
        """The model's graph over heads, without its weights."""
        return _graph(self.settings.models[label])

    def cell_graph(self, cell: Cell) -> Graph:
        """The graph of a cell; over features, of one whose scores are reduced."""
        if not cell.features:
            return self.graph(cell.model)
        return feature_graph(self.run, cell, self.settings.features[cell.model])

    def prompts(self, dataset: str, split: str) -> tuple[Example, ...]:
        """The prompts of a split, "build" or "eval"."""
        return _prompts(self.settings.run / layout.prompts(dataset))[split]

    def patch(self, kind: str, dataset: str, split: str) -> Patch:
        """A patch of that kind for prompts of a split, "build" or "eval"; a mean's tables are read
        from their committed shards."""
        settings = self.settings
        return make_patch(
            kind,
            self._means(dataset) if kind == "mean" else None,
            pooled=settings.pooled,
            partners=self._partners(kind, dataset, split),
            seed=settings.seeds[dataset],
            noise_scale=settings.noise_scale,
        )

    def feature_patch(self, kind: str, dataset: str, split: str, features: str) -> FeaturePatch:
        """The same for features and error terms, of the dictionaries with that digest."""
        return make_feature_patch(
            kind,
            self._means(layout.source(dataset, features)) if kind == "mean" else None,
            pooled=self.settings.pooled,
            partners=self._partners(kind, dataset, split),
        )

    def _partners(
        self, kind: str, dataset: str, split: str
    ) -> dict[tuple[int, ...], tuple[int, ...]] | None:
        if kind != "resample":
            return None
        return resample_partners(self.prompts(dataset, split), self.settings.seeds[dataset])

    def _means(self, source: str) -> dict[str, np.ndarray]:
        if source not in self._tables:
            shards = self.settings.mean_shards[source]
            self._tables[source] = {group: self._mean(key) for group, key in shards.items()}
        return self._tables[source]

    @cached_property
    def _tables(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _mean(self, shard: str) -> np.ndarray:
        return read_block(self.run, self.log.record("means", shard)["writes"][0])

    @cached_property
    def interpreter(self) -> Interpreter:
        found = find_interpreter(self.settings.graph_tool)
        if found is None:
            raise RuntimeError("this machine has no interpreter with graph-tool")
        return found

    @property
    def device_name(self) -> str:
        """What the receipt calls the processor."""
        if self.settings.device == "cpu":
            return f"cpu {platform.machine()}"
        return torch.cuda.get_device_name()

    def check_alive(self) -> None:
        """Before every write. Raises ZombieError."""
        if not parent_alive():
            raise ZombieError("this worker's raylet is gone; it writes nothing more")


@cache
def _graph(source: ModelSource) -> EdgeGraph:
    return EdgeGraph(source.spec)


@cache
def _prompts(path: Path) -> dict[str, tuple[Example, ...]]:
    """Raises StorageError for a file that is not as it was written."""
    return {split: prompts_from_json(rows) for split, rows in read_record(path).items()}


def with_halving(micro_batch: int, compute: Callable[[int], T]) -> tuple[T, int]:
    """`compute(micro_batch)`; where memory does not suffice, all of it again with half.

    Returns:
        The result, and the micro-batch it was had with.

    Raises:
        MemoryError: not even one input at a time fits.
    """
    while True:
        result = _unless_out_of_memory(compute, micro_batch)
        if result is not None:
            return result[0], micro_batch
        # Only here, after the except block, does nothing pin the tensors any more.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if micro_batch == 1:
            raise MemoryError("out of memory with one input at a time; give the actor more memory")
        micro_batch //= 2


def _unless_out_of_memory(compute: Callable[[int], T], micro_batch: int) -> tuple[T] | None:
    try:
        return (compute(micro_batch),)
    except (MemoryError, torch.OutOfMemoryError):
        return None
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            return None
        raise
