"""Where everything lies in a run directory. The one place that spells these names; it takes keys.

attributions.zarr/<cell>/scores [input, edge], or with scores.keep a share, of each input its
    largest: kept/{gap, score} [input, place], kept/dropped [input] (see `packing.scores`)
attributions.zarr/<cell>/per_input [input, what]: residual, metric_clean, metric_baseline
attributions.zarr/graphs/<model>/, or of a cell whose scores decide its edges <cell>/graph/: see
    `storage.graphs`
    of a cell over features instead of scores: listed/{source, target, weight, raw} [block of
    positions x input, place], listed/{count, dropped, dropped_abs, residual} [block x input]
attributions.zarr/<interaction graph>/<layer>/inputs [input, end's direction, constant or
    direction]: Σ_s A² of each input in the section from that layer; NaN of what is cut
aggregates.zarr/<cell>/edges [edge, end]: of such a cell, the edges that its statistics are of
aggregates.zarr/<cell>/partials [shard, edge, word] (see `fold.pack`), and folded
    <cell>/{mean, max, …} [edge] for all inputs, <cell>/<member>/{mean, …} for a member task;
    subtrees/<subset> [subtree, edge, word] where shards are many
aggregates.zarr/<cell>/interval [end, edge] of the mean, and stability [halving, what]: how
    alike the rankings of two halves of the inputs are (engine.statistics.stability)
means.zarr/<dataset>/<group index> [source, position, d_model]; over features
    <dataset>.<features>/<group index> [1, position, column]
evaluations.zarr/candidates/<cell> [edge]: the edges that a refined cell looks at
evaluations.zarr/<cell>/selected [circuit, edge]: what each threshold keeps, as bits
evaluations.zarr/<cell>/<ablation>.<eval_patch>[.<blocks>]/ran [circuit, edge]: what is run of it
evaluations.zarr/<cell>/<ablation>.<eval_patch>[.<blocks>]/values [input, circuit, metric]
evaluations.zarr/<cell>/<ablation>.<eval_patch>/reach/<aggregation>-<selection>/<round>/{ran,
    values}: the same of circuits that a search asks for, round by round
evaluations.zarr/<cell>/rebuilt/ran [resample, circuit, byte], values [input, resample, circuit,
    metric]: of circuits of resampled build prompts, as bits
evaluations.zarr/<cell>/minimality.<eval_patch>/<metric> [input, kept edge]: without that edge
evaluations.zarr/fitted/<cell>: which circuit the block model is of
evaluations.zarr/probes/<cell>/{minimality, interpolation} [place]: the edges looked at
evaluations.zarr/interpolation/<cell>/<metric> [input, place, fraction]
evaluations.zarr/reference/<dataset>/<eval_patch>/values [input, full or empty, metric]
    over features <dataset>.<features> in place of <dataset>, and beside it distance [input, 2]
commits/<stage>/<epoch>-<number>.jsonl: see `storage.commits.segments`
log/<nanoseconds since 1970>-<nonce of the process>.jsonl: a sealed event a line
models/<digest>/: if models were staged with the run, see `engine.model.nodecache`
blocks/<shard>.json, nulls/<shard>.json, dictionaries/<shard>.safetensors
layered/<stage>/<shard>.safetensors: of interaction graphs, moments, bases and all that is found;
    layered/{labels, modules, layer_blocks}/<shard>.json
regions/<stage>/<shard>.safetensors: of regions of interest, likewise
prompts/<dataset>/{index, <split>-<block>}.json: see `packing.prompts`
tables/parts/<cell>.<table>.parquet, tables/parts/<cell>.json: see `storage.tables.parts`
unsound.json: what a verification has found, until a driver has looked at it

Until schema 3 every circuit and metric had an array of its own, and every mask.

report.html; of a run of many cells report/<number>.<model>.<task>.html

The tables themselves are `<table>.parquet` (`storage.tables.registry`).
"""

from __future__ import annotations

from edgesweep.storage.fold import AGGREGATIONS

PLAN = "plan.json"
CONFIG = "config.yaml"
LOG = "log"
COMMITS = "commits"
EPOCHS = "epochs"
LEASE = "lease.json"
UNSOUND = "unsound.json"
MANIFEST = "manifest.json"
REPORT = "report.html"
#: pages of a large run, which its report lists
PAGES = "report"
ATTRIBUTIONS = "attributions.zarr"
AGGREGATES = "aggregates.zarr"
EVALUATIONS = "evaluations.zarr"
MEANS = "means.zarr"
#: tables of cells that are done, before those of the run are written
PARTS = "tables/parts"
#: of a cell, in aggregates.zarr
PARTIALS, SUBTREES, EDGES, INTERVAL, STABILITY = (
    "partials",
    "subtrees",
    "edges",
    "interval",
    "stability",
)
#: folded beside the aggregations
COUNTS = ("n", "n_bad")
#: what lies beside the members' groups in the group of a cell, and the subset of all of them: no
#: member can be called so, nor as blocks of no task are
NO_MEMBERS = frozenset(
    {
        "all",
        "shared",
        "zarr.json",
        PARTIALS,
        SUBTREES,
        EDGES,
        INTERVAL,
        STABILITY,
        *AGGREGATIONS,
        *COUNTS,
    }
)
#: beside the scores of an input; float64
PER_INPUT = ("residual", "metric_clean", "metric_baseline")
#: of a cell over features: its largest edges (numbers of nodes), and the weight in the target's
#: units beside that in the units that `target` asks for
LISTS = {"source": "int64", "target": "int64", "weight": "float32", "raw": "float32"}
#: how many edges a list has, the sum of what it dropped, with and without sign, and how far the
#: completeness of its targets is missed
PER_LIST = ("count", "dropped", "dropped_abs", "residual")
#: of references
SIDES = ("full", "empty")
#: how far the graph of all features and errors is from the model
DISTANCES = (("distance", "logits"), ("distance", "scale"))


