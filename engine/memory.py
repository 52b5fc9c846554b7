"""How much memory a shard needs, before it runs: counted from shapes, in bytes.

The counts follow the tensors that `engine.methods` and `engine.ablation` hold at their peak;
tests/evaluation/test_memory.py measures a process against them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgesweep.engine.ablation.sums import GROUP
from edgesweep.engine.graph import EdgeGraph, GraphSpec
from edgesweep.engine.methods.paths import variants_a_run
from edgesweep.engine.model import ModelSizes
from edgesweep.engine.variants import TABLE_BYTES

#: interpreter, torch, transformers and Ray's worker, before any weight (measured, CPU build)
PROCESS_BYTES = 520 * 2**20

#: methods that run many variants of a batch without a tape, and with one
VARIANT_METHODS = frozenset({"exact", "node_exact", "acdc", "eap_acdc"})
PATH_METHODS = frozenset({"ig_activations", "ig_activations_joint", "node_ig"})


@dataclass(frozen=True)
class Footprint:
    """What a batch is made of.

    Attributes:
        sizes: of the model.
        spec: its graph.
        batch: inputs a forward (the micro-batch).
        length: positions.
        number_bytes: of one number, by the model's dtype.
    """

    sizes: ModelSizes
    spec: GraphSpec
    batch: int
    length: int
    number_bytes: int = 4

    @property
    def _stream(self) -> int:
        return self.batch * self.length * self.sizes.d_model

    @property
    def _run(self) -> int:
        """Numbers that a finished run keeps: z, what the blocks wrote, logits."""
        s = self.sizes
        position = s.n_heads * s.d_head + 2 * s.d_model
        return s.n_layers * self.batch * self.length * position + self.batch * s.n_vocab

    @property
    def _tape(self) -> int:
        """Numbers that a differentiable run keeps besides, for its backward."""
        s = self.sizes
        heads = (2 * s.n_heads + 2 * s.n_kv_heads) * s.d_head
        position = 6 * s.d_model + 2 * heads + 4 * s.d_mlp
        return s.n_layers * self.batch * self.length * position

    @property
    def weights_bytes(self) -> int:
        """The model's parameters."""
        return self.sizes.n_params * self.number_bytes

    def attribution_bytes(self, method: str, rows: int = 256) -> int:
        """Peak of one attribution batch, weights not included.

        Args:
            rows: inputs in one forward of methods that run many variants (`Settings.rows`).
        """
        graph = EdgeGraph(self.spec)
        accumulators = (len(graph.targets) + len(graph.sources)) * self._stream
        if method in VARIANT_METHODS:
            return self._variants_bytes(graph, rows, search=method.endswith("acdc"))
        if method in PATH_METHODS:
            taped = variants_a_run(self.batch, rows)
            tapes = 1 if method == "node_ig" else 2  # gradients of ports are kept beside the tape's
            paths = taped * (tapes * self._tape + self._run)
            return self.number_bytes * (accumulators + 2 * self._run + paths)
        runs = (3 if method.startswith("ig") else 2) * self._run
        return self.number_bytes * (accumulators + runs + self._tape)

    def _variants_bytes(self, graph: EdgeGraph, rows: int, *, search: bool) -> int:
        """The base run (differences of all sources, what every block reads), and one layer of as
        many variants as a forward holds; a search also keeps changes of sources apart."""
        s, n = self.sizes, max(1, rows // self.batch)
        reads = len(graph.targets) if search else len(graph.blocks)
        base = (len(graph.sources) + reads + len(graph.blocks)) * self._stream + self._run
        heads = (2 * s.n_heads + 2 * s.n_kv_heads) * s.d_head
        layer = self.batch * self.length * (6 * s.d_model + 2 * heads + 3 * s.d_mlp)
        numbers = base + n * (layer + 3 * self.batch * s.n_vocab)
        return self.number_bytes * numbers + (TABLE_BYTES // 2 if search else 0)

    def evaluation_bytes(self, n_edges: Sequence[int]) -> int:
        """Peak of one evaluation batch over circuits of these many selected edges, weights apart.

        A circuit carries one difference for every source that it reads, and sums for the ports of a
        group of layers. Which sources those are is known only when scores are; edges crowd on few,
        so that n edges read about S (1 − exp(−n / 2S)) of S sources (SmolLM2 and GPT-2-sized
        circuits, 10 to 10,000 edges).
        """
        n_sources = len(EdgeGraph(self.spec).sources)
        read = sum(n_sources * (1 - math.exp(-n / (2 * n_sources))) + 2 for n in n_edges)
        streams = (GROUP + 1) * len(n_edges) * (self.spec.n_attention_ports + 1)
        logits = (len(n_edges) + 12) * self.batch * self.sizes.n_vocab
        return self.number_bytes * (int(read + streams) * self._stream + 2 * self._run + logits)
