"""The interaction graphs of a run as values: bases, interactions, the graph of those that are
needed, and what each input's were."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch

from edgesweep.engine.bases.ablation import strongest
from edgesweep.engine.bases.interactions import Interactions
from edgesweep.engine.bases.rotation import Basis, identity
from edgesweep.engine.graph.circuit import Circuit
from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.blocks import read_block, read_file
from edgesweep.storage.tables import EDGES_NEEDED, read_table

if TYPE_CHECKING:
    import xarray
    from torch import Tensor

#: what a file of bases says that it is
FORMAT = "edgesweep bases 1"


class InteractionGraph:
    """One graph of a run: `Run.interaction_graph` finds it.

    Attributes:
        about: what plan.json says of it: `key`, `model`, `task`, `basis`, `layers`, `widths`,
            `steps`, `rule`.
    """

    def __init__(self, directory: RunDirectory, about: Mapping[str, Any]) -> None:
        self._directory, self.about = directory, dict(about)
        self._log = CommitLog(directory)

    def __repr__(self) -> str:
        told = (self.about[name] for name in ("basis", "model", "task"))
        return f"InteractionGraph({', '.join(told)}: {' -> '.join(self.layers)})"

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.about["layers"])

    @cached_property
    def bases(self) -> dict[str, Basis]:
        """Of each layer; of one that is not rotated its coordinates. Raises StorageError where one
        is not committed."""
        widths = dict(zip(self.layers, self.about["widths"], strict=True))
        found = {layer: self._read("rotations", self._of(layer)) for layer in self.about["rotated"]}
        return {
            layer: Basis(**found[layer]) if layer in found else identity(width)
            for layer, width in widths.items()
        }

    def interactions(self, start: str) -> Interactions:
        """E² of the section from a layer, with its standard error."""
        self._end(start)
        return Interactions(**self._read("interactions", f"{self.about['key']}.{start}"))

    def circuit(self, search: str = "robust", *, n_edges: int | None = None) -> Circuit:
        """The interactions that are needed, weighted by E: with `to_graphml`, `to_json` and
        `to_networkx`. Nodes are `mid0/d7`, the constant is none.

        Args:
            search: whose numbers: `robust`, or `bisect` (as published).
            n_edges: the strongest so many of each section instead.

        Raises:
            ValueError: a section was not searched, as that of a network that only guesses.
        """
        edges: dict[str, float | None] = {}
        for start in self.layers[:-1]:
            end = self._end(start)
            square = self.interactions(start).mean_square[:, 1:]
            n = self._needed(start, end, search) if n_edges is None else n_edges
            sources, targets = (self._names(layer) for layer in (start, end))
            kept = np.argwhere(strongest(square, n))
            strength = square.sqrt().numpy()
            order = np.argsort(-strength[tuple(kept.T)], kind="stable")
            for i, j in kept[order].tolist():
                edges[f"{sources[j]}->{targets[i]}"] = float(strength[i, j])
        told = {"n_edges": n_edges} if n_edges is not None else {"search": search}
        key, model, task = (str(self.about[name]) for name in ("key", "model", "task"))
        selected = {**told, **{name: self.about[name] for name in ("basis", "steps", "rule")}}
        return Circuit(edges, name=key, model=model, task=task, selected=selected)

    def inputs(self, start: str) -> xarray.DataArray:
        """Σ_s A² of each build input in the section from a layer (`interactions.keep_inputs`):
        `[input, target, source]`, the constant first among sources; their sum over inputs, divided
        by positions, is E².

        Raises:
            ValueError: the run keeps none.
        """
        import xarray

        if not self._directory.config["interactions"]["keep_inputs"]:
            raise ValueError("the run keeps no interactions of inputs; interactions.keep_inputs")
        name = layout.interaction_inputs(str(self.about["key"]), start)
        writes = [
            write
            for record in self._log.records("interaction_sums")
            for write in record["writes"]
            if write.get("array") == name
        ]
        sources = [f"{start}/const", *self._names(start)]
        targets = self._names(self._end(start))
        parts = [
            read_block(self._directory, write)[:, : len(targets), : len(sources)]
            for write in sorted(writes, key=lambda write: int(write["start"]))
        ]
        dims = ("input", "target", "source")
        coords = {"target": targets, "source": sources}
        return xarray.DataArray(np.concatenate(parts), coords, dims, attrs=dict(self.about))

    def save_bases(self, path: str | Path) -> None:
        """All bases in one safetensors file, float64: `<layer>/mean` [d], `encode` (C) [d, k],
        `decode` (C⁺) [k, d], `importance` (Λ) [k], `variances`, `spectrum`, `constant`. The file's
        header says of what they are."""
        tensors = {
            f"{layer}/{name}": value.contiguous().clone()
            for layer, basis in self.bases.items()
            for name, value in basis.tensors().items()
        }
        told = {name: _text(value) for name, value in self.about.items()}
        about = {"format": FORMAT, "run": self._directory.run_id, **told}
        safetensors.torch.save_file(tensors, path, metadata=about)

    def _needed(self, start: str, end: str, search: str) -> int:
        table = read_table(self._directory, EDGES_NEEDED)
        of = {"graph": self.about["key"], "source": start, "target": end}
        for column, value in of.items():
            table = table[table[column] == value]
        found = table[table["search"] == search]["edges"]
        if found.empty:
            there = ", ".join(sorted(set(table["search"]))) or "none"
            raise ValueError(
                f"{start} -> {end} has no edges needed by search {search!r} (there: {there}); give "
                "another, or n_edges"
            )
        return int(found.iloc[0])

    def _names(self, layer: str) -> list[str]:
        return [f"{layer}/{name}" for name in self.bases[layer].names()]

    def _end(self, start: str) -> str:
        if start not in self.layers[:-1]:
            raise ValueError(f"no section is from {start!r}; allowed: {self.layers[:-1]}")
        return self.layers[self.layers.index(start) + 1]

    def _of(self, layer: str) -> str:
        return f"{self.about['bases']}.{layer}"

    def _read(self, stage: str, key: str) -> dict[str, Tensor]:
        return safetensors.torch.load(
            read_file(self._directory, self._log.record(stage, key)["writes"][0])
        )


def interaction_graph(directory: RunDirectory, choices: Mapping[str, Any]) -> InteractionGraph:
    """The one graph of a run with these values. Raises ValueError."""
    graphs = directory.plan.get("graphs") or []
    known = [name for name in graphs[0] if name not in ("layers", "widths")] if graphs else []
    if unknown := [name for name in choices if graphs and name not in known]:
        raise ValueError(f"unknown {unknown[0]!r}; allowed: {', '.join(known)}")
    found = [g for g in graphs if all(g[name] == value for name, value in choices.items())]
    if len(found) == 1:
        return InteractionGraph(directory, found[0])
    told = ", ".join(f"{g['basis']} of {g['model']} on {g['task']}" for g in found or graphs)
    what = f"{len(found)} interaction graphs are so" if found else "no interaction graph is so"
    raise ValueError(f"{what}; there is {told or 'none'}")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
