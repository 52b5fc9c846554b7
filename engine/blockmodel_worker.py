"""Fit stochastic block models; run as a script by an interpreter that has graph-tool.

    python -I blockmodel_worker.py --probe              prints the versions as one line of JSON
    python -I blockmodel_worker.py REQUEST.npz RESULT.json

Kept apart from the engine because graph-tool is compiled against its own numpy and cannot be
imported beside the engine's (design page, "Environment facts"). It imports the standard library,
numpy and graph_tool, and nothing else; a test holds this.

Request (no pickles): ``options``, a JSON string with fit ("nested" | "flat"), degree_corrected,
n_iter, patience, max_rounds, and ``jobs``, a list of {n_nodes, seed}; and for the i-th job
``edges<i>`` int [n_edges, 2] of (source, target), distinct, and, where its partition is given and
not to be found, ``bottom<i>`` int [n_nodes]. Result: a list, see ``result``; description lengths
are in nats. A job is done alike whatever others stand beside it.

A request with ``z``, the weights of all pairs of a complete undirected graph, float [layers, pairs]
in the order of ``numpy.triu_indices(n, 1)``, and ``blocks``, a partition (empty: none), is of the
weighted block model with normal weights: see ``weighted``.

A request with ``layers``, of each node, ``pairs``, edges between layers, and their ``weights`` is
of the degree-corrected weighted block model whose blocks are of one layer: see ``layered``.

The fit, for one chain:
1. the agglomerative multilevel minimisation of Peixoto 2014 (graph-tool's ``minimize_*``);
2. rounds of ``n_iter`` merge-split sweeps at zero temperature (Peixoto 2020), until ``patience``
   rounds in a row bring nothing;
3. the best partition seen is rebuilt from nothing, and the length reported is that state's.
Of a partition that is given, step 2 finds the levels above it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # graph-tool warns when its drawing libraries are absent
    import graph_tool
    from graph_tool.inference import (
        BlockState,
        LayeredBlockState,
        NestedBlockState,
        minimize_blockmodel_dl,
        minimize_nested_blockmodel_dl,
    )

PR_SET_PDEATHSIG = 1
MIN_GAIN_NATS = 1e-6  # smaller differences are rounding, not shorter descriptions
EXTRA_LEVELS = 2  # room above the hierarchy for the sweeps to deepen it


def versions() -> dict[str, str]:
    """The versions that a partition depends on."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    graph_tool_version = graph_tool.__version__.split()[0]
    return {"graph_tool": graph_tool_version, "numpy": np.__version__, "python": python}


