"""Running circuits of features: edge ablation of many circuits in one forward.

With G the circuit, E and D a site's dictionary, ε = x − D(E(x)) and `segment` the network between
sites (Dhimoïla section 5.1 and footnote 6 for the definition of G's function, 3.5.3 for ablation):

1. Sites in forward order. A target v of site t (a feature j, or err) sees every parent site s at

       x_s^v = x_s,patch + Σ_{kept i} (f_i^G − f_i,patch) d_i + [err kept] (ε^G − ε_patch),

   where f_i^G and ε^G are what the sources are in this run, at every position.
2. x_t^v = segment_t(x^v); then f_j^G = E_j(x_t^v), or ε^G = x_t^err − D(E(x_t^err)).
3. Where (j, position) was not attributed on an input, being 0 in the clean and in the patch run,
   f_j^G is taken from x_t^err; the share of activation mass for which that happens is recorded.
4. The logits are a target like the others.

Only differences from the patch are carried, equal streams are computed once, and those that equal
the patch run's not at all (`planning`). Rows pass through the network in
micro-batches of `micro_bytes`.

Error modes: `node` as above. In `clean`, `patch` and `zero` the error terms of all sites are fixed
to ε_clean, ε_patch or 0: ε_fixed − ε_patch joins every x_s, edges out of error nodes mean nothing,
and edges into them are masks to fall back on. Only under `node` is the graph of all edges the
model, and only under `node` and `patch` the empty one the patch run.

Pinned by tests/features/test_feature_ablation.py against one target at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edgesweep.engine.features.ablation.differences import Differences, add_kept, pack
from edgesweep.engine.features.ablation.planning import (
    Circuit,
    ErrorRequests,
    Masks,
    Requests,
    plan_site,
)
from edgesweep.engine.features.ablation.prints import Prints, distinct, value_prints
from edgesweep.engine.features.ablation.reading import read_features
from edgesweep.engine.features.ablation.setting import (
    MICRO_BYTES,
    base_of,
    check_mode,
    check_sites,
    is_patch_run,
)
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import NodeValues
from edgesweep.engine.graph import FeatureGraph, prune
from edgesweep.engine.network.base import LOGITS, Inputs, Value

MaskRows = Bool[np.ndarray, "circuits edges"]
#: circuit -> ε^G − ε_patch of a site
ErrorTable = dict[int, Float[Tensor, "... width"]]


@dataclass(frozen=True)
class FeatureAblation:
    """What running circuits gave, and what it took.

    Attributes:
        logits: at the read positions.
        n_masks: masks of (circuit, target, input) that had to be known.
        n_rows: distinct ones, computed; `n_skipped` equal the patch run's; the others are shared.
        mass: Σ |f^G| over the features that are read and real positions.
        fallback_mass: the part of it at positions where the feature was not attributed.
    """

    logits: Float[Tensor, "circuits inputs outputs"]
    n_masks: int
    n_rows: int
    n_skipped: int
    mass: Float[np.ndarray, "circuits inputs"]
    fallback_mass: Float[np.ndarray, "circuits inputs"]

    @property
    def n_shared(self) -> int:
        """Masks that another one's row stood for."""
        return self.n_masks - self.n_rows - self.n_skipped

    @property
    def fallback_share(self) -> Float[np.ndarray, " circuits"]:
        """Share of activation mass that was computed with the mask of an error node."""
        total = self.mass.sum(1)
        return self.fallback_mass.sum(1) / np.where(total > 0, total, 1.0)


@torch.no_grad()
def run_circuits(
    features: FeatureModel,
    inputs: Inputs,
    clean: NodeValues,
    patch: NodeValues,
    graph: FeatureGraph,
    masks: MaskRows,
    *,
    errors: str = "node",
    micro_bytes: int = MICRO_BYTES,
) -> FeatureAblation:
    """Logits at the read positions of every circuit's edge-ablated run.

    Args:
        inputs: the clean batch.
        clean, patch: node values of the clean run, and those of dropped edges.
        masks: kept edges of `graph`.
        errors: one of `setting.ERROR_MODES`.
        micro_bytes: what one micro-batch of rows may take.

    Raises:
        ValueError: an unknown error mode, or a graph over other sites.
    """
    check_mode(errors)
    check_sites(features, graph)
    return _Run(features, inputs, (clean, patch), graph, masks, errors, micro_bytes).result()


