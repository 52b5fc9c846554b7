"""The tables of a run directory: what each is about, its columns, and what its rows are sorted by.

A table is one value, and everything that writes or reads it takes that value. Of a cell's own rows
there may be parts before the run's table is written (see `storage.tables.parts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: name -> str, int, float or bool
Columns = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: of its file, without `.parquet`.
        row: what one row is.
        columns: of these types, in this order.
        key: columns that tell any two rows apart, the first to sort by.
    """

    name: str
    row: str
    columns: Columns = field(hash=False)
    key: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"


def _columns(told: str) -> Columns:
    """`name` of text, or `name:int`, separated by spaces."""
    pairs = (column.partition(":") for column in told.split())
    return {name: kind or "str" for name, _, kind in pairs}


RESULTS = Table(
    "results",
    "a measured point: one circuit under one condition, in one metric, over the inputs of a subset",
    _columns(
        "cell circuit model task subset split nodes method steps:int build_patch build_metric "
        "aggregation selection threshold:float n_selected:int ablation eval_patch pruned:bool "
        "blocks n_nodes:int n_edges:int n_edges_possible:int average_degree:float density:float "
        "metric value:float value_full:float value_empty:float faithfulness:float n_inputs:int"
    ),
    key=("circuit", "split", "ablation", "eval_patch", "metric", "subset", "blocks"),
)

CIRCUITS = Table(
    "circuits",
    "an edge that was selected; `ran`: the evaluation patches, joined by +, whose pruning left it",
    _columns(
        "circuit cell aggregation selection threshold:float edge:int source target weight:float ran"
    ),
    key=("circuit", "edge"),
)

BLOCKS = Table(
    "blocks",
    "a node of a circuit, with its block at one level of a fitted block model",
    _columns(
        "circuit cell fit degree_corrected:bool level:int node block:int label "
        "description_length:float"
    ),
    key=("circuit", "fit", "degree_corrected", "level", "node"),
)

MEASURES = Table(
    "measures",
    "what a curve of circuits, or a cell's ranking, comes to",
    _columns(
        "cell model task method steps:int rule build_patch build_metric aggregation selection "
        "ablation eval_patch metric subset measure value:float low:float high:float n_inputs:int"
    ),
    key=(
        *("cell", "aggregation", "selection", "ablation", "eval_patch"),
        *("metric", "subset", "measure"),
    ),
)

ROC = Table(
    "roc",
    "a point of the curve by which a ranking finds a known circuit",
    _columns(
        "cell model task method steps:int build_patch build_metric aggregation selection known "
        "point:int threshold:float fpr:float tpr:float precision:float"
    ),
    key=("cell", "aggregation", "selection", "point"),
)

OVERLAP = Table(
    "overlap",
    "how far the scores of two cells agree",
    _columns(
        "across model aggregation cell_a cell_b method_a method_b task_a task_b subset_a subset_b "
        "seed_a:int seed_b:int measure size:int value:float chance:float n:int"
    ),
    key=(
        *("across", "model", "aggregation", "cell_a", "cell_b", "subset_a", "subset_b"),
        *("measure", "size"),
    ),
)

KNOWN = Table(
    "known",
    "a true edge of a model on a task",
    _columns("model task known level edge:int source target"),
    key=("model", "task", "edge"),
)

MINIMALITY = Table(
    "minimality",
    "what the oriented metric loses when one edge is taken out of a circuit",
    _columns("circuit cell edge:int source target metric drop:float low:float high:float"),
    key=("circuit", "metric", "edge"),
)

INTERPOLATION = Table(
    "interpolation",
    "the change of the oriented metric with one edge part of the way from clean to patch",
    _columns(
        "cell model task edge:int source target metric fraction:float change:float estimate:float "
        "n_inputs:int"
    ),
    key=("cell", "metric", "edge", "fraction"),
)

TABLES = (
    *(RESULTS, CIRCUITS, BLOCKS, MEASURES, ROC),
    *(OVERLAP, KNOWN, MINIMALITY, INTERPOLATION),
)
