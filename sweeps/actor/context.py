"""What a worker holds while it lives: its model, the prompts, the means; each loaded once.

`WorkerSettings` is all that a worker is told, small and picklable; the rest it reads from the run
directory, which every worker must be able to reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from edgesweep.engine.blockmodel import Interpreter, find_interpreter
from edgesweep.engine.dictionaries import Dictionary
from edgesweep.engine.dictionaries.files import load_dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import FeaturePatch, make_feature_patch
from edgesweep.engine.model import ChangedError, ModelSource, load_model
from edgesweep.engine.network import Network
from edgesweep.engine.patches import Patch, make_patch, mean_groups, resample_partners
from edgesweep.engine.runtime import check_granted, parent_alive
from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.blocks import read_block, read_file
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.sweeps.actor.models import models_address, on_this_node
from edgesweep.sweeps.actor.place import processor
from edgesweep.sweeps.stages.means import MeanShard
from edgesweep.tasks import Example, example_of

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.granularity.base import Nodes
    from edgesweep.sweeps.granularity.featuresets import FeatureSet, SiteDictionary
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.stages.base import Stage

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetSource:
    """Of what a dataset's prompts are: a model's label, and the seed that drew them."""

    model: str
    seed: int


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a run is told.

    Attributes:
        run: the run directory, or its address.
        config: what the run is asked to do.
        sources: label -> where that model lies.
        datasets: key of a dataset -> what its prompts are of.
        nodes: (label of a model, name in `sweep.nodes`) -> how it is taken apart.
        stages: what workers do, by name.
        nonce: of the driver's lease. versions: of what makes numbers, where the driver runs.
    """

    run: Path | str
    config: Config
    sources: Mapping[str, ModelSource]
    datasets: Mapping[str, DatasetSource]
    nodes: Mapping[tuple[str, str], Nodes]
    stages: Mapping[str, Stage[Any]]
    nonce: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


class ZombieError(RuntimeError):
    """This worker's raylet is gone: another worker has, or will have, its shard."""


