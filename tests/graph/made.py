"""Graphs over features from the names of their edges."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgesweep.engine.graph import ERROR, FeatureGraph


def graph_of_names(parents: Mapping[str, Sequence[str]], edges: Iterable[str]) -> FeatureGraph:
    """The graph of named edges, whose nodes are those that the edges touch."""
    pairs = [tuple(edge.split("->")) for edge in edges]
    nodes: dict[str, set[int]] = {}
    for name in (end for pair in pairs for end in pair if end != "logits"):
        site, _, tail = name.partition("/")
        nodes.setdefault(site, set()).add(ERROR if tail == "err" else int(tail[1:]))
    bare = FeatureGraph(parents, nodes, np.zeros((0, 2), dtype=np.int64))
    ends = [[bare.node_index(name) for name in pair] for pair in pairs]
    return FeatureGraph(parents, nodes, np.array(ends, dtype=np.int64).reshape(-1, 2))
