"""Models: loading them, and reading them as graphs of nodes and ports."""

from edgesweep.engine.model.batch import PromptBatch
from edgesweep.engine.model.dictionaries import (
    Dictionary,
    DictionaryError,
    Gated,
    Identity,
    JumpRelu,
    Linear,
    NoDictionary,
    Relu,
    TopK,
)
from edgesweep.engine.model.dictionary_files import load_dictionary, save_dictionary
from edgesweep.engine.model.errors import ChangedError, ModelError
from edgesweep.engine.model.loading import (
    ModelInfo,
    ModelSizes,
    ModelSource,
    list_models,
    load_model,
    resolve_model,
)
from edgesweep.engine.model.transformer import Inputs, Model, Run
from edgesweep.engine.model.values import FixedValues, RunValues, SourceValues

__all__ = [
    "ChangedError",
    "Dictionary",
    "DictionaryError",
    "FixedValues",
    "Gated",
    "Identity",
    "Inputs",
    "JumpRelu",
    "Linear",
    "Model",
    "ModelError",
    "ModelInfo",
    "ModelSizes",
    "ModelSource",
    "NoDictionary",
    "PromptBatch",
    "Relu",
    "Run",
    "RunValues",
    "SourceValues",
    "TopK",
    "list_models",
    "load_dictionary",
    "load_model",
    "resolve_model",
    "save_dictionary",
]
