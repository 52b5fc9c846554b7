"""The sections of a config, key by key, and what each key may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edgesweep.engine.statistics.search import cheapest
from edgesweep.sweeps.config.fields import (
    AXIS,
    INTERACTIONS,
    OPTIONAL_AXIS,
    NotNegative,
    Place,
    Positive,
    Section,
    Text,
    a_share,
    at_most,
    one_of,
    seconds_or_none,
    within,
    word_or_share,
)
from edgesweep.sweeps.config.grids import (
    BY_SIZE,
    OF_EDGES,
    Grid,
    grid_of,
    grid_values,
    grids_of,
)
from edgesweep.tasks.files.corpus import CONTEXT

#: which method attributes which kind of nodes
FEATURE_METHODS = ("eap", "ig_activations", "node_ap", "node_ig")
METHODS = {
    name: ("heads", "features") if name in FEATURE_METHODS else ("heads",)
    for name in (
        *("eap", "eap_patch", "eap_both", "relp", "relp_qk"),
        *("ig_inputs", "ig_activations", "ig_activations_joint", "exact", "acdc", "eap_acdc"),
        *("node_ap", "node_ig", "node_exact", "hisp", "random"),
    )
}
#: what `evaluate.circuits` may name beside files
KNOWN = "known"
#: what `sweep.nodes` may name beside the sets of dictionaries in `features`
NODES = ["heads"]
RULES = ("midpoint", "right", "left", "trapezoid", "gauss_legendre")
PATCHES = ("counterfactual", "resample", "mean", "zero", "noise")
METRICS = (
    "logit_diff",
    "prob_diff",
    "kl",
    "kl_reverse",
    "js",
    "stat_dist",
    "nll",
    "accuracy",
)
AGGREGATIONS = ("mean", "max", "rms", "mean_abs", "max_abs")
SELECTIONS = ("value", "abs", "topk_value", "topk_abs", "greedy")
ABLATIONS = ("edge", "node")
#: bytes of one number, by dtype
NUMBER_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


#: of prompts, patches, bootstraps, chains
Seed = Annotated[int, within(0, 2**31 - 1)]


class Candidates(Section):
    """The edges that exact patching and ACDC look at: those that EAP ranks first, by |mean score|
    over the build prompts, and some drawn from the others."""

    top: Annotated[int, within(1)]
    random: Annotated[int, within(0)] = 0


class Sweep(Section):
    """The axes whose product is the cells. `seed` (None: the config's) draws both splits of every
    task, and seeds the patches and methods that take a seed. `tau` is a number or a grid like a
    threshold's, for ACDC; `candidates` `all`, or how many of EAP's first and of the others;
    `orders`: random orders that the method `random` makes of the same edges."""

    model: Annotated[tuple[Text, ...], AXIS] = ("smollm2-135m",)
    task: Annotated[tuple[Text, ...], AXIS] = ("ioi",)
    seed: Annotated[tuple[Seed, ...] | None, OPTIONAL_AXIS] = None
    nodes: Annotated[tuple[Text, ...], AXIS] = ("heads",)
    method: Annotated[tuple[Annotated[str, one_of(*METHODS, INTERACTIONS)], ...], AXIS] = ("eap",)
    steps: Annotated[tuple[Annotated[int, within(1, 1000)], ...], AXIS] = (5,)
    rule: Annotated[tuple[Annotated[str, one_of(*RULES)], ...], AXIS] = ("midpoint",)
    tau: Any = (0.01,)
    build_patch: Annotated[tuple[Annotated[str, one_of(*PATCHES)], ...], AXIS] = ("counterfactual",)
    build_metric: Annotated[tuple[Annotated[str, one_of(*METRICS)], ...], AXIS] = ("logit_diff",)
    candidates: Candidates | None = None
    orders: Annotated[int, within(1, 1000)] = 1

    @field_validator("tau")
    @classmethod
    def _taus_can_be_had(cls, value: Any) -> tuple[float, ...]:
        values = tuple(sorted(set(grid_values(value))))
        if values[0] < 0:
            raise ValueError(f"has {values[0]:g}; allowed: 0 or more")
        return values

    @field_validator("candidates", mode="before")
    @classmethod
    def _all_is_no_choice(cls, value: Any) -> Any:
        return None if value == "all" else value


Share = Annotated[float, AfterValidator(a_share)]


def _below_one(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError("is out of range; allowed: 0 or more and less than 1")
    return value


class Reach(Section):
    """The smallest circuit of each ranking, ablation and patch with |1 − φ| ≤ 1 − level for each
    level in `faithfulness`, φ of all inputs by `metric` (None: the first of evaluate.metric). An
    answer may be above the smallest by the share `within` of its edges."""

    faithfulness: Annotated[tuple[Share, ...], AXIS] = (0.8, 0.95)
    metric: Text | None = None
    within: Annotated[float, AfterValidator(_below_one)] = 0.0

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(sorted(self.faithfulness))

    @property
    def each(self) -> int:
        """Sizes of each level that are measured at once."""
        return cheapest(len(self.levels))

    @property
    def at_once(self) -> int:
        """Circuits of a round, but for one more where not even the largest threshold will do."""
        return self.each * len(self.levels)

    def by(self, metrics: Sequence[str]) -> str:
        """The metric, one of those that a run measures. Raises ValueError for another."""
        metric = self.metric or metrics[0]
        if metric not in metrics:
            raise ValueError(
                f"has metric {metric!r}, which evaluate.metric does not measure; allowed: "
                f"{', '.join(metrics)}"
            )
        return metric


class Evaluate(Section):
    """The axes under each cell. `threshold` is a grid, or a grid for each selection (see `grids`);
    `node_threshold` a grid of numbers of nodes, for methods that score nodes (None: the shares that
    `threshold` is in, else 10 sizes up to all). With `complement` each circuit's complement is run
    too (completeness). `circuits` are run beside those that are found: files, and `known` for the
    published ones. `reach` searches between the thresholds for the smallest circuits that are so
    faithful."""

    aggregation: Annotated[tuple[Annotated[str, one_of(*AGGREGATIONS)], ...], AXIS] = ("mean",)
    selection: Annotated[tuple[Annotated[str, one_of(*SELECTIONS)], ...], AXIS] = ("topk_abs",)
    threshold: Any = {"log": [10, 10000, 10]}  # noqa: RUF012
    node_threshold: Any = None
    complement: bool = False
    circuits: Annotated[tuple[Text, ...] | None, OPTIONAL_AXIS] = None
    ablation: Annotated[tuple[Annotated[str, one_of(*ABLATIONS)], ...], AXIS] = ("edge",)
    eval_patch: Annotated[tuple[Annotated[str, one_of(*PATCHES)], ...], AXIS] = ("counterfactual",)
    metric: Annotated[tuple[Annotated[str, one_of(*METRICS)], ...], AXIS] = ("logit_diff",)
    reach: Reach | None = None

    @field_validator("node_threshold")
    @classmethod
    def _is_a_grid_of_numbers_of_nodes(cls, value: Any) -> Any:
        if value is not None:
            grid_of(value, "topk_abs")
        return value

    @field_validator("reach")
    @classmethod
    def _its_metric_is_measured(cls, value: Reach | None, others: ValidationInfo) -> Reach | None:
        if value is not None and "metric" in others.data:
            value.by(others.data["metric"])
        return value

    @model_validator(mode="after")
    def _thresholds_can_be_had(self) -> Evaluate:
        self.grids()
        return self

    def grids(self) -> dict[str, Grid]:
        """The grid of each selection. Raises ValueError if there is none."""
        return grids_of(self.threshold, self.selection, SELECTIONS)

    def thresholds(self, n: int, *, of_nodes: bool) -> dict[str, tuple[float, ...]]:
        """Of each selection, ascending, where `n` edges or nodes are scored; of nodes none of a
        selection that builds on edges."""
        grids = {s: g for s, g in self.grids().items() if not (of_nodes and s in OF_EDGES)}
        return {s: self._of_nodes(s, g, n) if of_nodes else g.of(n) for s, g in grids.items()}

    def _of_nodes(self, selection: str, grid: Grid, n: int) -> tuple[float, ...]:
        """Scores, or numbers of nodes, none above all."""
        if selection not in BY_SIZE:
            return grid.of(n)
        if self.node_threshold is not None:
            grid = grid_of(self.node_threshold, selection)
        elif not grid.shares:
            grid = grid_of({"log": [1, n, 10]}, selection)
        return tuple(sorted({min(v, float(n)) for v in grid.of(n)}))


class Data(Section):
    """Prompts a member task, tokens of each window of a text, what a mean patch is the mean of, and
    how loud a noise patch is (1: as large as what it is added to)."""

    n_build: Annotated[int, within(1, 10**6)] = 32
    n_eval: Annotated[int, within(1, 10**6)] = 32
    context: Annotated[int, within(2, 10**6)] = CONTEXT
    mean_over: Annotated[str, one_of("patch", "clean")] = "patch"
    mean_positions: Annotated[str, one_of("per_position", "pooled")] = "per_position"
    noise_scale: Positive = 1.0

    @property
    def pooled(self) -> bool:
        return self.mean_positions == "pooled"


class Measures(Section):
    """What is derived from the scores and the runs.

    `bootstrap`: resamples behind every interval, 0 for none; `level`: what an interval covers;
    `minimality`: the edges of each cell's circuit of about this size are taken out one by one;
    `interpolate`: so many edges of each EAP cell move from clean to patch in `fractions` steps;
    `overlap`: at most so many rankings of a group are compared, each with each; `rewired`: so many
    random circuits with the degrees of each cell's circuit of about `rewired_edges` edges are run
    beside it; `rebuild`: on so many resamples of the build prompts, two at least, circuits are
    found and run again.
    """

    bootstrap: Annotated[int, within(0, 10**5)] = 200
    level: Share = 0.95
    minimality: Annotated[int, within(0)] = 0
    interpolate: Annotated[int, within(0, 100)] = 0
    fractions: Annotated[int, within(2, 1000)] = 10
    overlap: Annotated[int, within(0, 1000)] = 50
    rewired: Annotated[int, within(0, 1000)] = 0
    rewired_edges: Annotated[int, within(1)] = 1000
    rebuild: Annotated[int, within(0, 1000)] = 0

    @field_validator("rebuild")
    @classmethod
    def _one_has_no_spread(cls, value: int) -> int:
        if value == 1:
            raise ValueError("is out of range; allowed: 0, or 2 and more, for one has no spread")
        return value


class Scores(Section):
    """What is stored of the scores of each input; aggregates, circuits and results do not depend on
    it. `keep`: `all`, `none`, or of each input the share with the largest magnitude. `bits` of the
    mantissa: 23 is exact, 7 as good as bfloat16. `codec` packs them. `block`: inputs of a shard
    and its partial, where they are many; at least those attributed at once."""

    keep: Annotated[Any, word_or_share("all", "none")] = "all"
    bits: Annotated[int, within(1, 23)] = 23
    codec: Annotated[str, one_of("none", "lz4", "zstd")] = "none"
    block: Annotated[int, within(1, 10**6)] = 256


class Execution(Section):
    """How it runs. `threads`, `dtype`, `micro_batch`, `circuits_per_batch`, `shard_inputs` change
    bits and belong to the run's identity; the others do not. `graph_tool`, a program, is not kept
    in the run directory.

    `shard_inputs` None: some 4 MB of scores a shard. `micro_batch`, `circuits_per_batch`: prompts
    and circuits in one forward. `num_gpus`: of each actor; above 0 the model goes to the GPU.
    `gpus_per_actor` above 1: so many whole GPUs of one node for each actor, and the layers of its
    model are spread over them.
    `work_timeout_s`: an actor that takes longer over a shard is replaced, for it may be frozen;
    `auto` is 10 times the longest of its kind so far and 600 s at least, an hour for the first, and
    4 times as long at each further attempt; `none` waits for ever. `start_timeout_s`: so long the
    pool waits for an actor when it has none; `none` for ever, as for nodes that come and go.
    `max_lost`: so often a shard's node may go away, which is no attempt. `backup`: when nothing
    else waits, a shard that takes 1.5 times the median of its kind is begun a second time
    elsewhere; one of the two writes. `models_url`: where nodes find models that they do not see
    (`edgesweep stage`); None: `models` of the run directory.
    """

    executor: Annotated[str, one_of("ray", "serial")] = "ray"
    address: Text | None = None
    actors: Annotated[int, within(1, 10000)] = 2
    num_gpus: Annotated[NotNegative, at_most(1000)] = 0.0
    gpus_per_actor: Annotated[int, within(1, 64)] = 1
    memory_gb: Annotated[Positive, at_most(10**6)] | None = None
    threads: Annotated[int, within(1, 1024)] = 1
    dtype: Annotated[str, one_of(*NUMBER_BYTES)] = "float32"
    micro_batch: Annotated[int, within(1, 4096)] = 16
    circuits_per_batch: Annotated[int, within(1, 64)] = 16
    shard_inputs: Annotated[int, within(1, 10**6)] | None = None
    max_attempts: Annotated[int, within(1, 1000)] = 3
    max_slot_deaths: Annotated[int, within(1, 10000)] | None = None
    max_lost: Annotated[int, within(0, 10**6)] = 100
    work_timeout_s: Any = "auto"
    start_timeout_s: Any = 600.0
    backup: bool = False
    graph_tool: Text | None = None
    models_url: Place | None = None

    @field_validator("work_timeout_s")
    @classmethod
    def _is_seconds_or_a_word(cls, value: Any) -> Any:
        return value if value == "auto" else seconds_or_none(value, "auto, none")

    @field_validator("start_timeout_s")
    @classmethod
    def _is_seconds_or_none(cls, value: Any) -> Any:
        return seconds_or_none(value, "none")

    @model_validator(mode="after")
    def _a_slot_outlives_a_poison_shard(self) -> Execution:
        if self.max_slot_deaths is not None and self.max_slot_deaths <= self.max_attempts:
            raise ValueError(
                f"max_slot_deaths is {self.max_slot_deaths}; it must be more than max_attempts, "
                f"{self.max_attempts}, for a slot must outlive a shard that kills it"
            )
        return self

    @model_validator(mode="after")
    def _whole_gpus_are_counted_once(self) -> Execution:
        if self.gpus_per_actor > 1 and self.num_gpus not in (0, self.gpus_per_actor):
            raise ValueError(
                f"gpus_per_actor is {self.gpus_per_actor} and num_gpus is {self.num_gpus:g}; "
                "allowed: equal numbers, or no num_gpus"
            )
        return self

    @property
    def gpus(self) -> float:
        """What each actor has; 0: its model runs on the CPU."""
        return float(self.gpus_per_actor) if self.gpus_per_actor > 1 else self.num_gpus
