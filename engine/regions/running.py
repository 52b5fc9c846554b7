"""Running circuits of regions: edges dropped, one mask for each pair of regions; or nodes.

As over features (`engine.features.ablation.edge_ablation`), with regions in place of features:

1. Sites in forward order. A region r′ of site t sees every parent s at
   x_s = x_s,patch + Σ_{kept r} y_r^G, y_r^G what r is in this run (`graph`).
2. x_t = segment_t(x) once for each distinct mask of a circuit; of each, only the regions that have
   this mask are read: y_{r′}^G.
3. The logits are a target like the others.

A region is read from its own stream at every position, so no mask is fallen back on. Pinned by
tests/regions/test_graph.py to circuits of features and of heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edgesweep.engine.features.ablation.node_ablation import KeptNodes, run_node_sets
from edgesweep.engine.features.ablation.setting import MICRO_BYTES, check_sites
from edgesweep.engine.features.values import NodeValues, split
from edgesweep.engine.graph import prune
from edgesweep.engine.network.base import LOGITS, Inputs, Value
from edgesweep.engine.regions.graph import PartitionedGraph, Partitions
from edgesweep.engine.regions.inflow import Joined

#: y of a site's nodes in one circuit's run, `[inputs, positions, slots, width]`
Vectors = Float[Tensor, "inputs positions slots width"]


class _Run:
    """One input batch, its patch values, and how sites follow from their parents."""

    def __init__(
        self,
        regions: Partitions,
        inputs: Inputs,
        values: tuple[NodeValues, NodeValues],
        micro_bytes: int,
    ) -> None:
        self.regions, self.features, self.inputs = regions, regions.features, inputs
        self.clean, self.patch = values
        self.at_once = max(1, micro_bytes // self.features.model.row_bytes(inputs.real.shape[1]))
        self.joined = Joined(self.features, inputs, self.patch)
        self._places = {site.name: site for site in self.features.sites}

    def root(self) -> Vectors:
        """The first site is the clean run's."""
        site = self.features.sites[0].name
        y = self.regions.differences(site, self.clean, self.patch)
        return y * self.inputs.real[..., None, None]

    def segment(self, target: str, seen: Mapping[str, Value]) -> Tensor:
        """Of rows of every input, `[masks, inputs, positions, width]` a parent; so returned."""
        n = len(self.inputs.read)
        flat = {name: value.flatten(0, 1) for name, value in seen.items()}
        parts = []
        n_rows = len(next(iter(flat.values())))
        for some in torch.arange(n_rows).split(self.at_once):
            values = {name: value[some] for name, value in flat.items()}
            found = self.joined.section(target, values, some % n)
            if target == LOGITS:
                found = self.features.model.logits(found, self.inputs, some % n)
            parts.append(found)
        return torch.cat(parts).unflatten(0, (-1, n))

    def read(self, site: str, x: Float[Tensor, "masks inputs positions width"]) -> Tensor:
        """y of all regions of a site at some values of it."""
        dictionary = self.features.dictionary(site)
        f, error = split(dictionary, x)
        every = torch.arange(dictionary.n_features)
        f = f - self.patch.features(site, every)
        y = self.regions.vectors(site, f, error - self.patch.error(site))
        return y * self.inputs.real[..., None, None]

    def seen(self, site: str, kept: Bool[Tensor, "masks slots"], y: Vectors) -> Value:
        """x_s of each mask."""
        return self.joined.at_patch(site) + torch.einsum("ms,ipsw->mipw", kept.to(y), y)

    def written(self, site: str, y: Vectors) -> Vectors:
        """What a site's nodes add to where it is joined with others (`inflow`)."""
        return self.features.model.written(self._places[site], y)


