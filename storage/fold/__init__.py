"""Statistics of scores over inputs, the same bits whatever the order: `tree` of tables of scores,
`sparse` of lists."""

from edgesweep.storage.fold.tree import (
    AGGREGATIONS,
    STATS,
    WORDS,
    TreeFold,
    empty_partial,
    finish,
    fold,
    merge,
    pack,
    partial,
    unpack,
)

__all__ = [
    "AGGREGATIONS",
    "STATS",
    "WORDS",
    "TreeFold",
    "empty_partial",
    "finish",
    "fold",
    "merge",
    "pack",
    "partial",
    "unpack",
]