def die_with_parent() -> None:
    """Ask the kernel to end this process with the one that started it (Linux; else nothing)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return


def single_thread() -> None:
    """The identity of a run fixes its threads: one here, whatever the machine has."""
    if graph_tool.openmp_enabled():
        graph_tool.openmp_set_num_threads(1)


def make_graph(n_nodes: int, edges: np.ndarray) -> Any:
    graph = graph_tool.Graph(directed=True)
    graph.add_vertex(n_nodes)
    graph.add_edge_list(edges)
    return graph


def make_state(graph: Any, bs: list[np.ndarray], options: dict[str, Any]) -> Any:
    """A state with the given hierarchy (``bs[l]`` maps blocks of level l-1; one entry if flat)."""
    degree_corrected = options["degree_corrected"]
    if options["fit"] == "nested":
        return NestedBlockState(graph, bs=bs, state_args={"deg_corr": degree_corrected})
    return BlockState(graph, b=bs[0], deg_corr=degree_corrected)


def hierarchy(state: Any, options: dict[str, Any]) -> list[np.ndarray]:
    """The state's hierarchy as copied arrays, still with graph-tool's gaps in the numbering."""
    if options["fit"] == "nested":
        return [np.array(b, dtype=np.int64) for b in state.get_bs()]
    return [np.array(state.get_blocks().a, dtype=np.int64)]


def by_first_appearance(blocks: np.ndarray) -> np.ndarray:
    """Equal partitions get equal numbers, and so a description length of the same bits."""
    _, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


def levels_over_nodes(bs: list[np.ndarray]) -> list[np.ndarray]:
    """The block of every node at each level, bottom first; repeated levels are left out.

    A hierarchy ends with its first level of one block.
    """
    levels: list[np.ndarray] = []
    block_of = np.arange(len(bs[0]))
    for level in bs:
        block_of = level[block_of]
        compact = by_first_appearance(block_of)
        if not levels or compact.max() < levels[-1].max():
            levels.append(compact)
        if compact.max() == 0:
            return levels
    return [*levels, np.zeros_like(block_of)] if len(bs) > 1 else levels


def hierarchy_of_levels(levels: list[np.ndarray]) -> list[np.ndarray]:
    """The inverse of ``levels_over_nodes``: each level as a map of the blocks below it."""
    bs = [levels[0]]
    for index, above in enumerate(levels[1:]):
        below = levels[index]
        parent = np.zeros(below.max() + 1, dtype=np.int64)
        parent[below] = above
        bs.append(parent)
    return bs


def minimised(graph: Any, options: dict[str, Any]) -> Any:
    """Step 1: the agglomerative minimum."""
    state_args = {"deg_corr": options["degree_corrected"]}
    if options["fit"] != "nested":
        return minimize_blockmodel_dl(graph, state_args=state_args)
    state = minimize_nested_blockmodel_dl(graph, state_args=state_args)
    return state.copy(bs=hierarchy(state, options) + [np.zeros(1, dtype=np.int64)] * EXTRA_LEVELS)


def refined(state: Any, options: dict[str, Any], **among: Any) -> list[np.ndarray]:
    """Step 2: zero-temperature merge-split rounds; the best hierarchy seen. ``among`` restricts the
    sweeps to some levels."""
    best, shortest = hierarchy(state, options), state.entropy()
    idle = n_rounds = 0
    while idle < options["patience"] and n_rounds < options["max_rounds"]:
        state.multiflip_mcmc_sweep(niter=options["n_iter"], beta=np.inf, **among)
        n_rounds += 1
        length = state.entropy()
        if length < shortest - MIN_GAIN_NATS:
            best, shortest, idle = hierarchy(state, options), length, 0
        else:
            idle += 1
    return best


def above(graph: Any, bottom: np.ndarray, options: dict[str, Any]) -> list[np.ndarray]:
    """A hierarchy whose first level is given; flat, it has no other."""
    n_blocks = int(bottom.max()) + 1
    if options["fit"] != "nested" or n_blocks == 1:
        return [bottom]
    top = [np.zeros(1, dtype=np.int64)] * EXTRA_LEVELS
    state = make_state(graph, [bottom, np.zeros(n_blocks, dtype=np.int64), *top], options)
    return refined(state, options, ls=range(1, EXTRA_LEVELS + 2))


def result(
    edges: np.ndarray, bottom: np.ndarray | None, job: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """One job: levels [n_levels][n_nodes], their length, the one-block length, versions."""
    # graph-tool takes 0 as "draw a seed yourself": every run would give another partition.
    graph_tool.seed_rng(job["seed"] or 2**32 - 1)
    np.random.seed(job["seed"])  # noqa: NPY002 - graph-tool's Python side draws from it
    graph = make_graph(job["n_nodes"], edges)
    if bottom is None:
        best = refined(minimised(graph, options), options)
    else:
        best = above(graph, bottom, options)
    one_block = [np.zeros(job["n_nodes"], dtype=np.int64)]
    null = make_state(graph, one_block, options).entropy()
    levels = levels_over_nodes(best)
    length = make_state(graph, hierarchy_of_levels(levels), options).entropy()
    if bottom is None and length > null:
        # The search may stop above the trivial partition; the shortest is kept.
        levels, length = one_block, null
    return {
        "levels": [level.tolist() for level in levels],
        "description_length": float(length),
        "description_length_null": float(null),
        "versions": versions(),
    }


# Every pair has its edge: an edge tells nothing, and only the weights cost.
COMPLETE = {"dense": True, "multigraph": False, "edges_dl": False}


def complete(n_nodes: int, z: np.ndarray, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The graph of all pairs, one edge a layer, and the arguments of its state. "published": each
    pair twice and loops of weight 0, degree-corrected."""
    published, n_layers = options["encoding"] == "published", len(z)
    pairs = np.column_stack([*np.triu_indices(n_nodes, 1)])
    if published:
        loops = np.column_stack([np.arange(n_nodes)] * 2)
        pairs = np.concatenate([pairs, pairs[:, ::-1], loops])
        z = np.concatenate([z, z, np.zeros((n_layers, n_nodes))], axis=1)
    graph = graph_tool.Graph(directed=False)
    graph.add_vertex(n_nodes)
    graph.add_edge_list(np.tile(pairs, (n_layers, 1)))
    weight = graph.new_edge_property("double", vals=z.ravel())
    how: dict[str, Any] = {"recs": [weight], "rec_types": ["real-normal"], "deg_corr": published}
    if options["model"] == "nix":
        how["rec_params"] = [{}]
    if n_layers > 1:
        layer = graph.new_edge_property("int", vals=np.repeat(np.arange(n_layers), len(pairs)))
        how |= {"ec": layer, "layers": True}
    return graph, how


