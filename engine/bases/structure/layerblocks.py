"""Block models of an interaction graph: which directions of a layer act, and are acted on, alike.

The degree-corrected weighted stochastic block model (Peixoto 2018): weights are w of
`engine.bases.structure.modularity`, normal in each pair of blocks, and a block is of one layer. It
is fitted by graph-tool in an interpreter of its own (`engine.blockmodel_process`): several chains,
of which the shortest description is kept.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from edgesweep.engine.bases.structure.modularity import Wiring
from edgesweep.engine.blockmodel_process import Interpreter, run_worker
from edgesweep.engine.structure import Partition, agreement, numbered

#: rounds of merge-split that a chain may be without a shorter description, and sweeps in each
PATIENCE, N_ITER = 10, 10
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class LayerBlocks:
    """The shortest of some chains.

    Attributes:
        blocks: of each direction.
        length, one_a_layer: its description length, and that of a block a layer, in nats.
        agreement: adjusted mutual information of two chains' blocks, on average, over directions
            that have an edge; NaN of one chain.
    """

    blocks: Partition
    length: float
    one_a_layer: float
    agreement: float


def layer_blocks(wiring: Wiring, chains: int, seed: int, interpreter: Interpreter) -> LayerBlocks:
    """Raises BlockModelError: graph-tool failed."""
    options = {"patience": PATIENCE, "n_iter": N_ITER, "seeds": [seed + i for i in range(chains)]}
    linked = wiring.linked
    place = np.full(wiring.n, -1)
    place[linked] = np.arange(len(linked))
    with tempfile.TemporaryDirectory(prefix="edgesweep-layers-") as folder:
        request, result = Path(folder) / "request.npz", Path(folder) / "result.json"
        np.savez(
            request,
            layers=wiring.layer[linked],
            pairs=place[wiring.pairs],
            weights=wiring.weights,
            options=np.array(json.dumps(options)),
        )
        run_worker(interpreter, request, result, TIMEOUT_S, None)
        found = json.loads(result.read_text(encoding="utf-8"))
    best = min(found, key=lambda chain: chain["description_length"])
    alike = [agreement(a["blocks"], b["blocks"]) for a, b in combinations(found, 2)]
    blocks = np.arange(wiring.n) + len(linked)  # a direction without an edge is by itself
    blocks[linked] = best["blocks"]
    return LayerBlocks(
        numbered(blocks.tolist()),
        best["description_length"],
        best["one_a_layer"],
        float(np.mean(alike)) if alike else float("nan"),
    )
