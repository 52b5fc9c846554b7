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


def columns_of(told: str) -> Columns:
    """`name` of text, or `name:int`, separated by spaces."""
    pairs = (column.partition(":") for column in told.split())
    return {name: kind or "str" for name, _, kind in pairs}


RESULTS = Table(
    "results",
    "a measured point: one circuit under one condition, in one metric, over the inputs of a subset",
    columns_of(
        "cell circuit model task subset split nodes method steps:int build_patch build_metric "
        "aggregation selection threshold:float n_selected:int ablation eval_patch pruned:bool "
        "blocks n_nodes:int n_edges:int n_edges_possible:int average_degree:float density:float "
        "n_edges_among_found:int density_among_found:float "
        "metric value:float value_full:float value_empty:float faithfulness:float n_inputs:int"
    ),
    key=("circuit", "split", "ablation", "eval_patch", "metric", "subset", "blocks"),
)

DRAWN = Table(
    "drawn",
    "a measured point of what is drawn at random beside a circuit: `rewired`, a circuit with its "
    "degrees; `without` or `only` the blocks of a task, of random nodes in place of its own",
    {**RESULTS.columns, "draw": "int"},
    key=(*RESULTS.key, "draw"),
)

CIRCUITS = Table(
    "circuits",
    "an edge that was selected; `ran`: the evaluation patches, joined by +, whose pruning left it",
    columns_of(
        "circuit cell aggregation selection threshold:float edge:int source target weight:float ran"
    ),
    key=("circuit", "edge"),
)

BLOCKS = Table(
    "blocks",
    "a node of a circuit, with its block at one level of a fitted block model; `share`: of all "
    "attribution for the task that has most in its bottom block, `margin`: times the next task's",
    columns_of(
        "circuit cell fit degree_corrected:bool level:int node block:int label share:float "
        "margin:float description_length:float"
    ),
    key=("circuit", "fit", "degree_corrected", "level", "node"),
)

NULLS = Table(
    "nulls",
    "a description of a circuit's graph, or of a random one with its degrees and order. `null`: a "
    "chain that was fitted; one_block, kind_depth, kind_depth_coarse: a partition that is given; "
    "nodes, ports: a chain fitted to a random graph with the degrees of these; half: to the "
    "circuit of half of the build prompts. `saved`: of the length of one block; `kept`: edges that "
    "a random graph shares with the one it started from, `kept_halfway`: after half of its steps",
    columns_of(
        "circuit cell null draw:int n_nodes:int n_edges:int n_blocks:int description_length:float "
        "one_block:float saved:float swapped:float kept_halfway:float kept:float"
    ),
    key=("circuit", "null", "draw"),
)

STRUCTURE = Table(
    "structure",
    "what a block model is worth: `saved` (by the first chain) beside random graphs, `agreement` "
    "of two partitions (adjusted mutual information), `purity`: of the blocks' attribution the "
    "share of the first task of each, beside blocks of random nodes, `contrast` of block "
    "ablations: what is left without others' blocks minus without one's own, or the reverse with "
    "`only` these, and p of shuffled inputs; low and high: of what it is held `against`, or of all "
    "pairs",
    columns_of(
        "circuit cell measure against eval_patch metric value:float chance:float low:float "
        "high:float p:float n:int"
    ),
    key=("circuit", "measure", "against", "eval_patch", "metric"),
)

