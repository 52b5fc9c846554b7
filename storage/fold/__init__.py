"""Statistics of scores over inputs, the same bits whatever the order: `tree` of tables of scores,
`sparse` of lists."""

from edgesweep.storage.fold.tree import (
    AGGREGATIONS,
    STATS,
    TreeFold,
    empty_partial,
    finish,
    fold,
    merge,
    partial,
)

__all__ = [
    "AGGREGATIONS",
    "STATS",
    "TreeFold",
    "empty_partial",
    "finish",
    "fold",
    "merge",
    "partial",
]
