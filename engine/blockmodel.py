"""Block models of circuits: hand a graph to graph-tool's interpreter, read the partition back.

graph-tool cannot share a process with the engine's numpy, so a chain is fitted by
``blockmodel_worker.py`` in an interpreter that has it. Whatever happens to that process (crash,
kill, timeout, nonsense in its result), the caller gets a ``BlockModelError``.

A fit is several chains with their own seeds, of which the shortest description is kept (Peixoto
2017; "Emerging structures" 3.3). One chain is one unit of work: the sweep engine runs chains as
shards, ``fit`` runs them side by side from one process, ``run_jobs`` many short ones, of any
graphs, one after another in one. The graph is simple and directed, and its nodes are those of the
circuit.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgesweep.engine.blockmodel_process import (
    HOW_TO_INSTALL,
    BlockModelError,
    Interpreter,
    find_interpreter,
    run_worker,
)

__all__ = [
    "HOW_TO_INSTALL",
    "BlockModel",
    "BlockModelError",
    "BlockOptions",
    "Chain",
    "Interpreter",
    "Job",
    "best",
    "block_model",
    "canonical",
    "chain_seeds",
    "find_interpreter",
    "fit",
    "fit_chain",
    "run_jobs",
]


@dataclass(frozen=True)
class BlockOptions:
    """What changes a chain's numbers, its seed apart.

    ``n_iter`` merge-split sweeps make a round; a chain ends after ``patience`` rounds without a
    shorter description, or ``max_rounds`` in all.
    """

    fit: Literal["nested", "flat"] = "nested"
    degree_corrected: bool = True
    n_iter: int = 10
    patience: int = 20
    max_rounds: int = 1000

    def __post_init__(self) -> None:
        if self.fit not in ("nested", "flat"):
            raise BlockModelError(f"fit is {self.fit!r}; allowed: nested, flat")
        for name in ("n_iter", "patience", "max_rounds"):
            if getattr(self, name) < 1:
                raise BlockModelError(f"{name} is {getattr(self, name)}; it must be at least 1")


Levels = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Chain:
    """One fitted chain.

    ``levels[l][i]`` is the block of node i at level l, bottom first (one level if flat), numbered
    by first appearance in node order. Lengths are in nats; ``description_length_null`` is that of
    all nodes in one block, under the same kind of model.
    """

    levels: Levels
    description_length: float
    description_length_null: float
    seed: int
    options: BlockOptions
    engine: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` gives the equal chain back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Chain:
        levels = tuple(tuple(level) for level in data["levels"])
        return Chain(**{**data, "levels": levels, "options": BlockOptions(**data["options"])})


@dataclass(frozen=True)
class BlockModel:
    """The partition that was kept, over named nodes; fields as in ``Chain``."""

    nodes: tuple[str, ...]
    levels: Levels
    description_length: float
    description_length_null: float
    degree_corrected: bool
    nested: bool
    seed: int

    def blocks(self, level: int = 0) -> np.ndarray:
        """The block of each node at a level: int64 [n_nodes], canonical numbering."""
        if not 0 <= level < len(self.levels):
            raise BlockModelError(f"level {level} is not one of the {len(self.levels)} fitted")
        return np.array(self.levels[level], dtype=np.int64)

    def n_blocks(self, level: int = 0) -> int:
        return len(set(self.blocks(level).tolist()))


@dataclass(frozen=True)
class Job:
    """A graph to be described.

    Attributes:
        edges: int [n_edges, 2], (source, target) in 0..n_nodes-1; their order and repetitions do
            not matter.
        bottom: the block of each node where the partition is given, canonical; the levels above it
            are fitted. None: all is.
    """

    edges: np.ndarray
    n_nodes: int
    seed: int
    bottom: tuple[int, ...] | None = None


def fit_chain(
    edges: np.ndarray,
    n_nodes: int,
    options: BlockOptions,
    seed: int,
    interpreter: Interpreter,
    timeout_s: float = 1800.0,
    stop: threading.Event | None = None,
) -> Chain:
    """Fit one chain in a process of its own and wait for it; see ``Job`` and ``run_jobs``."""
    return run_jobs([Job(edges, n_nodes, seed)], options, interpreter, timeout_s, stop)[0]


def run_jobs(
    jobs: Sequence[Job],
    options: BlockOptions,
    interpreter: Interpreter,
    timeout_s: float = 1800.0,
    stop: threading.Event | None = None,
) -> list[Chain]:
    """Do all jobs in one process, and wait for it; each has the chain that it would have alone.

    A graph without edges has nothing to describe: its blocks are as given or one, length 0, and
    there is no process for it. ``timeout_s`` is of each. ``stop``, once set, ends the process
    early. Raises ``BlockModelError`` with the cause and the last line the process wrote to stderr.
    """
    checked = [_checked(job) for job in jobs]
    some = [job for job in checked if len(job.edges)]
    found = iter(_run(some, options, interpreter, timeout_s * len(some), stop) if some else ())
    return [next(found) if len(job.edges) else _of_nothing(job, options) for job in checked]


def _checked(job: Job) -> Job:
    if not 0 <= job.seed < 2**32:
        raise BlockModelError(f"seed is {job.seed}; it must be in 0..2**32-1")
    if job.bottom is not None and len(job.bottom) != job.n_nodes:
        raise BlockModelError(f"a partition of {len(job.bottom)} nodes for {job.n_nodes}")
    return dataclasses.replace(job, edges=_simple_edges(job.edges, job.n_nodes))


def _of_nothing(job: Job, options: BlockOptions) -> Chain:
    return Chain((job.bottom or (0,) * job.n_nodes,), 0.0, 0.0, job.seed, options, "none")


def _run(
    jobs: Sequence[Job],
    options: BlockOptions,
    interpreter: Interpreter,
    timeout_s: float,
    stop: threading.Event | None,
) -> list[Chain]:
    told = [{"n_nodes": job.n_nodes, "seed": job.seed} for job in jobs]
    text = json.dumps({**dataclasses.asdict(options), "jobs": told})
    arrays = {f"edges{i}": job.edges for i, job in enumerate(jobs)}
    arrays |= {f"bottom{i}": np.array(j.bottom) for i, j in enumerate(jobs) if j.bottom is not None}
    with tempfile.TemporaryDirectory(prefix="edgesweep-blocks-") as folder:
        request, result = Path(folder) / "request.npz", Path(folder) / "result.json"
        np.savez(request, allow_pickle=False, options=np.array(text), **arrays)
        run_worker(interpreter, request, result, timeout_s, stop)
        return _read_chains(result, jobs, options)


def _simple_edges(edges: np.ndarray, n_nodes: int) -> np.ndarray:
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < n_nodes):
        raise BlockModelError(f"an edge names a node outside 0..{n_nodes - 1}")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise BlockModelError("an edge goes from a node to itself; the graph must be simple")
    return np.unique(pairs, axis=0)


def _read_chains(result: Path, jobs: Sequence[Job], options: BlockOptions) -> list[Chain]:
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
        return [_chain(data, job, options) for data, job in zip(found, jobs, strict=True)]
    except FileNotFoundError:
        raise BlockModelError("the block model's process ended well but left no result") from None
    except (ValueError, KeyError, TypeError) as error:
        kind = type(error).__name__
        raise BlockModelError(f"the block model's result is malformed: {kind}: {error}") from None


def _chain(data: Mapping[str, Any], job: Job, options: BlockOptions) -> Chain:
    levels = tuple(_level(level, job.n_nodes) for level in data["levels"])
    length = float(data["description_length"])
    null = float(data["description_length_null"])
    engine = f"graph-tool {data['versions']['graph_tool']}"
    if not levels or not math.isfinite(length) or not math.isfinite(null):
        raise ValueError("no level, or a description length that is not finite")
    return Chain(levels, length, null, job.seed, options, engine)


def _level(level: Any, n_nodes: int) -> tuple[int, ...]:
    if len(level) != n_nodes or not all(type(block) is int for block in level):
        raise ValueError(f"a level must hold {n_nodes} block numbers")
    return canonical(level)


def canonical(blocks: Sequence[int]) -> tuple[int, ...]:
    """Renumber blocks by first appearance in node order, so that equal partitions are equal."""
    number: dict[int, int] = {}
    return tuple(number.setdefault(block, len(number)) for block in blocks)


def chain_seeds(seed: int, chains: int) -> tuple[int, ...]:
    """One seed a chain; the first k of them are the same whatever the number of chains."""
    if chains < 1:
        raise BlockModelError(f"chains is {chains}; it must be at least 1")
    return tuple(np.random.SeedSequence(seed).generate_state(chains).tolist())


def best(chains: Sequence[Chain]) -> Chain:
    """The shortest description; ties go to the lowest seed. All of one graph and options."""
    if not chains:
        raise BlockModelError("no chain was fitted")
    if len({(len(chain.levels[0]), chain.options) for chain in chains}) > 1:
        raise BlockModelError("the chains are of different graphs or options; nothing to compare")
    return min(chains, key=lambda chain: (chain.description_length, chain.seed))


def block_model(nodes: Sequence[str], chains: Sequence[Chain]) -> BlockModel:
    """The best of the chains, over the nodes' names in the order of the fitted graph."""
    kept = best(chains)
    if len(nodes) != len(kept.levels[0]):
        raise BlockModelError(f"{len(nodes)} node names for {len(kept.levels[0])} fitted nodes")
    return BlockModel(
        nodes=tuple(nodes),
        levels=kept.levels,
        description_length=kept.description_length,
        description_length_null=kept.description_length_null,
        degree_corrected=kept.options.degree_corrected,
        nested=kept.options.fit == "nested",
        seed=kept.seed,
    )


def fit(
    edges: np.ndarray,
    nodes: Sequence[str],
    options: BlockOptions,
    seed: int,
    interpreter: Interpreter,
    *,
    chains: int = 4,
    max_workers: int = 1,
    timeout_s: float = 1800.0,
) -> BlockModel:
    """Fit ``chains`` chains, ``max_workers`` at a time, and keep the shortest.

    The first chain that fails ends the others and raises.
    """
    stop = threading.Event()

    def one(chain_seed: int) -> Chain:
        return fit_chain(edges, len(nodes), options, chain_seed, interpreter, timeout_s, stop)

    with ThreadPoolExecutor(max_workers) as pool:
        futures = [pool.submit(one, chain_seed) for chain_seed in chain_seeds(seed, chains)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return block_model(nodes, [future.result() for future in futures])