MEASURES = Table(
    "measures",
    "what a curve of circuits, or a cell's ranking, comes to",
    columns_of(
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
    columns_of(
        "cell model task method steps:int build_patch build_metric aggregation selection known "
        "point:int threshold:float fpr:float tpr:float precision:float"
    ),
    key=("cell", "aggregation", "selection", "point"),
)

OVERLAP = Table(
    "overlap",
    "how far the scores of two cells agree",
    columns_of(
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
    columns_of("model task known level edge:int source target"),
    key=("model", "task", "edge"),
)

MINIMALITY = Table(
    "minimality",
    "what the oriented metric loses when one edge is taken out of a circuit; `q`: of p, corrected "
    "for the circuit's edges; `kind`: needed or harmful, of which a share `rate` are wrong, or "
    "unclear",
    columns_of(
        "circuit cell edge:int source target metric drop:float low:float high:float p:float "
        "q:float rate:float kind"
    ),
    key=("circuit", "metric", "edge"),
)

INTERPOLATION = Table(
    "interpolation",
    "the change of the oriented metric with one edge part of the way from clean to patch",
    columns_of(
        "cell model task edge:int source target metric fraction:float change:float estimate:float "
        "n_inputs:int"
    ),
    key=("cell", "metric", "edge", "fraction"),
)

REACH = Table(
    "reach",
    "the smallest circuit of a ranking that was found to be so faithful, and above which all that "
    "were measured are; `below`: the largest measured threshold that is not",
    columns_of(
        "cell circuit model task method steps:int build_patch build_metric aggregation selection "
        "ablation eval_patch metric level:float reached:bool threshold:float below:float "
        "n_nodes:float n_edges:float n_edges_possible:float density:float faithfulness:float "
        "n_measured:int"
    ),
    key=("cell", "aggregation", "selection", "ablation", "eval_patch", "metric", "level"),
)

HEADLINES = Table(
    "headlines",
    "the circuit of a curve that may be quoted, chosen on some evaluation prompts, and how "
    "faithful it is to the model on a subset of the others",
    columns_of(
        "cell circuit model task method steps:int build_patch build_metric aggregation selection "
        "ablation eval_patch metric subset level:float reached:bool chosen_on threshold:float "
        "n_selected:int n_nodes:int n_edges:int n_edges_possible:int n_edges_among_found:int "
        "faithfulness:float low:float high:float n_choosing:int n_inputs:int"
    ),
    key=("cell", "aggregation", "selection", "ablation", "eval_patch", "metric", "subset"),
)

EQUAL_PHI = Table(
    "equal_phi",
    "how many edges or nodes the circuits of a ranking have at one faithfulness, by edge and by "
    "node ablation; infinite where the largest does not reach it",
    columns_of(
        "cell model task method steps:int build_patch build_metric aggregation selection "
        "eval_patch metric subset level:float counted edge:float edge_low:float edge_high:float "
        "edge_smallest:int node:float node_low:float node_high:float node_smallest:int ratio:float "
        "ratio_low:float ratio_high:float n_inputs:int"
    ),
    key=(
        *("cell", "aggregation", "selection", "eval_patch", "metric", "subset", "level"),
        "counted",
    ),
)

_NESTED = "value:float low:float high:float spread_build:float spread_evaluation:float"

REBUILT = Table(
    "rebuilt",
    "φ of a circuit, or an area under them, with its interval over build and evaluation prompts "
    "together, and how much it spreads with either",
    columns_of(
        "cell model task seed:int method steps:int build_patch build_metric aggregation selection "
        f"ablation eval_patch metric subset measure threshold:float {_NESTED} n_rebuilt:int"
    ),
    key=("cell", "metric", "subset", "measure", "threshold"),
)

PAIRS = Table(
    "pairs",
    "the area of one cell less that of another, on the same resamples of build and evaluation "
    "prompts; `wins`: the share of these in which a is above b",
    columns_of(
        "model task seed:int cell_a cell_b method_a method_b build_patch build_metric aggregation "
        f"selection ablation eval_patch metric subset measure wins:float {_NESTED} n_rebuilt:int"
    ),
    key=("model", "task", "seed", "cell_a", "cell_b", "metric", "subset", "measure"),
)

TABLES = (
    *(RESULTS, CIRCUITS, BLOCKS, MEASURES, ROC),
    *(OVERLAP, KNOWN, MINIMALITY, INTERPOLATION),
    *(NULLS, STRUCTURE, REACH, DRAWN),
    *(HEADLINES, EQUAL_PHI, REBUILT, PAIRS),
)
