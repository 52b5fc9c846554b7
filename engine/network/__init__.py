"""What runs: networks as graphs of nodes and ports, batches, and the values that a run leaves."""

from edgesweep.engine.network.base import Inputs, Network
from edgesweep.engine.network.batch import PromptBatch
from edgesweep.engine.network.run import Run
from edgesweep.engine.network.transformer import Model
from edgesweep.engine.network.values import FixedValues, RunValues, SourceValues

__all__ = [
    "FixedValues",
    "Inputs",
    "Model",
    "Network",
    "PromptBatch",
    "Run",
    "RunValues",
    "SourceValues",
]
