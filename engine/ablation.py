"""Running circuits: edge ablation of many circuits in one forward.

In topological order a node v takes v_G = f_v(u_G for edges (u, v) in G; u_patch for its other
parents) (design page; Dhimoïla sections 3.5.3 and 5.1, "edge ablation"). A kept parent has the
value it takes in this ablated run. A port therefore reads

    x_port = x_patch + Σ_{kept u} (u_G − u_patch),        x_patch = Σ_u u_patch + constants,

and only the differences δ_u = u_G − u_patch are carried. Work that the circuits make unnecessary is
not done, which is what makes a sweep over thresholds cheap:

1. A port is computed only if its node is read on a path to the logits (`_wanted`).
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

from engine.graph import EdgeGraph, PortBlock, prune
from engine.model import Inputs, Model, SourceValues
from engine.model.layers import Layer, Stream

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
        deltas: `[1 + live sources, inputs * positions * d_model]`; row 0 is the sum of the others.
        row: row of each source in `deltas`, -1 where its difference is zero or never read.
        ids: id of each source's value; 0 where the difference is zero or never read.
    """

    deltas: Float[Tensor, "rows numbers"]
    row: Int[np.ndarray, " sources"]
    ids: Int[np.ndarray, " sources"]
    n_rows: int = 1

    def add(self, source: int, delta: Tensor, value_id: int) -> None:
        self.deltas[self.n_rows] = delta
        self.deltas[0] += delta
        self.row[source], self.ids[source] = self.n_rows, value_id
        self.n_rows += 1


