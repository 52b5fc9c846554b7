"""By what a network is said to need edges: a bound, and resamples of its prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.bases.ablation import SCORES
from edgesweep.engine.bases.needed import Bound
from edgesweep.engine.measures import resamples

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config


def bound(config: Config) -> Bound:
    """Within which a network is said to do as well as it did."""
    wanted = config.edges_needed
    return Bound(wanted.within, SCORES[wanted.metric][1])


def drawn(config: Config, n_inputs: int) -> np.ndarray:
    """Resamples of evaluation prompts, `[draws, inputs]`, the same for whatever is compared."""
    return resamples(n_inputs, config.measures.bootstrap, config.seed)
