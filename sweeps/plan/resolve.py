"""From names to things: the models on this disk, and every task's prompts as each model's tokens.

`resolve` does all that can be refused before anything is written: models that are not there, tasks
that a tokenizer cannot spell, metrics that a method cannot use, prompts that no mean stands for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, product
from pathlib import Path
from typing import TypeVar

from edgesweep.engine.graph import OF_EDGES, EdgeGraph
from edgesweep.engine.methods import METHODS, MethodError
from edgesweep.engine.model import ModelError, ModelSizes, ModelSource, resolve_model
from edgesweep.engine.patches import PatchError, mean_groups, resample_partners
from edgesweep.storage.layout import NO_MEMBERS
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import Config
from edgesweep.sweeps.config.schema import METHODS as METHODS_OF
from edgesweep.sweeps.granularity.base import Nodes
from edgesweep.sweeps.granularity.kinds import kind_of
from edgesweep.sweeps.interactions.graphs import Graph, graphs_of
from edgesweep.sweeps.plan.canonical import digest, digest_of_lists, slug
from edgesweep.sweeps.plan.given import Given, given_circuits
from edgesweep.sweeps.plan.subsets import OVER_TASKS
from edgesweep.sweeps.regions.sites import UnitsOf, rois_of
from edgesweep.tasks import (
    TaskData,
    TaskError,
    alike,
    build_task,
    check_task_name,
)
from edgesweep.tasks.packed import Packed

T = TypeVar("T")

MEMBER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Dataset:
    """A task's prompts in one model's tokens.

    Attributes:
        model: label of the model.
        task: label of the task.
        seed: what the prompts were drawn with, and what their patches are drawn with.
        data: the prompts.
        fingerprint: sha256 of all prompts, in order.
        key: a file name for it.
    """

    model: str
    task: str
    seed: int
    data: TaskData
    fingerprint: str
    key: str

    @property
    def members(self) -> tuple[str, ...]:
        return self.data.members

    @property
    def subsets(self) -> tuple[str, ...]:
        """`all`, and the members where there are several."""
        return ("all", *self.members) if len(self.members) > 1 else ("all",)

    def member_rows(self, split: str) -> dict[str, slice]:
        """The rows of each member among the prompts of a split, "build" or "eval"."""
        prompts = self.data.build if split == "build" else self.data.evaluation
        n = len(prompts) // len(self.members)
        return {member: slice(i * n, (i + 1) * n) for i, member in enumerate(self.members)}

    @cached_property
    def length(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(p) for p in chain(self.data.build, self.data.evaluation))

    def build_groups(self, pooled: bool) -> list[str]:
        """Groups that a mean patch keeps apart, in order of appearance in the build split."""
        if not pooled:
            return list(self.group_lengths)
        return list(dict.fromkeys(mean_groups(self.data.build, pooled=True)))

    @cached_property
    def group_lengths(self) -> dict[str, int]:
        """Tokens of the build prompts of each such group, where positions are kept apart."""
        named = (mean_groups([prompt], pooled=False)[0] for prompt in self.data.build)
        return dict(zip(named, map(len, self.data.build), strict=True))


class ResolvedModel:
    """A model on this disk with what a plan needs of it; no weights in memory."""

    def __init__(self, label: str, source: ModelSource) -> None:
        self.label, self.source = label, source

    @cached_property
    def graph(self) -> EdgeGraph:
        return EdgeGraph(self.source.spec)

    @cached_property
    def sizes(self) -> ModelSizes:
        return self.source.sizes


@dataclass(frozen=True)
class Resolved:
    """A config with its models and datasets.

    Attributes:
        models: by label, in the config's order.
        datasets: by (model label, task label, seed), in the config's order.
        nodes: by (model label, name in `sweep.nodes`): how each model is taken apart.
        given: by (model label, task label): the circuits that are given.
        graphs: interaction graphs.
        rois: units of sites that have regions of interest.
    """

    config: Config
    models: dict[str, ResolvedModel]
    datasets: dict[tuple[str, str, int], Dataset]
    nodes: dict[tuple[str, str], Nodes]
    given: Given
    graphs: tuple[Graph, ...] = ()
    rois: tuple[UnitsOf, ...] = ()

    def ways(self, name: str) -> list[Nodes]:
        """How a name in `sweep.nodes` takes each model apart."""
        return [nodes for (_, other), nodes in self.nodes.items() if other == name]


def resolve(config: Config) -> Resolved:
    """Find and check everything that the config names.

    Raises:
        ConfigError: one line; nothing was written but the model cache.
    """
    whole, config = config, config.attributed
    _check_methods(config)
    for name in config.sweep.nodes:
        kind_of(config, name).check(config, name)
    for name in config.sweep.task:
        _refuse("sweep.task", TaskError, partial(check_task_name, name))
    found = [_model(name) for name in config.sweep.model]
    _check_apart("sweep.model", [m.label for m in found])
    _check_different(found)
    models = {m.label: m for m in found}
    made = [_dataset(config, *of) for of in product(found, config.sweep.task, config.seeds)]
    of_one = [d for d in made if (d.model, d.seed) == (made[0].model, made[0].seed)]
    _check_apart("sweep.task", [d.task for d in of_one])
    datasets = {(d.model, d.task, d.seed): d for d in made}
    nodes = {
        (model.label, name): kind_of(config, name).resolve(config, name, model, made)
        for model in found
        for name in config.sweep.nodes
    }
    graphs = graphs_of(whole, models, made)
    rois = rois_of(whole, models, made)
    given = given_circuits(config, models, made)
    return Resolved(config, models, datasets, nodes, given, graphs, rois)


def _check_methods(config: Config) -> None:
    sweep = config.sweep
    _check_attributed(config)
    for method in sweep.method:
        for metric in sweep.build_metric:
            for patch in sweep.build_patch:
                try:
                    METHODS[method].check(metric, patch)
                except MethodError as error:
                    raise ConfigError(f"sweep.build_metric: {error}") from None
    if "eap_acdc" in sweep.method and sweep.candidates is None:
        raise ConfigError(
            "sweep.candidates: method 'eap_acdc' searches the edges that EAP ranks first and needs "
            "to know how many; give {top: N}"
        )
    edges_only = set(config.evaluate.selection) <= OF_EDGES
    if edges_only and (of_nodes := [m for m in sweep.method if METHODS[m].scores_nodes]):
        raise ConfigError(
            f"evaluate.selection: {config.evaluate.selection[0]!r} builds circuits edge by edge, "
            f"and method {of_nodes[0]!r} scores nodes; add topk_abs, which it takes instead"
        )
    takes_rule = any("rule" in METHODS[method].takes for method in sweep.method)
    if takes_rule and "trapezoid" in sweep.rule and 1 in sweep.steps:
        raise ConfigError(
            "sweep.steps: 1 is too few for rule 'trapezoid', which has both ends; allowed: 2 or "
            "more, or rule midpoint"
        )


def _check_attributed(config: Config) -> None:
    """Every method attributes some of the nodes, and all of these are attributed. (Of several kinds
    of nodes, a method may attribute some only.)"""
    methods = {name: kind_of(config, name).methods for name in config.sweep.nodes}
    for method in config.sweep.method:
        if not any(method in of for of in methods.values()):
            name, allowed = next(iter(methods.items()))
            raise ConfigError(
                f"sweep.method: {method!r} is for nodes {METHODS_OF[method][0]!r}; with nodes "
                f"{name!r} allowed: {', '.join(allowed)}"
            )
    for name, allowed in methods.items():
        if not any(method in allowed for method in config.sweep.method):
            raise ConfigError(
                f"sweep.nodes: no method in sweep.method attributes {name!r}; allowed: "
                f"{', '.join(allowed)}"
            )


def _refuse(key: str, kind: type[Exception], action: Callable[[], T]) -> T:
    """The action's result; its kind of error becomes a ConfigError that names the key."""
    try:
        return action()
    except kind as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from None