def scores(cell: str) -> str:
    return f"{cell}/scores"


def kept(cell: str, name: str) -> str:
    return f"{cell}/kept/{name}"


def per_input(cell: str) -> str:
    return f"{cell}/per_input"


def graph(cell: str) -> str:
    """Of a cell that has a graph of its own."""
    return f"{cell}/graph"


def shared_graph(model: str) -> str:
    """Of all cells whose graph is that of a model, by its digest."""
    return f"graphs/{model[:12]}"


def partials(cell: str) -> str:
    return f"{cell}/{PARTIALS}"


def subtrees(cell: str, subset: str) -> str:
    """Partials of the subtrees over a subset's shards."""
    return f"{cell}/{SUBTREES}/{subset}"


def group(cell: str, subset: str = "all") -> str:
    """Of a cell's aggregates, of all inputs or of a member's."""
    return cell if subset == "all" else f"{cell}/{subset}"


def folded(group: str, statistic: str) -> str:
    return f"{group}/{statistic}"


def interval(cell: str) -> str:
    return f"{cell}/{INTERVAL}"


def stability(cell: str) -> str:
    return f"{cell}/{STABILITY}"


def mean(source: str, index: int) -> str:
    return f"{source}/{index:04d}"


def selected(cell: str) -> str:
    return f"{cell}/selected"


def ran(cell: str, condition: str) -> str:
    return f"{cell}/{condition}/ran"


def fitted(cell: str) -> str:
    return f"fitted/{cell}"


def candidates(cell: str) -> str:
    return f"candidates/{cell}"


def minimality(cell: str, patch: str, metric: str) -> str:
    return f"{cell}/minimality.{patch}/{metric}"


def probed(cell: str, kind: str) -> str:
    return f"probes/{cell}/{kind}"


def interpolation(cell: str, name: str) -> str:
    return f"interpolation/{cell}/{name}"


def values(cell: str, condition: str) -> str:
    return f"{cell}/{condition}/values"


def searched(cell: str, condition: str, ranking: str, number: int, what: str) -> str:
    """`what` is run of the circuits of a round of a search, or what they came to: ran, values."""
    return f"{cell}/{condition}/reach/{ranking}/{number:02d}/{what}"


def rebuilt(cell: str, what: str) -> str:
    return f"{cell}/rebuilt/{what}"


def reference(source: str, patch: str) -> str:
    return f"reference/{source}/{patch}/values"


def distance(source: str, patch: str) -> str:
    return f"reference/{source}/{patch}/distance"


def source(dataset: str, features: str = "") -> str:
    """What means and references are of: the prompts, and over features (their digest) the graph."""
    return f"{dataset}.{features}" if features else dataset


def listed(cell: str, name: str) -> str:
    return f"{cell}/listed/{name}"


def edges(cell: str) -> str:
    return f"{cell}/{EDGES}"


def dictionary(shard: str) -> str:
    return f"dictionaries/{shard}.safetensors"


def layered(stage: str, shard: str) -> str:
    return f"layered/{stage}/{shard}.safetensors"


def regions(stage: str, shard: str) -> str:
    return f"regions/{stage}/{shard}.safetensors"


def layered_told(stage: str, shard: str) -> str:
    return f"layered/{stage}/{shard}.json"


def interaction_inputs(graph: str, start: str) -> str:
    """Of the section from a layer."""
    return f"{graph}/{start}/inputs"


def prompt_index(dataset: str) -> str:
    return f"prompts/{dataset}/index.json"


def prompt_block(dataset: str, split: str, block: int) -> str:
    return f"prompts/{dataset}/{split}-{block:05d}.json"


def chain(shard: str) -> str:
    return f"blocks/{shard}.json"


def null(shard: str) -> str:
    return f"nulls/{shard}.json"


def part(cell: str, table: str) -> str:
    """`table`: the name of its file."""
    return f"{PARTS}/{cell}.{table}"


def parts_record(cell: str) -> str:
    return f"{PARTS}/{cell}.json"
