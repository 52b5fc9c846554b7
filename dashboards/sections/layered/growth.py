"""Structure through training: what networks on the way of a training need, against their step."""

import re
from collections.abc import Iterable, Iterator

import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.layered.growth import (
    Panel,
    decades,
    lines,
    spectrum_heat,
    stacked,
)
from edgesweep.dashboards.pages import Choice, Section
from edgesweep.dashboards.style import KNOWN, OTHER, POSITIVE, TASK_COLOURS, colours

#: how a model is named that is a step of a training: `step-000500`, `checkpoint-500`
STEP = re.compile(r"^(.*?(?:step|checkpoint|ckpt|epoch|iter)[-_]?)(\d+)$", re.IGNORECASE)
#: networks of one training from which on it is drawn
LEAST = 3
#: by split
SPLITS = {"build": ("build prompts", OTHER), "eval": ("evaluation prompts", KNOWN)}
METRICS = {"nll": "loss (nats)", "accuracy": "accuracy"}


def section(data: RunData) -> Iterator[Section]:
    """One figure a training and basis."""
    spectra = data.layered.get("spectra", pd.DataFrame())
    if spectra.empty or not (trainings := trainings_of(spectra["model"])):
        return
    figures = {}
    for stem, steps in trainings.items():
        mine = spectra[spectra["model"].isin(steps)]
        for task, basis in sorted(set(zip(mine["task"], mine["basis"], strict=True))):
            told = [stem.rstrip("-_")] if len(trainings) > 1 else []
            told += [task] if mine["task"].nunique() > 1 else []
            figures[" · ".join([*told, basis])] = _figure(data, steps, task, basis)
    needed = data.config["edges_needed"]
    yield Section(
        "growth",
        "Structure through training",
        "Networks on the way of one training, by their step: their loss and accuracy on the "
        "prompts that bases are of and on those held out; how many interactions of each section "
        f"they need to stay within {needed['within']:g} of their own {needed['metric']} (robust "
        "rule, with its interval; none where a network only guesses); the number of directions "
        "that a layer's eigenvalues Λ amount to, (ΣΛ)²/ΣΛ²; and the largest Λ of each layer, dark "
        "near the largest of that step, light six decades below it. (Of PCA the variances.)",
        (Choice("growth-figure", "basis", figures, next(iter(figures))),),
    )


def trainings_of(models: Iterable[str]) -> dict[str, dict[str, int]]:
    """Of models that are steps of one training, by what their names have in common, their steps in
    order; trainings of a few steps are none."""
    found: dict[str, dict[str, int]] = {}
    for model in sorted(set(models)):
        if said := STEP.match(model):
            found.setdefault(said[1], {})[model] = int(said[2])
    return {
        stem: dict(sorted(steps.items(), key=lambda pair: pair[1]))
        for stem, steps in found.items()
        if len(steps) >= LEAST
    }


def _figure(data: RunData, steps: dict[str, int], task: str, basis: str) -> go.Figure:
    panels = [*_scores(_of(data, "network_scores", steps, task))]
    panels += _needed(_of(data, "edges_needed", steps, task, basis))
    panels += _spectra(_of(data, "spectra", steps, task, basis), basis)
    panels += _modules(_of(data, "modularity", steps, task, basis))
    return stacked(panels)


def _of(
    data: RunData, table: str, steps: dict[str, int], task: str, basis: str | None = None
) -> pd.DataFrame:
    """Rows of a training, with their step."""
    rows = data.layered.get(table, pd.DataFrame())
    if rows.empty:
        return rows
    mine = rows[rows["model"].isin(steps) & (rows["task"] == task)]
    mine = mine if basis is None else mine[mine["basis"] == basis]
    return mine.assign(step=mine["model"].map(steps))


def _scores(rows: pd.DataFrame) -> Iterator[Panel]:
    names = {name: colour for name, colour in SPLITS.values()}
    for metric, title in METRICS.items() if len(rows) else ():
        mine = rows[rows["metric"] == metric]
        mine = mine.assign(name=mine["split"].map({k: name for k, (name, _) in SPLITS.items()}))
        axis = decades(mine["score"]) if metric == "nll" else {"range": [-0.03, 1.03]}
        yield Panel(title, lines(mine, "score", names), axis)


def _needed(rows: pd.DataFrame) -> Iterator[Panel]:
    if rows.empty:
        return
    rows = rows[rows["search"] == "robust"]
    rows = rows.assign(name=rows["source"] + " → " + rows["target"])
    names = {name: colour for name, colour in _in_order(rows["name"]).items()}
    yield Panel(
        "edges needed", lines(rows, "edges", names, ("low", "high")), decades(rows["edges"])
    )


def _spectra(rows: pd.DataFrame, basis: str) -> Iterator[Panel]:
    rows = rows[rows["of"] == ("variances" if basis == "pca" else "spectrum")]
    rows = rows.assign(name=rows["layer"], value=rows["value"].clip(lower=0.0))
    of = rows.groupby(["name", "step"], sort=False)["value"]
    amount = (of.sum() ** 2 / of.agg(lambda v: (v**2).sum())).rename("directions").reset_index()
    names = _in_order(rows["name"])
    yield Panel("directions", lines(amount, "directions", names), decades(amount["directions"]))
    for layer in names:
        yield spectrum_heat(rows[rows["name"] == layer], f"Λ at {layer}")


def _modules(rows: pd.DataFrame) -> Iterator[Panel]:
    if rows.empty:
        return
    rows = rows[rows["method"] == "leiden"]
    rows = rows[rows["resolution"] == rows["resolution"].max()].assign(name="modules")
    yield Panel("modules", lines(rows, "n_modules", {"modules": POSITIVE}), {"rangemode": "tozero"})
    both = pd.concat([rows.assign(name="Q"), rows.assign(name="Q, rewired", q=rows["rewired"])])
    names = {"Q": KNOWN, "Q, rewired": OTHER} if rows["rewired"].notna().any() else {"Q": KNOWN}
    yield Panel("modularity", lines(both, "q", names), {"rangemode": "tozero"})


def _in_order(names: Iterable[str]) -> dict[str, str]:
    """A colour a name, in the order in which they come."""
    found = list(dict.fromkeys(names))
    by_name = colours(found, TASK_COLOURS)
    return {name: by_name[name] for name in found}