def _model(name: str) -> ResolvedModel:
    source = _refuse("sweep.model", ModelError, lambda: resolve_model(name))
    label = Path(name).name if name.startswith("/") else name
    return ResolvedModel(label, source)


def _check_apart(key: str, labels: Sequence[str]) -> None:
    """Labels of models and tasks name rows and files."""
    if found := alike(labels):
        one, other = found
        how = "is there twice" if one == other else f"and {one!r} differ in case only"
        raise ConfigError(f"{key}: the name {other!r} {how}; rename one of the files or folders")


def _check_different(models: Sequence[ResolvedModel]) -> None:
    """What is measured of a model is kept by its weights' digest, once."""
    seen: dict[str, str] = {}
    for model in models:
        other = seen.setdefault(model.source.digest, model.label)
        if other != model.label:
            raise ConfigError(
                f"sweep.model: {other!r} and {model.label!r} are the same model, weight by weight; "
                "name one of them"
            )


def _dataset(config: Config, model: ResolvedModel, task: str, seed: int) -> Dataset:
    n_build, n_eval = config.data.n_build, config.data.n_eval
    data = _refuse(
        "sweep.task",
        TaskError,
        lambda: build_task(
            task,
            model.source.tokenizer(),
            n_build,
            n_eval,
            seed,
            n_vocab=model.sizes.n_vocab,
            own=model.source.path,
            shape=model.source.shape,
            context=config.data.context,
            hold=Packed,
        ),
    )
    taken = NO_MEMBERS | {*OVER_TASKS}
    for member in data.members:
        if member.lower() in taken:
            raise ConfigError(
                f"sweep.task: {member!r} cannot name a task: in the run directory something else "
                f"has this name (as have {', '.join(sorted(taken - {member.lower()}))}); "
                "rename the file"
            )
        if not MEMBER_PATTERN.fullmatch(member):
            raise ConfigError(
                f"sweep.task: {member!r} cannot name a task (it becomes a folder); rename the file "
                "with 1 to 64 letters, digits, '.', '_', '-', the first a letter or digit"
            )
    splits = (data.build, data.evaluation)
    fingerprint = digest_of_lists((p.value() for p in split) for split in splits)
    known = [model.source.digest, fingerprint, *([seed] if seed != config.seed else [])]
    key = f"{slug(data.name, 60)}-{digest(known)[:8]}"
    dataset = Dataset(model.label, data.name, seed, data, fingerprint, key)
    _check_lengths(model, dataset)
    _check_means(config, dataset)
    _check_resampling(config, dataset)
    _check_searches(config, dataset)
    return dataset