@torch.no_grad()
def run_region_circuits(
    regions: Partitions,
    inputs: Inputs,
    values: tuple[NodeValues, NodeValues],
    graph: PartitionedGraph,
    masks: Bool[np.ndarray, "circuits edges"],
    *,
    micro_bytes: int = MICRO_BYTES,
) -> Float[Tensor, "circuits inputs outputs"]:
    """Logits of every circuit's edge-ablated run, at the read positions.

    Args:
        values: of nodes in the clean run, and those of dropped edges.
        masks: kept edges of `graph`.

    Raises:
        ValueError: a graph over other sites.
    """
    check_sites(regions.features, graph)
    run = _Run(regions, inputs, values, micro_bytes)
    found = []
    for mask in masks:
        kept = prune(graph, mask, both_sides=values[1].from_one_run)
        found.append(_edge_ablated(run, graph, kept))
    return torch.stack(found)


def _edge_ablated(
    run: _Run, graph: PartitionedGraph, mask: Bool[np.ndarray, " edges"]
) -> Float[Tensor, "inputs outputs"]:
    root = run.features.sites[0].name
    y: dict[str, Vectors] = {root: run.root()}
    written = {root: run.written(root, y[root])}
    table = np.zeros((len(graph.targets), len(graph.sources)), dtype=bool)
    table[graph.edge_target[mask], graph.edge_source[mask]] = True
    for block in graph.blocks:
        rows = table[block.first_target : block.first_target + block.n_targets]
        distinct, which = np.unique(rows, axis=0, return_inverse=True)
        seen = {}
        names, apart = (
            [p.name for p in run.joined.parents(block.site)],
            run.joined.apart(block.site),
        )
        for name in names:
            of, vectors = ([name], y) if name in y else (apart, written)
            slots = torch.cat([_slots(run, graph, site, distinct) for site in of], 1)
            seen[name] = run.seen(name, slots, torch.cat([vectors[site] for site in of], 2))
        out = run.segment(block.site, seen)
        if block.site == LOGITS:
            return out[0]
        read, places = run.read(block.site, out), torch.as_tensor(which.ravel())
        y[block.site] = read.new_zeros(read.shape[1:])
        slots = torch.arange(block.n_targets)  # the rest is the last, where it is a node
        picked = read[places, ..., slots, :]  # [targets, inputs, positions, width]
        y[block.site][..., : block.n_targets, :] = picked.movedim(0, 2)
        written[block.site] = run.written(block.site, y[block.site])
    raise AssertionError("a graph ends at its logits")


def _slots(
    run: _Run, graph: PartitionedGraph, site: str, rows: Bool[np.ndarray, "masks sources"]
) -> Bool[Tensor, "masks slots"]:
    """What masks keep of a site, for all its slots."""
    kept = rows[:, graph.site_nodes(site)]
    lacking = run.regions.n_slots(site) - kept.shape[1]
    return torch.as_tensor(np.pad(kept, [(0, 0), (0, lacking)]))


def run_region_nodes(
    regions: Partitions,
    inputs: Inputs,
    values: tuple[NodeValues, NodeValues],
    graph: PartitionedGraph,
    kept: Bool[np.ndarray, "circuits nodes"],
    *,
    micro_bytes: int = MICRO_BYTES,
) -> Float[Tensor, "circuits inputs outputs"]:
    """Logits of runs in which the nodes that are not kept have their patch value: those of their
    features (`engine.features.ablation.node_ablation`).

    Args:
        kept: of `graph.nodes`; the logits are kept in any case.
    """
    sets = [
        {site.name: _kept(regions, graph, site.name, some) for site in regions.features.sites}
        for some in kept
    ]
    return run_node_sets(regions.features, inputs, *values, sets, micro_bytes=micro_bytes)


def _kept(
    regions: Partitions, graph: PartitionedGraph, site: str, kept: Bool[np.ndarray, " nodes"]
) -> KeptNodes:
    """The features of a site's kept regions."""
    here = kept[graph.site_nodes(site)]
    slots = np.pad(here, (0, regions.n_slots(site) - len(here)), constant_values=True)
    return KeptNodes(np.flatnonzero(slots[regions.slots(site).numpy()]), bool(slots[-1]))