def weighted(
    n_nodes: int, z: np.ndarray, given: np.ndarray, options: dict[str, Any]
) -> dict[str, Any]:
    """The partition of a complete graph by its weights: from the given one, or found from nothing.

    ``z`` has a row a layer; layers share the partition, and each has its own means and variances.
    ``model`` "nix" has the prior NIX(mean, 1, variance, 3), "microcanonical" none. The given one's
    own length is ``description_length_given``; rounds of merge-split then look for a shorter one,
    until one is as short as ``until``. ``fit`` "nested" gives the blocks of every level.
    """
    graph_tool.seed_rng(options["seed"] or 2**32 - 1)
    np.random.seed(options["seed"])  # noqa: NPY002 - as in ``result``
    graph, how = complete(n_nodes, z, options)
    nested = options["fit"] == "nested"
    of = COMPLETE if options["encoding"] == "simple" and not nested else {}
    kind = LayeredBlockState if "ec" in how else BlockState
    if len(given):
        state = kind(graph, b=given, **how)
    elif nested:
        state = minimize_nested_blockmodel_dl(graph, state_args=how)
    else:
        state = minimize_blockmodel_dl(
            graph, state=kind, state_args=how, multilevel_mcmc_args={"entropy_args": of}
        )
    first = best = float(state.entropy(**of))
    blocks = hierarchy(state, options)
    until, n_rounds = options["until"], 0
    while n_rounds < options["max_rounds"] and (until is None or best > until):
        n_rounds += 1
        state.multiflip_mcmc_sweep(niter=options["n_iter"], beta=np.inf, entropy_args=of)
        if (length := float(state.entropy(**of))) < best - MIN_GAIN_NATS:
            best, blocks = length, hierarchy(state, options)
    return {
        "levels": [level.tolist() for level in levels_over_nodes(blocks)],
        "description_length": best,
        "description_length_given": first,
        "versions": versions(),
    }


def layered(
    layers: np.ndarray, pairs: np.ndarray, weights: np.ndarray, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """A chain for each of ``seeds``: blocks [n_nodes], their length, that of a block a layer."""
    graph = make_graph(len(layers), pairs)
    how = {
        "recs": [graph.new_edge_property("double", vals=weights)],
        "rec_types": ["real-normal"],
        "clabel": graph.new_vertex_property("int", vals=layers),
    }
    one_a_layer = float(BlockState(graph, b=layers, **how).entropy())
    found = []
    for seed in options["seeds"]:
        graph_tool.seed_rng(seed or 2**32 - 1)
        np.random.seed(seed)  # noqa: NPY002 - as in ``result``
        state = minimize_blockmodel_dl(graph, state_args=how)
        blocks = refined(state, {**options, "fit": "flat", "max_rounds": 1000})[0]
        length = float(BlockState(graph, b=blocks, **how).entropy())
        if length > one_a_layer:
            blocks, length = layers, one_a_layer
        told = {"blocks": by_first_appearance(blocks).tolist(), "description_length": length}
        found.append({**told, "one_a_layer": one_a_layer, "versions": versions()})
    return found


def write_atomic(path: str, text: str) -> None:
    """A reader finds the whole result or none."""
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def main(arguments: list[str]) -> int:
    if arguments == ["--probe"]:
        print(json.dumps(versions()))
        return 0
    request_path, result_path = arguments
    die_with_parent()
    single_thread()
    with np.load(request_path, allow_pickle=False) as request:
        told = json.loads(str(request["options"]))
        arrays = dict(request)
    found: Any
    if "layers" in arrays:
        found = layered(arrays["layers"], arrays["pairs"], arrays["weights"], told)
    elif "z" in arrays:
        found = weighted(int(arrays["n_nodes"]), arrays["z"], arrays["blocks"], told)
    else:
        found = [
            result(arrays[f"edges{i}"], arrays.get(f"bottom{i}"), job, told)
            for i, job in enumerate(told["jobs"])
        ]
    write_atomic(result_path, json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
