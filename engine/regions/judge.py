"""graph-tool as the judge of a weighted partition: its length by graph-tool, and what its own
merge-split makes of it. In a process of its own, as all of graph-tool (`engine.blockmodel`)."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesweep.engine.blockmodel_process import BlockModelError, Interpreter, run_worker
from edgesweep.engine.regions.weighted import Partition

#: of the judge's length: as far as the two sums may be apart
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Judging:
    """How the judge works.

    Attributes:
        max_rounds, n_iter: of merge-split, and of sweeps in each.
        model: the prior of weights, "nix" or "microcanonical".
        until: a length that is short enough to end.
    """

    max_rounds: int = 10
    n_iter: int = 10
    seed: int = 0
    model: str = "nix"
    until: float | None = None


@dataclass(frozen=True)
class Judged:
    """What the judge says.

    Attributes:
        partition: the shortest it knows.
        given: the length of the one that it was given, or began with.
        engine: its name and version.
    """

    partition: Partition
    given: float
    engine: str


def judge(
    z: np.ndarray,
    partition: Partition | None,
    interpreter: Interpreter,
    how: Judging | None = None,
    timeout_s: float = 1800.0,
) -> Judged:
    """The partition's length by graph-tool, and a shorter one if that finds any.

    Args:
        z: weights `[N, N]`, symmetric.
        partition: None: the judge's own search from nothing (minutes at 1,000 units).

    Raises:
        BlockModelError: graph-tool failed, or our length and its differ (model "nix").
    """
    how = how or Judging()
    blocks = np.zeros(0, dtype=np.int64) if partition is None else partition.blocks
    told = {**asdict(how), "fit": "flat", "encoding": "simple"}
    found = weighted_worker(z[None], blocks, told, interpreter, timeout_s)
    judged = Judged(
        Partition(np.array(found["levels"][0], dtype=np.int64), found["description_length"]),
        found["description_length_given"],
        f"graph-tool {found['versions']['graph_tool']}",
    )
    if partition is not None and how.model == "nix":
        _check(partition.length, judged.given)
    return judged


def weighted_worker(
    z: np.ndarray,
    blocks: np.ndarray,
    options: dict[str, Any],
    interpreter: Interpreter,
    timeout_s: float,
) -> dict[str, Any]:
    """What the worker's `weighted` says.

    Args:
        z: weights `[layers, N, N]`, symmetric.
        blocks: a partition to begin with; empty: none.
    """
    n = z.shape[-1]
    with tempfile.TemporaryDirectory(prefix="edgesweep-regions-") as folder:
        request, result = Path(folder) / "request.npz", Path(folder) / "result.json"
        np.savez(
            request,
            n_nodes=np.int64(n),
            z=z[:, *np.triu_indices(n, 1)],
            blocks=blocks.astype(np.int64),
            options=np.array(json.dumps(options)),
        )
        run_worker(interpreter, request, result, timeout_s, None)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def _check(ours: float, theirs: float) -> None:
    if abs(ours - theirs) > TOLERANCE * abs(theirs):
        raise BlockModelError(
            f"the partition's description length is {ours!r} here and {theirs!r} by graph-tool"
        )
