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
3. Sums over sources are had for the ports of several layers at once (`engine.ablation.sums`).
4. A norm is one number a position: ports project the stream as it is, and their results are scaled.

Node ablation is edge ablation with `node_circuit`'s mask. Pinned by tests/evaluation against one
port at a time (`SlowModel`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.ablation.sharing import AttentionWork, distinct_rows, rows_of, wanted_sources
from edgesweep.engine.ablation.sums import GROUP, CircuitSums
from edgesweep.engine.graph import EdgeGraph, PortBlock, prune
from edgesweep.engine.network import Inputs, Model, SourceValues
from edgesweep.engine.network.architectures import Heads
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
        self.circuits = [
            CircuitSums(self.graph, mask, wanted, inputs.embed)
            for mask, wanted in zip(self.masks, self.wanted, strict=True)
        ]

    def logits(self) -> Float[Tensor, "circuits inputs vocab"]:
        everywhere = np.arange(len(self.masks))
        delta = (self.inputs.embed - self.patch.embed).flatten()[None]
        group = np.zeros(len(self.masks), dtype=np.int64)
        self._publish(np.zeros(1, dtype=np.int64), delta, everywhere, group, self.wanted[:, :1])
        for layer in range(self.model.spec.n_layers):
            if layer % GROUP == 0:
                self._begin(self.graph.blocks[2 * layer : 2 * (layer + GROUP)])
            self._layer(*self.graph.blocks[2 * layer : 2 * layer + 2])
        return self._final(self.graph.blocks[-1])

    # --- what ports read -------------------------------------------------------------------
    def _keys(self, block: PortBlock) -> Int[np.ndarray, "circuits targets sources"]:
        """Ids of the kept parents of every port: equal keys, equal streams."""
        kept = self.masks[:, block.edges].reshape(-1, block.n_targets, block.n_sources)
        ids = np.stack([c.ids[: block.n_sources] for c in self.circuits])
        return kept * ids[:, None]

    def _begin(self, blocks: Sequence[PortBlock]) -> None:
        """The sums over all sources so far, for the ports of a group of layers."""
        blocks = [block for block in blocks if block.kind != "logits"]
        needed = [self._needed(block) for block in blocks]
        for number, circuit in enumerate(self.circuits):
            circuit.begin(blocks, [of_block[number] for of_block in needed])

    def _needed(self, block: PortBlock) -> Bool[np.ndarray, "circuits ports"]:
        """Ports of a block that are to be computed, but for those that circuits share."""
        needed = np.zeros((len(self.masks), block.n_targets), dtype=bool)
        active = self._active(block)
        needed[active] = self._needed_ports(active, block) if block.kind == "attention" else True
        return needed

    def _streams(
        self, blocks: tuple[PortBlock, ...], rows: tuple[Int[np.ndarray, "_ 2"], ...]
    ) -> list[Float[Tensor, "_ numbers"]]:
        """What (circuit, port) rows of blocks read of the sources before the first block."""
        circuit, base = np.concatenate([r[:, 0] for r in rows]), self.stream.flatten()
        order, parts = np.argsort(circuit, kind="stable"), []
        for number in np.unique(circuit):
            ports = [r[r[:, 0] == number, 1] for r in rows]
            parts.append(self.circuits[number].streams(blocks, ports, base))
        out = torch.cat([base.new_empty(0, base.numel()), *parts]) if len(parts) != 1 else parts[0]
        return list(rows_of(out, np.argsort(order)).split([len(r) for r in rows]))

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
        streams = self._streams((attention, mlp), (work.rows, mlp_rows))
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
        first, n_heads = self._heads(block.layer).start, self.model.spec.n_heads
        changed = [self._changed(work.keys, head) for head in range(n_heads)]
        reads = self.wanted[work.active, first : first + n_heads] & np.stack(changed, axis=1)
        self._publish_heads(block, work, z, reads)

    def _publish_heads(
        self,
        block: PortBlock,
        work: AttentionWork,
        z: Heads,
        reads: Bool[np.ndarray, "active heads"],
    ) -> None:
        """Heads' differences to the circuits that read them; for one circuit, written where they
        are kept."""
        heads = np.flatnonzero(reads.any(0))
        if not len(heads):
            return
        sources = self._heads(block.layer).start + heads
        some = slice(None) if len(heads) == self.model.spec.n_heads else heads.tolist()
        alone = self.circuits[work.active[0]] if len(work.active) == 1 else None
        if alone is not None:
            self.patch.changes_into(alone.room(len(heads)), block.layer, z, some)
            alone.note(sources, self.next_id + np.arange(len(heads)))
            self.next_id += len(heads)
            return
        deltas = self.stream.new_empty(len(heads), work.n_owners * self.stream.numel())
        self.patch.changes_into(deltas, block.layer, z, some)
        rows = deltas.view(-1, self.stream.numel())
        self._publish(sources, rows, work.active, work.group, reads[:, heads])

    def _project(
        self, layer: Layer, work: AttentionWork, streams: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[owners * inputs, positions, heads, d_head]` each."""
        n_ports = self.model.spec.n_attention_ports
        if np.array_equal(work.stream, np.arange(len(work.rows))) and work.n_owners == 1:
            mine = layer.project_each(work.port, streams)
            table = mine.new_zeros(n_ports, *mine.shape[1:]) if len(mine) < n_ports else mine
            if len(mine) < n_ports:
                table[torch.as_tensor(work.port)] = mine
            flat = table.movedim(0, 2)
        else:
            flat = self._project_shared(layer, work, streams).flatten(0, 1)
        n_heads, n_kv = self.model.spec.n_heads, self.model.spec.n_kv_heads
        query, key, value = flat.split([n_heads, n_kv, n_kv], dim=2)
        return query, key, value

    def _project_shared(
        self, layer: Layer, work: AttentionWork, streams: Tensor
    ) -> Float[Tensor, "owners inputs positions ports d_head"]:
        """The same where ports share streams, port by port."""
        n_ports, d_head = self.model.spec.n_attention_ports, layer.w_out.shape[1]
        table = layer.w_out.new_zeros(work.n_owners, *self.shape[:2], n_ports, d_head)
        for number in np.unique(work.port):
            mine = np.flatnonzero(work.port == number)
            which, back = np.unique(work.stream[mine], return_inverse=True)
            projected = layer.project_one(int(number), rows_of(streams, which))
            owner = slice(None) if len(mine) == work.n_owners else torch.as_tensor(work.owner[mine])
            table[owner, :, :, int(number)] = rows_of(projected, back)
        return table

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
                self.circuits[circuit].add_new(stream, block, n_before)
        written = self.model.layers[block.layer].mlp(streams.unflatten(1, self.shape))
        deltas = (written - self.patch.mlp(block.layer)).flatten(1)
        changed = keys.any(1) | (not self.patch.from_one_run)
        source = np.array([self.graph.mlp_source(block.layer)])
        self._publish(source, deltas, readers, group, changed[:, None])

    def _final(self, block: PortBlock) -> Float[Tensor, "circuits inputs vocab"]:
        owners, group = distinct_rows(self._keys(block)[:, 0])
        base = self.inputs.at_read(self.stream)

        def at_read(table: Tensor) -> Tensor:
            return self.inputs.at_read(table.unflatten(1, self.shape))

        streams = [self.circuits[owner].final(block, at_read, base) for owner in owners]
        return self.model.unembed(torch.stack(streams))[torch.as_tensor(group)]

    # --- handing values on -----------------------------------------------------------------
    def _publish(
        self,
        sources: Int[np.ndarray, " sources"],
        deltas: Float[Tensor, "sources*owners numbers"],
        circuits: Int[np.ndarray, " rows"],
        group: Int[np.ndarray, " rows"],
        reads: Bool[np.ndarray, "rows sources"],
    ) -> None:
        """Give each circuit the values of its group of the sources that it reads; equal groups
        share an id."""
        deltas = self.model.here(deltas)
        n_owners = len(deltas) // max(len(sources), 1)
        for circuit, owner, mine in zip(circuits, group, reads, strict=True):
            rows = np.flatnonzero(mine) * n_owners + owner
            room = self.circuits[circuit].room(len(rows))
            if len(rows):
                torch.index_select(deltas, 0, torch.as_tensor(rows).to(deltas.device), out=room)
                self.circuits[circuit].note(sources[mine], self.next_id + rows)
        self.next_id += len(deltas)
