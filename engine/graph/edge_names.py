"""Names of edges as people and other tools write them, and where a graph has them.

    ours             embed   a9.h6   a9.h6.q   a9.kv2.v   m3   logits   resid3/f120
    of a query head  a9.h6.v: under grouped-query attention its key-value head's port, a9.kv2.v
    EAP-IG           input   a9.h6<v>
    TransformerLens  blocks.9.attn.hook_result[:, :, 6]   blocks.9.hook_v_input[:, :, 6]
    and ACDC         blocks.9.attn.hook_v[COL, COL, 6]   blocks.3.hook_mlp_in
                     blocks.0.hook_resid_pre (embed)   blocks.11.hook_resid_post (logits)

Heads are numbered as query heads (TransformerLens: `ungroup_grouped_query_attention`).
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from edgesweep.engine.graph.base import Graph

#: what other tools write -> what we do; an index of a head stands as [6]
_FOREIGN = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"input|hook_(?:pos_)?embed|blocks\.0\.hook_resid_pre", "embed"),
        (r"(a\d+\.h\d+)<([qkv])>", r"\1.\2"),
        (r"blocks\.(\d+)\.attn\.hook_(?:result|z)\[(\d+)\]", r"a\1.h\2"),
        (r"blocks\.(\d+)\.(?:attn\.)?hook_([qkv])(?:_input)?\[(\d+)\]", r"a\1.h\3.\2"),
        (r"blocks\.(\d+)\.hook_(?:mlp_in|mlp_out|resid_mid)", r"m\1"),
        (r"blocks\.(\d+)\.hook_resid_post", r"resid\1"),
    )
)
_INDEX = re.compile(r"\[[^\]]*?(\d*)\]$")


class CircuitError(ValueError):
    """A circuit that cannot be read, or is none of a graph; one line."""


def our_name(edge: str) -> str:
    """An edge `source->target` in our names, as far as they can be told without a graph: what a
    query head reads at its keys stays `a9.h6.k`, the stream after a layer `resid11`."""
    return "->".join(_our_end(end.strip()) for end in edge.split("->"))


def _our_end(end: str) -> str:
    indexed = _INDEX.sub(lambda m: f"[{m[1]}]" if m[1] else "", end)
    for pattern, ours in _FOREIGN:
        if match := pattern.fullmatch(indexed):
            return match.expand(ours)
    return end


def edge_places(graph: Graph, edges: Iterable[str]) -> list[int]:
    """Where a graph has the named edges.

    Raises:
        CircuitError: it lacks one; the line names it and the nearest that there is.
    """
    others = _other_names(graph)
    places = []
    for edge in edges:
        source, _, target = our_name(edge).partition("->")
        target = others.get(target, target)
        try:
            places.append(graph.edge_index(f"{source}->{target}"))
        except KeyError:
            raise CircuitError(f"edge {edge!r}: {_what_lacks(graph, source, target)}") from None
    return places


def _other_names(graph: Graph) -> dict[str, str]:
    """Names that a target has beside its own: an input of attention one for each of its heads, the
    logits that of the stream which they read."""
    ports = graph.target_table.port
    found = {
        f"{graph.nodes[node]}.{ports[target]}": graph.targets[target]
        for target, node in graph.ends.pairs.tolist()
        if ports[target]
    }
    return found | {f"resid{graph.node_table.layer[-1] - 1}": graph.targets[-1]}


def _what_lacks(graph: Graph, source: str, target: str) -> str:
    for end, names in ((source, graph.sources), (target, graph.targets)):
        if end not in names:
            return f"there is no {end!r} in this graph{_nearest(end, names)}"
    into = graph.edge_target == graph.targets.index(target)
    near = [graph.sources[i] for i in graph.edge_source[into].tolist()]
    return f"{target} does not read {source}{_nearest(source, near, f'->{target}')}"


def _nearest(name: str, names: Iterable[str], tail: str = "") -> str:
    found = get_close_matches(name, list(names), n=1, cutoff=0)
    return f"; the nearest is {found[0]}{tail}" if found else ""
