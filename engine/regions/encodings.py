"""graph-tool's fits of the block models of `encoding`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesweep.engine.blockmodel_process import Interpreter
from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.encoding import Encoding
from edgesweep.engine.regions.judge import weighted_worker
from edgesweep.engine.regions.weighted import Partition, canonical

#: of `level: auto`, N / B at least
PER_BLOCK = 5


@dataclass(frozen=True)
class Levels:
    """A fit.

    Attributes:
        levels: blocks of the units at every level, lowest first.
        taken: which of them is the partition.
        length: Σ of all, in nats, by graph-tool's default of the encoding.
    """

    levels: tuple[np.ndarray, ...]
    taken: int
    length: float

    @property
    def partition(self) -> Partition:
        return Partition(self.levels[self.taken], self.length)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Blocks of every level."""
        return tuple(int(level.max()) + 1 for level in self.levels)


def fit_encoded(
    z: np.ndarray,
    how: Encoding,
    seed: int,
    interpreter: Interpreter,
    timeout_s: float = 7200.0,
) -> Levels:
    """graph-tool's partition of units by their weights.

    Args:
        z: weights `[N, N]`, symmetric, or a table a layer, `[layers, N, N]`.

    Raises:
        RegionError: a level that the fit does not have; layers of a nested fit.
        BlockModelError: graph-tool failed.
    """
    layers = z[None] if z.ndim == 2 else z
    if len(layers) > 1 and how.fit == "nested":
        raise RegionError(f"{len(layers)} layers have fit 'nested'; allowed with layers: flat")
    options = {
        "model": how.model,
        "fit": how.fit,
        "encoding": how.encoding,
        "max_rounds": how.max_rounds,
        "n_iter": how.n_iter,
        "seed": seed,
        "until": None,
    }
    found = weighted_worker(layers, np.zeros(0), options, interpreter, timeout_s)
    levels = tuple(canonical(np.array(level, dtype=np.int64)) for level in found["levels"])
    return Levels(levels, _taken(levels, how), float(found["description_length"]))


def _taken(levels: tuple[np.ndarray, ...], how: Encoding) -> int:
    if how.fit == "flat":
        return 0
    if how.level == "auto":
        most = len(levels[0]) / PER_BLOCK
        fits = (at for at, level in enumerate(levels) if level.max() + 1 <= most)
        return next(fits, len(levels) - 1)
    if how.level >= len(levels):
        raise RegionError(f"level is {how.level}; allowed: 0 to {len(levels) - 1}, or auto")
    return how.level
