"""Dictionaries: what takes a site's value apart into features, and the files that hold them."""

from edgesweep.engine.dictionaries.base import (
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
from edgesweep.engine.dictionaries.files import load_dictionary, save_dictionary

__all__ = [
    "Dictionary",
    "DictionaryError",
    "Gated",
    "Identity",
    "JumpRelu",
    "Linear",
    "NoDictionary",
    "Relu",
    "TopK",
    "load_dictionary",
    "save_dictionary",
]