def _check_lengths(model: ResolvedModel, dataset: Dataset) -> None:
    limit = getattr(model.source.config, "max_position_embeddings", None)
    if limit is not None and dataset.length > limit:
        raise ConfigError(
            f"sweep.task: {dataset.task!r} has a prompt of {dataset.length} tokens; model "
            f"{model.label!r} reads at most {limit}"
        )


def _check_means(config: Config, dataset: Dataset) -> None:
    """Every prompt that meets a mean patch must be of a group that has build prompts."""
    pooled = config.data.mean_positions == "pooled"
    if "mean" not in config.evaluate.eval_patch or pooled:
        return
    known = set(dataset.build_groups(pooled=False))
    lacking = [g for g in mean_groups(dataset.data.evaluation, pooled=False) if g not in known]
    if lacking:
        raise ConfigError(
            f"evaluate.eval_patch: 'mean' per position has no mean for evaluation prompts of "
            f"{lacking[0]!r} (task/template/length): no build prompt is alike; raise data.n_build "
            f"(now {config.data.n_build}) or set data.mean_positions to pooled"
        )


def _check_resampling(config: Config, dataset: Dataset) -> None:
    """Every prompt that meets a resample patch needs another of its kind in its split."""
    splits = (
        ("sweep.build_patch", config.sweep.build_patch, dataset.data.build),
        ("evaluate.eval_patch", config.evaluate.eval_patch, dataset.data.evaluation),
    )
    for key, patches, prompts in splits:
        if "resample" in patches:
            _refuse(key, PatchError, partial(resample_partners, prompts, dataset.seed))


def _check_searches(config: Config, dataset: Dataset) -> None:
    """A search decides on all inputs at once, which must be of one task."""
    searches = [m for m in config.sweep.method if METHODS[m].whole]
    if searches and len(dataset.members) > 1:
        raise ConfigError(
            f"sweep.task: method {searches[0]!r} searches one task's circuit and cannot use the "
            f"mixture {dataset.task!r}; give a list of tasks: [{', '.join(dataset.members)}]"
        )
