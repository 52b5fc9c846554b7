"""Many variants of one run, as rows of one forward: edges taken out one by one, nodes patched.

A base run is the edge-ablated run of a circuit H (all edges: the model itself). A variant differs
from it in what one port reads, or in what one source writes for all that keep it.

1. The base is had once: what every port reads, x_p = x_patch + Σ_{kept u} δ_u with
   δ_u = u_base − u_patch, and what every module writes.
2. A variant starts at the block where it differs; below it is the base. K variants of one block are
   K blocks of rows.
3. Only changes Δ_u = u_variant − u_base are carried on: a port reads x_p + Σ_{kept u} Δ_u. Sources
   that every later port keeps (in the full model: all) are summed once, as one stream; the others
   stay apart in a table. Ports that read the same are normed together; a port that keeps no changed
   source keeps its base value; what no kept path leads from to the logits is not computed.
4. Changes are kept where there are any (`Window`): under a causal mask from the first position that
   differs on; after the last attention at the read position alone.

A variant whose difference is zero, or ends at a dead node, has the base's logits to the bit. Pinned
by tests/methods/test_exact.py against one port at a time, and against `ablated_logits`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.baserun import BaseRun, Streams, first_window
from edgesweep.engine.graph import PortBlock

Logits = Float[Tensor, "variants inputs vocab"]

#: bytes that the changes of sources which are kept apart may take
TABLE_BYTES = 2**30


# --- variants ----------------------------------------------------------------------------------


class _Variants:
    """One forward of K variants; see the module's docstring.

    Args:
        changes: `[variants, inputs, positions, d_model]`, by which they differ where they begin.
    """

    def __init__(self, base: BaseRun, changes: Streams) -> None:
        self.base, self.n = base, len(changes)
        self.model, self.graph = base.model, base.graph
        self.window = first_window(base, changes)
        self.changes = self.window.of(changes)
        self.shape = (self.n, *base.inputs.embed.shape)
        self.dense: Streams | None = None
        self.late: Streams | None = None  # of heads beside whose MLP reads the stream before them
        self.apart: dict[int, Streams] = {}

    @torch.no_grad()
    def from_ports(self, index: int, ports: Int[np.ndarray, " variants"]) -> Logits:
        """Variant k reads its change at port `ports[k]` of a block."""
        block = self.graph.blocks[index]
        if block.kind == "attention":
            self._attend(block, self._moved_ports(index, ports), self._heads_of(block, ports))
            return self._onward(index + 1)
        if self._after_attention(block):
            self._narrow()
        if block.kind == "logits":
            return self._unembed(index, self.changes)
        self._write_mlp(index, self.changes)
        return self._onward(index + 1)

    @torch.no_grad()
    def from_sources(self, index: int, sources: Int[np.ndarray, " variants"]) -> Logits:
        """Variant k has source `sources[k]` changed; `index` is the first block that reads any of
        them."""
        for source in np.unique(sources):
            change = self.changes.clone()
            change[torch.as_tensor(sources != source)] = 0.0
            self._publish(int(source), change)
        return self._onward(index)

    # --- block by block ------------------------------------------------------------------------
    def _onward(self, first: int) -> Logits:
        for index in range(first, len(self.graph.blocks)):
            block = self.graph.blocks[index]
            if block.kind != "mlp":
                self._join_late()
            live = self.base.live_ports(block)
            if not live.any():
                continue
            if self._after_attention(block):
                self._narrow()
            groups = self._groups(index, live)
            if block.kind == "attention" and groups:
                self._attend(block, *self._read(index, groups))
            elif block.kind == "mlp" and groups:
                self._write_mlp(index, self._change(groups[0][1]))
            elif groups:
                return self._unembed(index, self._change(groups[0][1]))
        return self.base.logits.expand(self.n, *self.base.logits.shape)

    def _after_attention(self, block: PortBlock) -> bool:
        """Whether nothing mixes positions from this block on."""
        return block.kind != "attention" and block.layer >= self.model.spec.n_layers - 1

    def _narrow(self) -> None:
        """From here on the read position alone matters."""
        if self.window.at_end:
            return
        read, self.window = self.window.read, replace(self.window, at_end=True)
        self.changes = read(self.changes)
        self.apart = {source: read(change) for source, change in self.apart.items()}
        self.dense = None if self.dense is None else read(self.dense)
        self.late = None if self.late is None else read(self.late)

    def _groups(
        self, index: int, live: Bool[np.ndarray, " targets"]
    ) -> list[tuple[Int[np.ndarray, " ports"], tuple[int, ...]]]:
        """Live ports that read something changed, together where they read the same; each group
        with the sources, of those that are kept apart, that it keeps."""
        block = self.graph.blocks[index]
        kept = self.base.kept(block)
        known = [s for s in self.apart if s < block.n_sources]
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for port in np.flatnonzero(live):
            mine = tuple(s for s in known if kept[port, s])
            if mine or self.dense is not None:
                groups.setdefault((int(self.base.which[index][port]), mine), []).append(int(port))
        return [(np.array(ports), mine) for (_, mine), ports in groups.items()]

    def _change(self, sources: tuple[int, ...]) -> Streams:
        """Σ Δ_u over the shared stream and the given sources; not to be written to."""
        total = self.dense
        for source in sources:
            total = self.apart[source] if total is None else total + self.apart[source]
        assert total is not None
        return total

    def _read(
        self, index: int, groups: list[tuple[Int[np.ndarray, " _"], tuple[int, ...]]]
    ) -> tuple[tuple[Tensor, Tensor, Tensor], np.ndarray]:
        """Queries, keys, values after the changes, and which heads they reach: bool `[heads]`."""
        block = self.graph.blocks[index]
        layer, base = self.model.layers[block.layer], self.base
        if len(groups) == 1 and len(groups[0][0]) == block.n_targets:
            stream = self._stream(index, 0) + self._change(groups[0][1])
            query, key, value = (
                self._after(was, now)
                for was, now in zip(base.ports[block.layer], layer.project(stream), strict=True)
            )
            return (query, key, value), np.ones(self.model.spec.n_heads, dtype=bool)
        table = self._port_table(block.layer)
        for ports, sources in groups:
            normed = layer.normed(self._stream(index, ports[0]) + self._change(sources))
            for port in ports:
                self.window.of_rows(table)[..., int(port), :] = layer.project_port(
                    int(port), normed
                )
        reached = self._heads_of(block, np.concatenate([ports for ports, _ in groups]))
        return self._split(table), reached

    def _moved_ports(
        self, index: int, ports: Int[np.ndarray, " variants"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values where each variant has one port that reads its change."""
        number = self.graph.blocks[index].layer
        layer, table = self.model.layers[number], self._port_table(number)
        for port in np.unique(ports):
            mine = torch.as_tensor(np.flatnonzero(ports == port))
            normed = layer.normed(self._stream(index, port) + self.changes[mine])
            projected = layer.project_port(int(port), normed)
            self.window.of_rows(table)[mine, ..., int(port), :] = projected
        return self._split(table)

    def _stream(self, index: int, port: int) -> Float[Tensor, "inputs window d_model"]:
        """What a port of block `index` reads in the base."""
        return self.window.of(self.base.streams[index][self.base.which[index][port]])

    def _after(
        self,
        was: Float[Tensor, "inputs positions heads d_head"],
        now: Float[Tensor, "variants inputs window heads d_head"],
    ) -> Float[Tensor, "variants inputs positions heads d_head"]:
        """Ports of the base before the window, of the variants in it."""
        before = was[:, : self.window.first]
        return torch.cat([before.expand(self.n, *before.shape), now], dim=2)

    def _port_table(self, layer: int) -> Float[Tensor, "variants inputs positions ports d_head"]:
        """The base's queries, keys and values, a copy a variant."""
        return torch.cat(self.base.ports[layer], dim=-2).repeat(self.n, 1, 1, 1, 1)

    def _split(self, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n_heads, n_kv = self.model.spec.n_heads, self.model.spec.n_kv_heads
        query, key, value = table.split([n_heads, n_kv, n_kv], dim=-2)
        return query, key, value

    def _heads_of(self, block: PortBlock, ports: np.ndarray) -> Bool[np.ndarray, " heads"]:
        """Heads that read any of the ports; with coupled heads, all."""
        first = self.graph.head_source(block.layer, 0)
        rows = self.graph.target_nodes[block.first_target + np.unique(ports)]
        reached = rows[:, first : first + self.model.spec.n_heads].any(0)
        return reached | bool(self.model.spec.coupled and reached.any())

    # --- what modules write ----------------------------------------------------------------------
    def _attend(
        self,
        block: PortBlock,
        ports: tuple[Tensor, Tensor, Tensor],
        changed: Bool[np.ndarray, " heads"],
    ) -> None:
        layer, number = self.model.layers[block.layer], block.layer
        rows = torch.arange(self.shape[1], device=ports[0].device).repeat(self.n)
        context = self.base.inputs.context(number, rows)
        query, key, value = (port.flatten(0, 1) for port in ports)
        z = layer.attend(query, key, value, context).unflatten(0, self.shape[:2])
        if number == self.model.spec.n_layers - 1:
            self._narrow()
        z = self.window.of_heads(z).contiguous()  # as GPT-2's projection asks for
        first, n_heads = self.graph.head_source(number, 0), self.model.spec.n_heads
        heads = np.flatnonzero(changed & self.base.live[first : first + n_heads])
        late = self.model.spec.parallel
        if self.base.is_dense[first : first + n_heads].all():
            was = self.window.of(self.base.attention[number])
            self._add(layer.write(z)[0] - was, late)
        elif self.model.spec.coupled:
            writes = layer.head_writes(z, layer.write(z)[1])
            patched = self.base.patch.heads(number)
            for head in heads:
                source = first + int(head)
                was = self.window.of(layer.here(self.base.delta[source]) + patched[int(head)])
                self._publish(source, writes[int(head)] - was, late)
        else:
            moved = z - self.window.of_heads(self.base.z[number])
            for head in heads:
                change = moved[..., int(head), :] @ layer.w_out[int(head)]
                self._publish(first + int(head), change, late)

    def _write_mlp(self, index: int, change: Streams) -> None:
        layer = self.graph.blocks[index].layer
        written = self.model.layers[layer].mlp(self._stream(index, 0) + change)
        was = self.window.of(self.base.mlps[layer])
        self._publish(self.graph.mlp_source(layer), written - was)

    def _publish(self, source: int, change: Streams, late: bool = False) -> None:
        if self.base.is_dense[source]:
            self._add(change, late)
        elif self.base.live[source]:
            self.apart[source] = self.model.here(change)

    def _add(self, change: Streams, late: bool = False) -> None:
        """To the shared stream; `late`: once the MLP that reads beside these heads has read it."""
        change = self.model.here(change)
        if late:
            self.late = change if self.late is None else self.late + change
        else:
            self.dense = change if self.dense is None else self.dense + change

    def _join_late(self) -> None:
        late, self.late = self.late, None
        if late is not None:
            self._add(late)

    def _unembed(self, index: int, change: Streams) -> Logits:
        logits: Tensor = self.model.unembed((self._stream(index, 0) + change).squeeze(-2))
        return logits


# --- the variants that methods ask for -----------------------------------------------------------


def variants_a_forward(base: BaseRun, rows: int) -> int:
    """How many variants fit in a forward of so many rows, and in the memory for their changes."""
    n_apart = int((base.live[:-1] & ~base.is_dense).sum())
    by_memory = TABLE_BYTES // max(n_apart * base.delta[0].numel() * base.delta.element_size(), 1)
    return max(1, min(rows // len(base.inputs.embed), by_memory))


def port_variants(base: BaseRun, index: int, ports: np.ndarray, shift: Streams) -> Logits:
    """Logits of variants that each read `shift[k]` more at one port of block `index`."""
    live = base.live_ports(base.graph.blocks[index])[ports]
    acts = live & (shift != 0).flatten(1).any(1).cpu().numpy()

    def run(some: np.ndarray) -> Logits:
        moved = shift[torch.as_tensor(some)]
        return _Variants(base, moved).from_ports(index, ports[some])

    return _where(base, acts, run)


def drop_edges(
    base: BaseRun, edges: Int[np.ndarray, " dropped"], rows: int, amount: float = 1.0
) -> Iterator[tuple[Int[np.ndarray, " variants"], Logits]]:
    """Each edge alone moved from its value in the base towards its patch value by `amount` (1: it
    is taken out). Yields places in `edges` and the logits of these variants; every place once. An
    edge that the circuit does not keep changes nothing."""
    step = variants_a_forward(base, rows)
    for index, block in enumerate(base.graph.blocks):
        inside = (edges >= block.edges.start) & (edges < block.edges.stop)
        places = np.flatnonzero(inside)
        places = places[np.argsort(edges[places], kind="stable")]
        for start in range(0, len(places), step):
            mine = places[start : start + step]
            ports, sources = np.divmod(edges[mine] - block.first_edge, block.n_sources)
            kept = torch.as_tensor(base.mask[edges[mine]], device=base.delta.device)
            shift = -amount * base.delta[torch.as_tensor(sources)] * kept[:, None, None, None]
            yield mine, port_variants(base, index, ports, shift)


def drop_nodes(
    base: BaseRun, sources: Int[np.ndarray, " dropped"], rows: int
) -> Iterator[tuple[Int[np.ndarray, " variants"], Logits]]:
    """Each source alone at its patch value for all that keep it; as `drop_edges`."""
    graph, step = base.graph, variants_a_forward(base, rows)
    for index, block in enumerate(graph.blocks):
        before = graph.blocks[index - 1].n_sources if index else 0
        places = np.flatnonzero((sources >= before) & (sources < block.n_sources))
        for start in range(0, len(places), step):
            mine = places[start : start + step]
            changes = -base.delta[torch.as_tensor(sources[mine])]
            acts = base.live[sources[mine]]

            run = partial(_run_sources, base, index, sources[mine], changes)
            yield mine, _where(base, acts, run)


def _run_sources(
    base: BaseRun, index: int, sources: np.ndarray, changes: Streams, some: np.ndarray
) -> Logits:
    moved = changes[torch.as_tensor(some)]
    return _Variants(base, moved).from_sources(index, sources[some])


def _where(
    base: BaseRun, acts: Bool[np.ndarray, " variants"], run: Callable[[np.ndarray], Logits]
) -> Logits:
    """The base's logits, and for variants that act those of their run."""
    out = base.logits.repeat(len(acts), 1, 1)
    some = np.flatnonzero(acts)
    if len(some):
        out[torch.as_tensor(some, device=out.device)] = run(some)
    return out
