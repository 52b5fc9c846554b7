"""Models: loading them, and reading them as graphs of nodes and ports."""

from engine.model.batch import PromptBatch
from engine.model.dictionaries import (
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
from engine.model.dictionary_files import load_dictionary, save_dictionary
from engine.model.errors import ChangedError, ModelError
from engine.model.loading import (
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