@dataclass
class Context:
    """A worker's own copies, made as shards ask for them."""

    settings: WorkerSettings
    _model: Any = field(default=None)
    _model_label: str = field(default="")
    _features: dict[str, FeatureModel] = field(default_factory=dict)
    _tables: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    _held: tuple[str, Any] = ("", None)

    @property
    def config(self) -> Config:
        return self.settings.config

    @property
    def sources(self) -> Mapping[str, ModelSource]:
        return self.settings.sources

    @property
    def datasets(self) -> Mapping[str, DatasetSource]:
        return self.settings.datasets

    @property
    def micro_batch(self) -> int:
        return self.config.execution.micro_batch

    @property
    def device(self) -> str | list[str]:
        """Where models go; several devices where an actor has several whole GPUs."""
        execution = self.config.execution
        if execution.gpus_per_actor > 1:
            return [f"cuda:{i}" for i in range(execution.gpus_per_actor)]
        return "cuda" if execution.gpus > 0 else "cpu"

    @cached_property
    def run(self) -> RunDirectory:
        return RunDirectory.open(self.settings.run)

    @cached_property
    def log(self) -> CommitLog:
        return CommitLog(self.run)

    def held(self, key: str, make: Callable[[], T]) -> T:
        """What shards that follow each other have in common; one such thing is held at a time."""
        if self._held[0] != key:
            self._held = "", None
            self._held = key, make()
        found: T = self._held[1]
        return found

    def model(self, label: str, dtype: str | None = None) -> Any:
        """The model, in the run's precision or another; one is held at a time."""
        execution = self.config.execution
        dtype = dtype or execution.dtype
        if self._model is None or self._model_label != f"{label} {dtype}":
            self._model, self._features = None, {}
            staged = models_address(str(self.settings.run), execution)
            source = on_this_node(self.sources[label], staged)
            self._model = load_model(source, self.device, dtype)
            self._model_label = f"{label} {dtype}"
        return self._model

    def feature_model(self, chosen: FeatureSet) -> FeatureModel:
        """The model with the dictionaries of its sites; one set is held at a time."""
        model = self.model(chosen.model)
        if chosen.digest not in self._features:
            self._features = {}
            found = {d.site: self._dictionary(model, d) for d in chosen.dictionaries}
            self._features = {chosen.digest: FeatureModel(model, found)}
        return self._features[chosen.digest]

    def _dictionary(self, model: Network, wanted: SiteDictionary) -> Dictionary:
        source = wanted.source
        if wanted.trained is not None:
            return self.dictionary_of(wanted.key, wanted.width).to(model.device, model.dtype)
        found = load_dictionary(source, d_model=wanted.width)
        if found.digest != wanted.digest:
            raise ChangedError(
                f"dictionary {source!r} of site {wanted.site} is not the one that the run was "
                "planned with; put that one back, or start another run"
            )
        return found.to(model.device, model.dtype)

    def dictionary_of(self, key: str, width: int) -> Dictionary:
        """One that the run made."""
        write = self.log.record("dictionaries", key)["writes"][0]
        return load_dictionary(str(self._file(write)), d_model=width)

    def _file(self, write: Mapping[str, Any]) -> Path:
        """A committed file, as one of this machine."""
        data = read_file(self.run, write)  # is it what was committed?
        if isinstance(self.settings.run, Path):
            return self.settings.run / write["file"]
        path = Path(self._scratch.name) / Path(write["file"]).name
        path.write_bytes(data)
        return path

    @cached_property
    def _scratch(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="edgesweep-")

    def nodes(self, cell: Cell) -> Nodes:
        """How a cell's model is taken apart."""
        return self.nodes_of(cell.model, cell.nodes)

    def nodes_of(self, model: str, name: str) -> Nodes:
        """How a model is taken apart under a name in `sweep.nodes`."""
        return self.settings.nodes[model, name]

    def prompts(self, dataset: str, split: str) -> Sequence[Example]:
        """The prompts of a split, "build" or "eval"; read when they are asked for."""
        return PromptRows(self.run, dataset, split, example_of)

    def patch(self, kind: str, dataset: str, split: str) -> Patch:
        """A patch of that kind for prompts of a split, "build" or "eval"; a mean's tables are read
        from their committed shards."""
        return make_patch(
            kind,
            self._means(dataset) if kind == "mean" else None,
            pooled=self.config.data.pooled,
            partners=self._partners(kind, dataset, split),
            seed=self.datasets[dataset].seed,
            noise_scale=self.config.data.noise_scale,
        )

    def feature_patch(self, kind: str, dataset: str, split: str, features: str) -> FeaturePatch:
        """The same for features and error terms, of the dictionaries with that digest."""
        return make_feature_patch(
            kind,
            self._means(dataset, features) if kind == "mean" else None,
            pooled=self.config.data.pooled,
            partners=self._partners(kind, dataset, split),
        )

    def _partners(
        self, kind: str, dataset: str, split: str
    ) -> dict[tuple[int, ...], tuple[int, ...]] | None:
        if kind != "resample":
            return None
        return resample_partners(self.prompts(dataset, split), self.datasets[dataset].seed)

    def _means(self, dataset: str, nodes: str = "") -> dict[str, np.ndarray]:
        source = layout.source(dataset, nodes)
        if source not in self._tables:
            pooled = self.config.data.pooled
            named = dict.fromkeys(mean_groups(self.prompts(dataset, "build"), pooled=pooled))
            shards = [MeanShard(dataset, g, i, digest=nodes) for i, g in enumerate(named)]
            self._tables[source] = {shard.group: self._mean(shard) for shard in shards}
        return self._tables[source]

    def _mean(self, shard: MeanShard) -> np.ndarray:
        return read_block(self.run, self.log.record("means", shard.key)["writes"][0])

    @cached_property
    def interpreter(self) -> Interpreter:
        found = find_interpreter(self.config.execution.graph_tool)
        if found is None:
            raise RuntimeError("this machine has no interpreter with graph-tool")
        return found

    @property
    def device_name(self) -> str:
        """What the receipt calls the processor."""
        if self.device == "cpu":
            return f"cpu {processor()}"
        name, n = torch.cuda.get_device_name(), self.config.execution.gpus_per_actor
        return f"{n} x {name}" if n > 1 else name

    def check_alive(self) -> None:
        """Before every write. Raises ZombieError, and NotGranted if a copy of this work writes."""
        if not parent_alive():
            raise ZombieError("this worker's raylet is gone; it writes nothing more")
        check_granted()