class _AblatedRun:
    """One batched forward; see the module's docstring."""

    def __init__(self, model: Model, inputs: Inputs, patch: SourceValues, masks: Masks) -> None:
        self.model, self.inputs, self.patch = model, inputs, patch
        self.graph: EdgeGraph = model.graph
        both = patch.from_one_run
        self.masks = np.stack([prune(self.graph, mask, both_sides=both) for mask in masks])
        self.wanted = _wanted(self.graph, self.masks)
        self.shape = inputs.embed.shape
        self.stream = patch.embed
        self.next_id = 1
        self.circuits = [self._start(wanted) for wanted in self.wanted]

    def _start(self, wanted: Bool[np.ndarray, " sources"]) -> _Circuit:
        n = len(self.graph.sources)
        deltas = self.inputs.embed.new_zeros(1 + int(wanted.sum()), self.inputs.embed.numel())
        return _Circuit(deltas, np.full(n, -1), np.zeros(n, dtype=np.int64))

    def logits(self) -> Float[Tensor, "circuits inputs vocab"]:
        self._publish(0, [(self.inputs.embed - self.patch.embed).flatten()], self._all(), [0])
        for layer in range(self.model.spec.n_layers):
            attention, mlp = self.graph.blocks[2 * layer : 2 * layer + 2]
            before = self.stream
            self._attention(attention)
            self.stream = before + self.patch.attention(layer)
            self._mlp(mlp, before if self.model.spec.parallel else self.stream)
            self.stream = self.stream + self.patch.mlp(layer)
        return self._final(self.graph.blocks[-1])

    def _all(self) -> Int[np.ndarray, " circuits"]:
        return np.zeros(len(self.masks), dtype=np.int64)

    # --- what ports read -------------------------------------------------------------------
    def _keys(self, block: PortBlock) -> Int[np.ndarray, "circuits targets sources"]:
        """Ids of the kept parents of every port: equal keys, equal streams."""
        kept = self.masks[:, block.edges].reshape(-1, block.n_targets, block.n_sources)
        ids = np.stack([c.ids[: block.n_sources] for c in self.circuits])
        return kept * ids[:, None]

    def _streams(
        self, block: PortBlock, rows: Int[np.ndarray, "rows 2"], base: Stream
    ) -> Float[Tensor, "rows inputs positions d_model"]:
        """The stream of each (circuit, port) in `rows`, which are sorted by circuit."""
        out = base.new_empty(len(rows), base.numel())
        flat = base.flatten()
        start = 0
        for circuit, count in zip(*np.unique(rows[:, 0], return_counts=True), strict=True):
            ports = rows[start : start + count, 1]
            self._sums(block, int(circuit), ports, flat, out[start : start + count])
            start += count
        return out.unflatten(1, self.shape)

    def _sums(
        self, block: PortBlock, circuit: int, ports: np.ndarray, base: Tensor, out: Tensor
    ) -> None:
        """x_patch + Σ kept δ for some ports of one circuit, by whichever side is shorter."""
        state = self.circuits[circuit]
        kept = self.masks[circuit, block.edges].reshape(block.n_targets, -1)[ports]
        live = np.flatnonzero(state.row[: block.n_sources] >= 0)
        kept = kept[:, live]
        mostly = (2 * kept.sum(1) > len(live)) & self._total_is_prefix(state, block)
        signs = np.where(mostly[:, None], kept - 1.0, kept)
        weights = np.zeros((len(ports), state.n_rows), dtype=np.float32)
        weights[:, state.row[live]] = signs
        weights[:, 0] = mostly
        columns = np.flatnonzero(weights.any(0))
        table = state.deltas[: state.n_rows]
        if len(columns) < state.n_rows:
            table = table[torch.as_tensor(columns)]
            weights = weights[:, columns]
        torch.addmm(base, torch.as_tensor(weights).to(table), table, out=out)

    @staticmethod
    def _total_is_prefix(state: _Circuit, block: PortBlock) -> bool:
        """All differences so far are parents of this block, so their sum may stand for them."""
        return not (state.row[block.n_sources :] >= 0).any()

    # --- modules ---------------------------------------------------------------------------
    def _attention(self, block: PortBlock) -> None:
        first = self.graph.head_source(block.layer, 0)
        heads = slice(first, first + self.model.spec.n_heads)
        active = self._active(self.wanted[:, heads].any(1), block)
        if not len(active):
            return
        keys = self._keys(block)[active]
        needed = self._needed_ports(active, heads)
        keys[~needed] = -1
        owners, group = _distinct(keys.reshape(len(active), -1))
        queries, keys_, values = self._project(block, keys[owners], active[owners], needed[owners])
        layer = self.model.layers[block.layer]
        n_inputs = self.shape[0]
        rows = torch.arange(n_inputs, device=queries.device).repeat(len(owners))
        z = layer.attend(queries, keys_, values, self.inputs.context(block.layer, rows))
        writes = self._head_deltas(layer, block.layer, z, len(owners))
        for head in range(self.model.spec.n_heads):
            readers = self.wanted[active, heads.start + head]
            changed = self._changed(keys, head)
            self._publish_head(heads.start + head, writes[head], active, group, readers & changed)

    def _active(self, wanted: Bool[np.ndarray, " circuits"], block: PortBlock) -> np.ndarray:
        """Circuits in which something of this block must be computed."""
        if self.patch.from_one_run:
            kept = self.masks[:, block.edges].any(1)
            wanted = wanted & kept
        return np.flatnonzero(wanted)

    def _needed_ports(self, active: np.ndarray, heads: slice) -> Bool[np.ndarray, "active ports"]:
        """Ports of heads that are read; with coupled heads, all of them."""
        spec = self.model.spec
        wanted = self.wanted[active, heads]
        if spec.coupled:
            wanted = np.ones_like(wanted)
        groups = wanted.reshape(len(active), spec.n_kv_heads, -1).any(2)
        return np.concatenate([wanted, groups, groups], axis=1)

    def _changed(self, keys: np.ndarray, head: int) -> Bool[np.ndarray, " active"]:
        """Circuits in which a head differs from its patch value."""
        spec = self.model.spec
        if not self.patch.from_one_run:
            return np.ones(len(keys), dtype=bool)
        if spec.coupled:
            return (keys > 0).any((1, 2))
        group = spec.n_heads + head * spec.n_kv_heads // spec.n_heads
        return (keys[:, [head, group, group + spec.n_kv_heads]] > 0).any((1, 2))

    def _project(
        self, block: PortBlock, keys: np.ndarray, circuits: np.ndarray, needed: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each distinct circuit, rows [owners * inputs]."""
        layer, spec = self.model.layers[block.layer], self.model.spec
        owner, port = np.nonzero(needed)
        distinct, stream_of = _distinct(keys[owner, port])
        rows = np.stack([circuits[owner[distinct]], port[distinct]], axis=1)
        order = np.argsort(rows[:, 0], kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        normed = layer.norm_attention(self._streams(block, rows[order], self.stream))
        d_head = layer.ports.weight.shape[1]
        table = normed.new_zeros(len(circuits), *self.shape[:2], block.n_targets, d_head)
        for number in range(block.n_targets):
            mine = np.flatnonzero(port == number)
            if len(mine):
                which, back = np.unique(place[stream_of[mine]], return_inverse=True)
                projected = layer.project_port(number, normed[torch.as_tensor(which)])
                table[torch.as_tensor(owner[mine]), :, :, number] = projected[torch.as_tensor(back)]
        flat = table.flatten(0, 1)
        kv = spec.n_heads + spec.n_kv_heads
        return flat[:, :, : spec.n_heads], flat[:, :, spec.n_heads : kv], flat[:, :, kv:]

    def _head_deltas(
        self, layer: Layer, index: int, z: Tensor, n_owners: int
    ) -> Float[Tensor, "heads owners numbers"]:
        """u_G − u_patch of every head, for each distinct circuit."""
        _, scale = layer.write(z) if self.model.spec.coupled else (None, None)
        writes = layer.head_writes(z, scale).unflatten(1, (n_owners, -1))
        return (writes - self.patch.heads(index)[:, None]).flatten(2)

    def _mlp(self, block: PortBlock, base: Stream) -> None:
        source = self.graph.mlp_source(block.layer)
        active = self._active(self.wanted[:, source], block)
        if not len(active):
            return
        keys = self._keys(block)[active, 0]
        owners, group = _distinct(keys)
        rows = np.stack([active[owners], np.zeros_like(owners)], axis=1)
        written = self.model.layers[block.layer].mlp(self._streams(block, rows, base))
        deltas = (written - self.patch.mlp(block.layer)).flatten(1)
        changed = keys.any(1) | (not self.patch.from_one_run)
        self._publish_head(source, deltas, active, group, changed)

    def _final(self, block: PortBlock) -> Float[Tensor, "circuits inputs vocab"]:
        keys = self._keys(block)[:, 0]
        owners, group = _distinct(keys)
        rows = np.stack([owners, np.zeros_like(owners)], axis=1)
        streams = self._streams(block, rows, self.stream)
        logits = self.model.unembed(self.inputs.at_read(streams))
        return logits[torch.as_tensor(group)]

    # --- handing values on -----------------------------------------------------------------
    def _publish_head(
        self,
        source: int,
        deltas: Float[Tensor, "owners numbers"],
        active: np.ndarray,
        group: np.ndarray,
        readers: Bool[np.ndarray, " active"],
    ) -> None:
        """Give each reading circuit the value of its group; equal groups share an id."""
        ids = self.next_id + group
        self.next_id += len(deltas)
        for i in np.flatnonzero(readers):
            self.circuits[active[i]].add(source, deltas[group[i]], int(ids[i]))

    def _publish(
        self, source: int, deltas: list[Tensor], group: np.ndarray, ids: list[int]
    ) -> None:
        """Give every circuit that reads it the same value."""
        self.next_id += 1
        for circuit in np.flatnonzero(self.wanted[:, source]):
            self.circuits[circuit].add(source, deltas[group[circuit]], self.next_id - 1)


def _wanted(graph: EdgeGraph, masks: Masks) -> Bool[np.ndarray, "circuits sources"]:
    """Sources that a pruned circuit reads."""
    wanted = np.zeros((len(masks), len(graph.sources)), dtype=bool)
    for circuit, mask in enumerate(masks):
        wanted[circuit, graph.edge_source[mask]] = True
    return wanted


def _distinct(keys: np.ndarray) -> tuple[Int[np.ndarray, " owners"], Int[np.ndarray, " rows"]]:
    """First row of each distinct key, in order of appearance, and each row's group among them."""
    seen: dict[bytes, int] = {}
    owners: list[int] = []
    group = np.empty(len(keys), dtype=np.int64)
    for row, key in enumerate(np.ascontiguousarray(keys)):
        known = key.tobytes()
        if known not in seen:
            seen[known] = len(owners)
            owners.append(row)
        group[row] = seen[known]
    return np.array(owners, dtype=np.int64), group
