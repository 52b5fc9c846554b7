"""Running circuits: edge ablation of many circuits in one forward.

In topological order a node v takes v_G = f_v(u_G for edges (u, v) in G; u_patch for its other
parents) (design page; Dhimoïla sections 3.5.3 and 5.1, "edge ablation"). A kept parent has the
value it takes in this ablated run. A port therefore reads

    x_port = x_patch + Σ_{kept u} (u_G − u_patch),        x_patch = Σ_u u_patch + constants,

and only the differences δ_u = u_G − u_patch are carried. Work that the circuits make unnecessary is
not done, which is what makes a sweep over thresholds cheap:

1. A port is computed only if its node is read on a path to the logits (`wanted_sources`).
2. Each value has an id, equal in two circuits if the value is; ports with equal parents' ids are
   computed once. Under patches of one run (counterfactual), id 0 means "equals its patch value":
   such nodes are known already. Layers below the first difference of two circuits are thereby
   shared, and nothing is computed for an empty one.
3. A port that keeps most of its parents takes the sum of all differences less the dropped ones.

Node ablation is edge ablation with `node_circuit`'s mask. Pinned by tests/evaluation against one
port at a time (`SlowModel`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.ablation.sharing import AttentionWork, distinct_rows, rows_of, wanted_sources
from edgesweep.engine.graph import EdgeGraph, PortBlock, prune
from edgesweep.engine.network import Inputs, Model, SourceValues
from edgesweep.engine.network.layers import Layer, Stream

Masks = Bool[np.ndarray, "circuits edges"]


@torch.no_grad()
def ablated_logits(
    model: Model, inputs: Inputs, patch: SourceValues, masks: Masks
) -> Float[Tensor, "circuits inputs vocab"]:
    """Logits at the read positions of every circuit's edge-ablated run.

    Args:
        inputs: the clean batch.
        patch: values for dropped edges; fixed beforehand, the same for all circuits.
        masks: kept edges, `[circuits, edges]`.
    """
    return _AblatedRun(model, inputs, patch, masks).logits()


@dataclass
class _Circuit:
    """State of one circuit: the differences of its sources and their ids.

    Attributes:
        deltas: `[live sources, inputs * positions * d_model]`, rows filled in forward order.
        total: their sum.
        row: row of each source in `deltas`, -1 where its difference is zero or never read.
        ids: id of each source's value; 0 where the difference is zero or never read.
    """

    deltas: Float[Tensor, "rows numbers"]
    total: Float[Tensor, " numbers"]
    row: Int[np.ndarray, " sources"]
    ids: Int[np.ndarray, " sources"]
    n_rows: int = 0

    def add(self, source: int, delta: Tensor, value_id: int) -> None:
        self.deltas[self.n_rows] = delta
        self.total += delta.to(self.total.device)
        self.row[source], self.ids[source] = self.n_rows, value_id
        self.n_rows += 1


class _AblatedRun:
    """One batched forward; see the module's docstring."""

    def __init__(self, model: Model, inputs: Inputs, patch: SourceValues, masks: Masks) -> None:
        self.model, self.inputs, self.patch = model, inputs, patch
        self.graph: EdgeGraph = model.graph
        both = patch.from_one_run
        self.masks = np.stack([prune(self.graph, mask, both_sides=both) for mask in masks])
        self.wanted = wanted_sources(self.graph, self.masks)
        self.shape = inputs.embed.shape
        self.stream = patch.embed
        self.next_id = 1
        self.circuits = [self._start(wanted) for wanted in self.wanted]

    def _start(self, wanted: Bool[np.ndarray, " sources"]) -> _Circuit:
        n, embed = len(self.graph.sources), self.inputs.embed
        deltas = embed.new_empty(int(wanted.sum()), embed.numel())
        total = embed.new_zeros(embed.numel())
        return _Circuit(deltas, total, np.full(n, -1), np.zeros(n, dtype=np.int64))

    def logits(self) -> Float[Tensor, "circuits inputs vocab"]:
        everywhere = np.arange(len(self.masks))
        delta = (self.inputs.embed - self.patch.embed).flatten()[None]
        group = np.zeros(len(self.masks), dtype=np.int64)
        self._publish(0, delta, everywhere, group, self.wanted[:, 0])
        for layer in range(self.model.spec.n_layers):
            self._layer(*self.graph.blocks[2 * layer : 2 * layer + 2])
        return self._final(self.graph.blocks[-1])

    # --- what ports read -------------------------------------------------------------------
    def _keys(self, block: PortBlock) -> Int[np.ndarray, "circuits targets sources"]:
        """Ids of the kept parents of every port: equal keys, equal streams."""
        kept = self.masks[:, block.edges].reshape(-1, block.n_targets, block.n_sources)
        ids = np.stack([c.ids[: block.n_sources] for c in self.circuits])
        return kept * ids[:, None]

    def _streams(
        self,
        blocks: tuple[PortBlock, ...],
        rows: tuple[Int[np.ndarray, "_ 2"], ...],
        base: Float[Tensor, " numbers"],
    ) -> list[Float[Tensor, "_ numbers"]]:
        """x_patch + Σ kept δ over the sources before the first block, for (circuit, port) rows.

        `base` is x_patch, the same for all. The rows of one circuit, of whichever block, are one
        matrix product, so that its table of differences is read once.
        """
        n_sources = blocks[0].n_sources
        circuit = np.concatenate([r[:, 0] for r in rows])
        edge = np.concatenate(
            [b.first_edge + r[:, 1] * b.n_sources for b, r in zip(blocks, rows, strict=True)]
        )
        order, parts = np.argsort(circuit, kind="stable"), []
        for number in np.unique(circuit):
            mine = np.flatnonzero(circuit == number)
            kept = self.masks[number][edge[mine, None] + np.arange(n_sources)]
            parts.append(self._sums(self.circuits[number], kept, base))
        out = torch.cat([base.new_empty(0, base.numel()), *parts]) if len(parts) != 1 else parts[0]
        return list(rows_of(out, np.argsort(order)).split([len(r) for r in rows]))

    @staticmethod
    def _sums(state: _Circuit, kept: Bool[np.ndarray, "ports sources"], base: Tensor) -> Tensor:
        """Base + Σ kept δ, by whichever side is shorter; `kept` covers all sources so far."""
        live = np.flatnonzero(state.row[: kept.shape[1]] >= 0)
        kept = kept[:, live]
        mostly = 2 * kept.sum(1) > len(live)
        out = base.repeat(len(kept), 1)
        out[torch.as_tensor(mostly)] += state.total
        weights = np.where(mostly[:, None], kept - 1.0, kept)
        columns = np.flatnonzero(weights.any(0))
        if not len(columns):
            return out
        table = state.deltas[: state.n_rows]
        if 2 * len(columns) < state.n_rows:  # a copy of few rows beats a product over all
            table, weights = table[torch.as_tensor(state.row[live[columns]])], weights[:, columns]
        return out.addmm_(torch.as_tensor(weights).to(table), table)

    # --- modules ---------------------------------------------------------------------------
    def _layer(self, attention: PortBlock, mlp: PortBlock) -> None:
        """The streams of the layer's ports, then its heads, then its MLP.

        The MLP's stream over the sources before the layer is summed with the attention ports',
        while the differences are at hand; the layer's own heads are added when they are known.
        """
        readers = self._active(mlp)
        work = self._attention_work(attention)
        rows, prefix = distinct_rows(self._keys(mlp)[readers, 0, : attention.n_sources])
        mlp_rows = np.stack([readers[rows], np.zeros_like(rows)], axis=1)
        flat = self.stream.flatten()
        streams = self._streams((attention, mlp), (work.rows, mlp_rows), flat)
        self._attend(attention, work, streams[0])
        patched = self.model.here(self.patch.attention(attention.layer))
        if len(readers):
            self._mlp(mlp, readers, streams[1], prefix, attention.n_sources, patched)
        self.stream = self.stream + patched + self.model.here(self.patch.mlp(mlp.layer))

    def _active(self, block: PortBlock) -> Int[np.ndarray, " active"]:
        """Circuits in which something of this block must be computed."""
        if block.kind == "mlp":
            wanted = self.wanted[:, self.graph.mlp_source(block.layer)]
        else:
            wanted = np.asarray(self.wanted[:, self._heads(block.layer)].any(1))
        if self.patch.from_one_run:
            wanted = np.asarray(wanted & np.any(self.masks[:, block.edges], axis=1))
        return np.flatnonzero(wanted)

    def _heads(self, layer: int) -> slice:
        return slice(self.graph.head_source(layer, 0), self.graph.mlp_source(layer))

    def _attention_work(self, block: PortBlock) -> AttentionWork:
        """Which ports of which circuits to compute, each distinct one once."""
        active = self._active(block)
        keys = self._keys(block)[active]
        needed = self._needed_ports(active, block)
        keys[~needed] = -1
        owners, group = distinct_rows(keys)
        owner, port = np.nonzero(needed[owners])
        distinct, stream = distinct_rows(keys[owners][owner, port])
        rows = np.stack([active[owners][owner[distinct]], port[distinct]], axis=1)
        return AttentionWork(active, group, len(owners), owner, port, stream, rows, keys)

    def _needed_ports(
        self, active: np.ndarray, block: PortBlock
    ) -> Bool[np.ndarray, "active ports"]:
        """Ports of heads that are read; with coupled heads, all of them."""
        spec = self.model.spec
        wanted = self.wanted[active, self._heads(block.layer)] | spec.coupled
        groups = wanted.reshape(-1, spec.n_kv_heads, spec.n_heads // spec.n_kv_heads).any(2)
        return np.concatenate([wanted, groups, groups], axis=1)

    def _attend(self, block: PortBlock, work: AttentionWork, streams: Tensor) -> None:
        if not len(work.active):
            return
        layer, n_inputs = self.model.layers[block.layer], self.shape[0]
        query, key, value = self._project(layer, work, streams.unflatten(1, self.shape))
        rows = torch.arange(n_inputs, device=query.device).repeat(work.n_owners)
        z = layer.attend(query, key, value, self.inputs.context(block.layer, rows))
        deltas = self._head_deltas(layer, block.layer, z, work.n_owners)
        heads = self._heads(block.layer)
        for head in range(self.model.spec.n_heads):
            reads = self.wanted[work.active, heads.start + head] & self._changed(work.keys, head)
            self._publish(heads.start + head, deltas[head], work.active, work.group, reads)

    def _project(
        self, layer: Layer, work: AttentionWork, streams: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[owners * inputs, positions, heads, d_head]` each."""
        normed = layer.normed(streams)
        n_ports, d_head = layer.ports.weight.shape[:2]
        table = normed.new_zeros(work.n_owners, *self.shape[:2], n_ports, d_head)
        for number in np.unique(work.port):
            mine = np.flatnonzero(work.port == number)
            which, back = np.unique(work.stream[mine], return_inverse=True)
            projected = layer.project_port(int(number), rows_of(normed, which))
            owner = slice(None) if len(mine) == work.n_owners else torch.as_tensor(work.owner[mine])
            table[owner, :, :, int(number)] = rows_of(projected, back)
        flat = table.flatten(0, 1)
        n_heads, n_kv = self.model.spec.n_heads, self.model.spec.n_kv_heads
        query, key, value = flat.split([n_heads, n_kv, n_kv], dim=2)
        return query, key, value

    def _changed(self, keys: np.ndarray, head: int) -> Bool[np.ndarray, " active"]:
        """Circuits in which a head differs from its patch value."""
        spec = self.model.spec
        if not self.patch.from_one_run:
            return np.ones(len(keys), dtype=bool)
        if spec.coupled:
            return np.any(keys > 0, axis=(1, 2))
        group = spec.n_heads + head * spec.n_kv_heads // spec.n_heads
        mine = keys[:, [head, group, group + spec.n_kv_heads]]
        return np.any(mine > 0, axis=(1, 2))

    def _head_deltas(
        self, layer: Layer, index: int, z: Tensor, n_owners: int
    ) -> Float[Tensor, "heads owners numbers"]:
        """u_G − u_patch of every head, for each distinct circuit."""
        scale = layer.write(z)[1] if self.model.spec.coupled else None
        writes = layer.head_writes(z, scale).unflatten(1, (n_owners, -1))
        return (writes - self.patch.heads(index)[:, None]).flatten(2)

    def _mlp(
        self,
        block: PortBlock,
        readers: np.ndarray,
        prefix_streams: Float[Tensor, "distinct numbers"],
        prefix: Int[np.ndarray, " readers"],
        n_before: int,
        patched: Stream,
    ) -> None:
        keys = self._keys(block)[readers, 0]
        owners, group = distinct_rows(keys)
        streams = prefix_streams[torch.as_tensor(prefix[owners])]
        if block.n_sources > n_before:
            streams += patched.flatten()
            for stream, circuit in zip(streams, readers[owners], strict=True):
                self._add_own_heads(stream, self.circuits[circuit], circuit, block, n_before)
        written = self.model.layers[block.layer].mlp(streams.unflatten(1, self.shape))
        deltas = (written - self.patch.mlp(block.layer)).flatten(1)
        changed = keys.any(1) | (not self.patch.from_one_run)
        self._publish(self.graph.mlp_source(block.layer), deltas, readers, group, changed)

    def _add_own_heads(
        self, stream: Tensor, state: _Circuit, circuit: int, mlp: PortBlock, n_before: int
    ) -> None:
        """Add the kept differences of the MLP's own layer, the last rows of the table."""
        kept = self.masks[circuit, mlp.edges][n_before:]
        rows = state.row[n_before : mlp.n_sources][kept]
        for row in rows[rows >= 0]:
            stream += state.deltas[int(row)]

    def _final(self, block: PortBlock) -> Float[Tensor, "circuits inputs vocab"]:
        owners, group = distinct_rows(self._keys(block)[:, 0])
        rows = np.stack([owners, np.zeros_like(owners)], axis=1)
        (streams,) = self._streams((block,), (rows,), self.stream.flatten())
        logits = self.model.unembed(self.inputs.at_read(streams.unflatten(1, self.shape)))
        return logits[torch.as_tensor(group)]

    # --- handing values on -----------------------------------------------------------------
    def _publish(
        self,
        source: int,
        deltas: Float[Tensor, "owners numbers"],
        circuits: Int[np.ndarray, " rows"],
        group: Int[np.ndarray, " rows"],
        reads: Bool[np.ndarray, " rows"],
    ) -> None:
        """Give each circuit that reads it the value of its group; equal groups share an id."""
        for i in np.flatnonzero(reads):
            self.circuits[circuits[i]].add(source, deltas[group[i]], self.next_id + int(group[i]))
        self.next_id += len(deltas)
