"""What runs: networks as graphs of nodes and ports, batches, and the values that a run leaves."""

from edgesweep.engine.network.batch import PromptBatch
from edgesweep.engine.network.transformer import Inputs, Model, Run
from edgesweep.engine.network.values import FixedValues, RunValues, SourceValues

__all__ = [
    "FixedValues",
    "Inputs",
    "Model",
    "PromptBatch",
    "Run",
    "RunValues",
    "SourceValues",
]
