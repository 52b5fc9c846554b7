"""How many edges of a section, or of all sections at once, the network needs, on evaluation prompts
in the run's own precision. A shard is one search: what it tries next hangs on what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.engine.bases.needed import RESOLVED, Curve, log_sizes, published, settle
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.ablated import AllSections, Networks, OneSection, Own
from edgesweep.sweeps.interactions.graphs import Graph, Layered
from edgesweep.sweeps.interactions.rules import bound, drawn
from edgesweep.sweeps.interactions.shards import (
    NEEDED,
    Shard,
    folded,
    n_units,
    of_layer,
    owner,
    searched,
)
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View


class EdgesNeeded(Stage[Shard[Graph]]):
    """One shard a section; with `edges_needed.sections: all` one more of all of them, at no layer,
    after these."""

    name = NEEDED
    title = "edges that are needed"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[Graph]]:
        for graph in plan.graphs:
            sections = graph.of.sections
            for start, _ in sections:
                yield Shard(graph, start)
            if plan.config.edges_needed.sections == "all" and len(sections) > 1:
                yield Shard(graph, parts=tuple(Shard(graph, start).key for start, _ in sections))

    def groups(self, plan: Plan, shard: Shard[Graph]) -> Iterable[str]:
        return (searched(shard.of),) if shard.at else ()

    def needs(self, plan: Plan, shard: Shard[Graph]) -> tuple[str, ...]:
        graph, layers = shard.of, shard.layers.layers
        starts = (shard.at,) if shard.at else layers[:-1]
        read = (shard.at, shard.end) if shard.at else layers
        found = [name for layer in read for name in of_layer(graph.basis, layer)]
        found += [folded(graph, start) for start in starts]
        return tuple(found) if shard.at else (*found, searched(graph))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        """A person hears at once of a network that only guesses."""
        firsts = {graph.of: graph for graph in reversed(plan.graphs)}
        for of, graph in firsts.items():
            tell = partial(tell_guesses, graph=graph)
            yield Gate(f"guesses {of.key}", (searched(graph),), tell)

    @torch.inference_mode()
    def run(self, context: Context, shard: Shard[Graph]) -> Done:
        write = partial(files.write_tensors, context, self.name, shard.key)
        networks = Networks.of(context, shard.layers, shard.at or shard.layers.layers[0])
        if guesses := networks.guesses:
            return write({"base": torch.from_numpy(networks.base)}, guesses=guesses)
        own = [_own(context, key) for key in shard.parts]
        tried = AllSections.of(context, shard, networks, own) if own else OneSection.of(
            context, shard, networks
        )  # fmt: skip
        curve = Curve(tried.score, networks.base, bound(context.config), tried.n + 1)
        told = {"possible": tried.n}
        asked: list[int] = []
        if own:
            curve.tried([sum(of.robust for of in own)])
        elif context.config.edges_needed.search == "bisect":
            told["needed"], asked = published(curve, shard.of.total(shard.at))
        curve.tried([*log_sizes(tried.n, context.config.edges_needed.points), tried.n + 1])
        settle(curve, within=0.0 if asked or own else RESOLVED)
        if context.config.measures.bootstrap:
            settle(curve, drawn(context.config, len(networks.base)), RESOLVED)
        return write(_tensors(curve, tried, asked), robust=int(curve.robust()[0]), **told)

    def passes(self, plan: Plan, shard: Shard[Graph]) -> Passes:
        n = plan.n_inputs("eval") * len(plan.dataset_of(shard.dataset).members)
        of = shard.layers
        sections = [(shard.at, shard.end)] if shard.at else of.sections
        tried = plan.config.edges_needed.points + np.log2(shard.of.total(sections[0][0]))
        widest = max(of.widths)
        sizes = sum(
            of.width(a) * min(widest, n_units(plan, of, a)) * of.width(b) for a, b in sections
        )
        return Passes(flop=float(tried * 2.0 * n * sizes))

    def alike(self, shard: Shard[Graph]) -> str:
        return shard.at

    def whose(self, plan: Plan, shard: Shard[Graph]) -> str:
        return owner(shard)


def _tensors(curve: Curve, tried: OneSection | AllSections, asked: list[int]) -> files.Tensors:
    sizes = sorted(curve.scores)
    return {
        "sizes": torch.tensor(sizes),
        "edges": torch.tensor([tried.kept[size] for size in sizes]),
        "negative": torch.tensor([tried.negative.get(size, 0) for size in sizes]),
        "scores": torch.from_numpy(np.stack([curve.scores[size] for size in sizes])),
        "base": torch.from_numpy(curve.base),
        "asked": torch.tensor(asked, dtype=torch.int64),
    }


def _own(context: Context, key: str) -> Own:
    """What a section needs by itself."""
    record = context.log.record(NEEDED, key)
    return Own(record["robust"], record["possible"])


def tell_guesses(view: View, graph: Graph) -> None:
    """That a network is not searched, since it does its task no better than by chance."""
    for start, _ in graph.of.sections[:1]:
        if line := view.log.record(NEEDED, Shard(graph, start).key).get("guesses"):
            view.say(_said(graph.of, line))


def _said(of: Layered, line: str) -> str:
    return (
        f"{of.model} on {of.task}: {line}; its edges needed are left out. allowed: a network that "
        "does its task"
    )
