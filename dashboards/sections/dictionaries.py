"""The section of dictionaries: what takes each site apart, how well, and what is lost."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.kinds import Kind, together
from edgesweep.dashboards.names import share
from edgesweep.dashboards.pages import Section, Table

#: field of a fit -> its head, and how it is written
HEADS = {
    "variance_explained": "variance explained",
    "l0": "features on",
    "dead_share": "never on",
    "positions": "positions",
    "sinks": "sinks",
}
#: of those, what is a number of positions
COUNTS = ("positions", "sinks")
#: of the model's loss, what the median must cost for a share of that to be read
LEAST_COST = 0.01
#: a share beyond this, either way, is no share
MOST_RECOVERED = 2.0
BASES = {
    "pca": "principal axes",
    "lib": "local interaction basis",
    "gib": "global interaction basis",
}
ERRORS = {
    "node": "Errors are nodes of the graph, so that the graph of all nodes is the model.",
    "clean": "Errors keep the value that they have in the model, in every circuit.",
    "patch": "Errors have their patch value in every circuit.",
    "zero": "Errors are left out, 0 in every circuit.",
}


def section(data: RunData) -> Iterator[Section]:
    """Nothing where no site is taken apart by a dictionary."""
    kinds = {nodes: kind for nodes, kind in data.kinds.items() if kind.sites}
    if not kinds:
        return
    errors = together(ERRORS.get(kind.error, "") for kind in kinds.values())
    fixed = any(kind.error != "node" for kind in kinds.values())
    yield Section(
        "dictionaries",
        "Dictionaries",
        "A site's value is taken apart into features of a dictionary and what it leaves over, the "
        f"error. {escape(errors)} Of dictionaries that the run "
        "trained: the share of the variance about the median that the features explain, how many "
        "are on at a position, the share that is never on, and, of the next-token loss that "
        "putting the median in place of the site's value costs, the share that the features "
        "recover (not defined where that costs next to nothing; losses are in nats a token). All "
        "on evaluation prompts, on which no dictionary was trained, at positions that are no "
        "sinks: those whose norm is beyond 20 times the median norm keep their value.",
        (
            *(part for nodes in kinds for part in _of_one(data, nodes, several=len(kinds) > 1)),
            _lists(data),
            _distances(data) if fixed else "",
        ),
    )


# --- sites -------------------------------------------------------------------------------------


def _of_one(data: RunData, nodes: str, *, several: bool) -> Iterator[str | Table]:
    """The dictionaries of one name in `sweep.nodes`."""
    if several:
        yield f"<h3>{escape(nodes)}</h3>"
    kind, n_nodes = data.kinds[nodes], _nodes_of_sites(data, nodes)
    rows = [
        [
            escape(told["site"]),
            *map(escape, words(told["dictionary"])),
            f"{told['n_features']:,}",
            f"{n_nodes.get(told['site'], 0):,}",
            *(_number(name, fit.get(name)) for name in HEADS),
            _recovered(fit) if fit else "",
        ]
        for told, fit in _fits(data, kind)
    ]
    head = ["site", "dictionary", "from", "features", "nodes in the graph", *HEADS.values()]
    head.append("loss recovered")
    yield Table(head, rows, range(3, len(head)))


def _nodes_of_sites(data: RunData, nodes: str) -> dict[str, int]:
    """How many nodes of each site the run's largest graph of it has."""
    found: dict[str, int] = {}
    for cell, graph in data.graphs.items():
        if data.cells[cell]["nodes"] == nodes:
            for site, n in graph.node_table["site"].value_counts().items():
                found[str(site)] = max(found.get(str(site), 0), int(n))
    return found


def _fits(data: RunData, kind: Kind) -> Iterator[tuple[Mapping[str, Any], Mapping[str, float]]]:
    """Sites and how well their dictionaries fit, a dictionary of several models once."""
    once = {(s["site"], str(s["dictionary"]), s["shard"]): s for s in kind.sites}
    for told in once.values():
        yield told, data.facts.fits.get(told["shard"], {})


def words(told: Any) -> tuple[str, str]:
    """A dictionary's kind, and where it is from."""
    if told == "none":
        return "none: all is error", ""
    if told == "identity":
        return "identity", ""
    if isinstance(told, str):
        return "loaded", told
    if told["kind"] in BASES:
        return BASES[told["kind"]], "computed in this run"
    extra = f", {told['k']} at a position" if told["kind"] == "topk" else ""
    return f"{told['kind']}{extra}", "trained in this run"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.1f}" if name == "l0" else share(value)


def _recovered(fit: Mapping[str, Any]) -> str:
    """The share of the loss that the features recover; of next to nothing there is none, and the
    losses say so."""
    if "loss_clean" not in fit:
        return "<span class='dim'>nothing was held out</span>"
    recovered, clean, median = fit["loss_recovered"], fit["loss_clean"], fit["loss_median"]
    costs = median - clean >= LEAST_COST * clean
    if recovered is not None and costs and abs(recovered) <= MOST_RECOVERED:
        return share(recovered)
    return (
        f"<span class='dim'>not defined</span><small>loss {clean:.3f}, "
        f"with the median {median:.3f}, with the features {fit['loss_spliced']:.3f}</small>"
    )


# --- what is lost ------------------------------------------------------------------------------


def _lists(data: RunData) -> str:
    """A row a cell that scores edges: what its lists dropped, and how completeness is missed."""
    rows = [
        [
            escape(data.cell_names[cell]),
            share(facts.dropped_in_lists),
            "" if np.isnan(facts.dropped_in_sum) else share(facts.dropped_in_sum),
            f"{np.median(facts.residual):.2g}",
            f"{facts.residual.max():.2g}",
        ]
        for cell, facts in data.facts.lists.items()
    ]
    if not rows:
        return ""
    head = ["scored by", "dropped, by input", "dropped, of all", "residual", "largest"]
    return (
        "<h3>What the lists of edges leave out</h3><p class='note'>Of each input the largest edges "
        "are stored, then of all inputs together: the shares of Σ|score| that were dropped. The "
        "residual is by how much the edges into a target miss its change from patch to clean, over "
        "the largest such change of its site: the worst target of an input, median and largest "
        "over inputs. It goes to 0 with more steps where dictionaries are continuous; gated, "
        "JumpReLU and top-k ones are not.</p>" + Table(head, rows, (1, 2, 3, 4)).html()
    )


def _distances(data: RunData) -> str:
    """A row a patch: how far the graph of all features is from the model."""
    rows = [
        [escape(patch), f"{gap.mean():.3g}", f"{scale.mean():.3g}", f"{(gap / scale).max():.3g}"]
        for patch, (gap, scale) in data.facts.distance.items()
    ]
    if not rows:
        return ""
    head = ["patch", "largest logit difference", "largest logit", "worst ratio"]
    return (
        "<h3>How far all features are from the model</h3><p class='note'>As errors are no nodes "
        "here, the graph that keeps every feature need not be the model; it is where errors are "
        "clean, but for rounding. Means over inputs of the largest difference of a logit and of "
        "the model's largest logit, and the largest ratio of the two.</p>"
        + Table(head, rows, (1, 2, 3)).html()
    )