class _Site:
    """The nodes that a graph has of a site, and what they are without a circuit.

    Attributes:
        features: number of each node in the dictionary; 0 for the error node, last if it is one.
        clean, patch: `[inputs, nodes, positions]`, of features.
        clean_error, patch_error: ε.
        active, idle: real positions where a node was attributed, and where it was not.
    """

    def __init__(
        self,
        values: tuple[NodeValues, NodeValues],
        graph: FeatureGraph,
        name: str,
        real: Bool[Tensor, "inputs positions"],
    ) -> None:
        numbers = graph.features(name, errors=True).clip(min=0)
        self.features = torch.as_tensor(numbers, device=real.device)
        self.clean, self.patch = (v.features(name, self.features).transpose(1, 2) for v in values)
        self.clean_error, self.patch_error = (v.error(name) for v in values)
        known = (self.clean != 0) | (self.patch != 0)
        self.active, self.idle = known & real[:, None], ~known & real[:, None]

    def coverage(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether a node is attributed at some, and at every real position, `[nodes, inputs]`."""
        some, lacks = self.active.any(-1).T, self.idle.any(-1).T
        return some.cpu().numpy(), ~lacks.cpu().numpy()


class _Run:
    """One ablated forward of many circuits; see the module's docstring."""

    def __init__(
        self,
        features: FeatureModel,
        inputs: Inputs,
        values: tuple[NodeValues, NodeValues],
        graph: FeatureGraph,
        masks: MaskRows,
        errors: str,
        micro_bytes: int,
    ) -> None:
        self.features, self.inputs, self.values = features, inputs, values
        self.graph, self.errors, self.micro_bytes = graph, errors, micro_bytes
        self.skips_empty = is_patch_run(values[1], errors)
        self.circuits = [Circuit(graph, self._pruned(mask)) for mask in masks]
        n_inputs, n_positions = inputs.real.shape
        self.most_rows = max(1, micro_bytes // features.model.row_bytes(n_positions))
        self.base: dict[str, Value] = {}
        self.counts = np.zeros(3, dtype=np.int64)
        self.mass = np.zeros((2, len(masks), n_inputs))

    def _pruned(self, mask: np.ndarray) -> np.ndarray:
        if self.errors != "node":
            mask = self.graph.without_errors(mask)
        return prune(self.graph, mask, both_sides=self.skips_empty)

    def result(self) -> FeatureAblation:
        for name in list(self.graph.parents)[:-1]:
            site = _Site(self.values, self.graph, name, self.inputs.real)
            self.base[name] = base_of(*self.values, name, self.errors)
            if self.graph.parents[name]:
                self._compute(name, site)
            else:
                self._start(name, site)
            self._forget(name)
        logits = self._logits()
        n_masks, n_rows, n_skipped = self.counts.tolist()
        return FeatureAblation(logits, n_masks, n_rows, n_skipped, *self.mass)

    def _forget(self, done: str) -> None:
        """Drop what no later target reads."""
        names = list(self.graph.parents)
        later = names[names.index(done) + 1 :]
        needed = {parent for name in later for parent in self.graph.parents[name]}
        for circuit in self.circuits:
            circuit.forget(needed)
        self.base = {k: v for k, v in self.base.items() if k in needed}

    # --- sites -----------------------------------------------------------------------------
    def _start(self, name: str, site: _Site) -> None:
        """The first site is the clean run's."""
        error = (site.clean_error - site.patch_error) * self.inputs.real[..., None]
        origin = np.zeros((1, len(error), 2), dtype=np.uint64)
        first = self.graph.site_nodes(name).start
        for circuit in self.circuits:
            places = circuit.places(name)
            delta = (site.clean - site.patch)[:, places]
            nodes = np.append(first + places, self.graph.site_nodes(name).stop - 1)
            prints = value_prints(nodes, origin)
            wanted = error if circuit.wants_error(name) else None
            self._publish(circuit, name, site, delta, wanted, prints)

    def _compute(self, name: str, site: _Site) -> None:
        plan = plan_site(
            self.graph, name, self.circuits, site.coverage(), skips_empty=self.skips_empty
        )
        self.counts += (plan.n_masks, len(plan.rows), plan.n_skipped)
        places = [circuit.places(name) for circuit in self.circuits]
        sizes = [len(self.inputs.read) * len(p) for p in places]
        table = self.inputs.embed.new_zeros(sum(sizes), self.inputs.embed.shape[1])
        width = self.features.width(name)
        errors = {
            number: self.inputs.embed.new_zeros(*self.inputs.real.shape, width)
            for number, circuit in enumerate(self.circuits)
            if circuit.wants_error(name)
        }
        for first, last, streams in self._streams(name, plan.rows):
            self._read(name, site, streams, plan.requests.of_rows(first, last), table)
            self._read_errors(name, site, streams, plan.errors.of_rows(first, last), errors)
        for number, part in enumerate(table.split(sizes)):
            delta = part.unflatten(0, (len(self.inputs.read), len(places[number])))
            self._count_mass(number, site, places[number], delta)
            circuit = self.circuits[number]
            error = errors.get(number)
            self._publish(circuit, name, site, delta, error, plan.prints[number])

    def _read(
        self, name: str, site: _Site, streams: Value, requests: Requests, table: Tensor
    ) -> None:
        """Differences of the requested features, into their lines of the table."""
        dictionary = self.features.dictionary(name)
        width = streams.shape[1] * dictionary.n_features * streams.element_size()
        most_rows = max(1, self.micro_bytes // max(1, 4 * width))
        found = read_features(dictionary, streams, site.features, requests, most_rows)
        here = (requests.input, requests.place)
        falls_back = torch.as_tensor(requests.falls_back, device=found.device)[:, None]
        use = torch.where(falls_back, site.idle[here], site.active[here])
        slot = torch.as_tensor(requests.slot, device=found.device)
        table.index_add_(0, slot, (found - site.patch[here]) * use)

    def _read_errors(
        self, name: str, site: _Site, streams: Value, wanted: ErrorRequests, errors: ErrorTable
    ) -> None:
        """Error terms less the patch's, for the circuits that read them."""
        for row in np.unique(wanted.row):
            error = self.features.dictionary(name).error(streams[int(row)])
            for i in np.flatnonzero(wanted.row == row):
                which = int(wanted.input[i])
                real = self.inputs.real[which][:, None]
                delta = (error - site.patch_error[which]) * real
                errors[int(wanted.circuit[i])][which] = delta

    # --- what targets read -----------------------------------------------------------------
    def _streams(self, name: str, rows: Masks) -> Iterator[tuple[int, int, Tensor]]:
        """The value of a site (or the logits) for rows first to last - 1, in micro-batches."""
        for first in range(0, len(rows), self.most_rows):
            part = rows[np.arange(first, min(first + self.most_rows, len(rows)))]
            which = torch.as_tensor(part.input, device=self.inputs.embed.device)
            values = {parent: self._sum(name, parent, part) for parent in self.graph.parents[name]}
            yield (
                first,
                first + len(part),
                self.features.segment(name, values, self.inputs, which),
            )

    def _sum(self, name: str, parent: str, rows: Masks) -> Value:
        """x_s of each row: the patch value and the kept differences."""
        out = self.base[parent][torch.as_tensor(rows.input, device=self.inputs.real.device)]
        code = np.where(rows.prints.any(1), rows.circuit * len(self.inputs.read) + rows.input, -1)
        for group in np.unique(code[code >= 0]):
            number, which = divmod(int(group), len(self.inputs.read))
            mine, circuit = np.flatnonzero(code == group), self.circuits[number]
            add_kept(
                out,
                torch.as_tensor(mine, device=out.device),
                circuit.kept(name, parent)[rows.node[mine]].toarray(),
                circuit.differences[parent],
                which,
                self.features.dictionary(parent).decoder,
            )
        return out

    def _logits(self) -> Float[Tensor, "circuits inputs outputs"]:
        """The logits of each distinct mask, handed to every circuit that has it."""
        n_inputs = len(self.inputs.read)
        prints = np.concatenate([circuit.prints(LOGITS)[0] for circuit in self.circuits])
        circuit, which = np.divmod(np.arange(len(prints)), n_inputs)
        masks = Masks(circuit, np.zeros_like(circuit), which, prints)
        owners, row = distinct(which, prints)
        self.counts += (len(masks), len(owners), 0)
        found = torch.cat([logits for _, _, logits in self._streams(LOGITS, masks[owners])])
        return found[torch.as_tensor(row, device=found.device)].unflatten(0, (-1, n_inputs))

    # --- handing values on -----------------------------------------------------------------
    def _publish(
        self,
        circuit: Circuit,
        name: str,
        site: _Site,
        delta: Float[Tensor, "inputs places positions"],
        error: Value | None,
        prints: Prints,
    ) -> None:
        """Note what a site's nodes differ by, and the numbers of those that do."""
        places, span = circuit.places(name), self.graph.site_nodes(name)
        known = np.zeros((span.stop - span.start, *prints.shape[1:]), dtype=np.uint64)
        known[places] = prints[:-1] * (delta != 0).any(-1).T.cpu().numpy()[..., None]
        if error is not None:
            known[-1] = prints[-1] * (error != 0).any(-1).any(-1).cpu().numpy()[:, None]
        node, value = pack(delta.transpose(1, 2), torch.as_tensor(places, device=delta.device))
        circuit.differences[name] = Differences(node, site.features[node], value, error, known)

    def _count_mass(self, number: int, site: _Site, places: np.ndarray, delta: Tensor) -> None:
        """Σ |f^G| over real positions, and over those that fell back."""
        size = (site.patch[:, places] + delta).abs().double()
        idle = site.idle[:, places]
        self.mass[0, number] += (size * (idle | site.active[:, places])).sum((1, 2)).cpu().numpy()
        self.mass[1, number] += (size * idle).sum((1, 2)).cpu().numpy()
