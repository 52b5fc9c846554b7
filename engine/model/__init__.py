"""Models: loading them, and reading them as graphs of nodes and ports."""

from engine.model.batch import PromptBatch
from engine.model.loading import (
    ModelError,
    ModelInfo,
    ModelSizes,
    ModelSource,
    list_models,
    load_model,
    resolve_model,
)
from engine.model.transformer import Inputs, Model, Run
from engine.model.values import FixedValues, RunValues, SourceValues

__all__ = [
    "FixedValues",
    "Inputs",
    "Model",
    "ModelError",
    "ModelInfo",
    "ModelSizes",
    "ModelSource",
    "PromptBatch",
    "Run",
    "RunValues",
    "SourceValues",
    "list_models",
    "load_model",
    "resolve_model",
]
