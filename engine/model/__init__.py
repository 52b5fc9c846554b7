"""Models: finding them by name, checking their files, loading them as networks."""

from edgesweep.engine.model.errors import ChangedError, ModelError
from edgesweep.engine.model.kinds import ModelSizes
from edgesweep.engine.model.loading import (
    ModelInfo,
    ModelSource,
    list_models,
    load_model,
    resolve_model,
)

__all__ = [
    "ChangedError",
    "ModelError",
    "ModelInfo",
    "ModelSizes",
    "ModelSource",
    "list_models",
    "load_model",
    "resolve_model",
]
