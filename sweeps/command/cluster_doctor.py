"""What `edgesweep doctor --cluster` says: every node, what it has, and what is wrong there.

With `--out`, that all nodes see one and the same place is proved, not asked: the doctor writes a
word there that each node must read, and each node writes one that the doctor must find.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edgesweep.engine.memory import PROCESS_BYTES
from edgesweep.engine.model import ModelSource
from edgesweep.engine.model.cache import cache_folder
from edgesweep.engine.model.nodecache import sight
from edgesweep.engine.runtime.outside import Answer, ask_nodes
from edgesweep.storage import StorageError
from edgesweep.storage.stores import Store, open_store
from edgesweep.sweeps.actor.admission import decisive_versions
from edgesweep.sweeps.actor.models import models_address
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.plan.estimates import actor_bytes
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan

LEAST_FREE_BYTES = 10**9
WORD = "doctor"


@dataclass(frozen=True)
class Question:
    """What every node is asked.

    Attributes:
        out: a run directory, or None.
        word: what the doctor wrote there.
        sources: models to be had.
        staged: where they may be staged.
    """

    out: str | None = None
    word: str = ""
    sources: tuple[ModelSource, ...] = ()
    staged: str | None = None


@dataclass(frozen=True)
class Load:
    """What a config asks of a GPU: the share of each actor, and the bytes that it needs there."""

    share: float
    n_bytes: int


@dataclass
class Node:
    """A row of the table, and what is wrong."""

    host: str
    columns: list[str]
    faults: list[str] = field(default_factory=list)


def look(question: Question, node: str) -> dict[str, Any]:
    """What a node has; runs there."""
    import torch

    os.makedirs(cache_folder(), exist_ok=True)
    staged = None if question.staged is None else open_store(question.staged)
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": decisive_versions(),
        "cpus": os.cpu_count(),
        "gpus": [(gpu.name, gpu.total_memory) for gpu in gpus],
        "free": shutil.disk_usage(cache_folder()).free,
        "run": _sees(question, node),
        "models": {source.name: sight(source, staged) for source in question.sources},
    }


def _sees(question: Question, node: str) -> str:
    """Why a node cannot work in the run directory; "" if it can."""
    if question.out is None:
        return ""
    try:
        store = open_store(question.out)
        if store.head(_key(question, "head")) is None:
            return "does not see it"
        created = [store.create(_key(question, node), node.encode()) for _ in range(2)]
        return "" if created == [True, False] else "its disk cannot create a file once (hard links)"
    except (StorageError, OSError) as error:
        return " ".join(str(error).split())


def _key(question: Question, name: str) -> str:
    return f"{WORD}-{question.word}-{name}"


def examine_cluster(
    address: str,
    out: str | None = None,
    sources: Sequence[ModelSource] = (),
    staged: str | None = None,
    load: Load | None = None,
) -> list[Node]:
    """Ask every node of a cluster what it has.

    Raises:
        ExecutorError: the cluster does not answer.
        StorageError: the run directory cannot be written from here.
    """
    question = Question(out, secrets.token_hex(8), tuple(sources), staged)
    store = None if out is None else open_store(out)
    answers: list[Answer] = []
    if store is not None:
        store.put(_key(question, "head"), b"")
    try:
        answers = list(ask_nodes(address, partial(look, question)))
        return [_row(answer, question, store, load) for answer in answers]
    finally:
        if store is not None:
            for name in ("head", *(answer.node for answer in answers)):
                store.delete(_key(question, name))


def _row(answer: Answer, question: Question, store: Store | None, load: Load | None) -> Node:
    if answer.failed:
        return Node(answer.host, ["-"] * 5, [answer.failed])
    told, here = answer.told, decisive_versions()
    faults = [
        f"{name} is {has}, here {here[name]}"
        for name, has in told["versions"].items()
        if has != here[name]
    ]
    if told["free"] < LEAST_FREE_BYTES:
        faults.append("its cache's disk is full")
    if told["run"]:
        faults.append(f"run directory: {told['run']}")
    elif store is not None and store.head(_key(question, answer.node)) is None:
        faults.append("run directory: what it writes there is not seen from here")
    faults += [f"model {name}: not to be had" for name, how in told["models"].items() if not how]
    faults += _crowded(told["gpus"], load)
    gpus = ", ".join(f"{name} {n_bytes / 1e9:.0f} GB" for name, n_bytes in told["gpus"])
    return Node(
        answer.host,
        [
            f"{told['cpus']}",
            gpus or "none",
            f"{told['free'] / 1e9:.0f} GB",
            "-" if question.out is None else "no" if told["run"] else "yes",
            ", ".join(how or "no" for how in told["models"].values()) or "-",
        ],
        faults,
    )


def _crowded(gpus: Sequence[tuple[str, int]], load: Load | None) -> Iterator[str]:
    """Ray hands out shares of a card and does not look at its memory."""
    if load is None or load.share <= 0:
        return
    n = max(1, math.floor(1 / load.share))
    for name, n_bytes in gpus:
        if n * load.n_bytes > n_bytes * max(1, load.share):
            yield (
                f"{n} actors of {load.n_bytes / 1e9:.1f} GB do not fit {name}, "
                f"{n_bytes / 1e9:.0f} GB; raise execution.num_gpus or gpus_per_actor"
            )


def said_of(given: str | None, out: str | None) -> dict[str, Any]:
    """What else a config gives to ask: its models, and what an actor needs. Raises ConfigError."""
    if given is None:
        return {}
    config = load_config(given)
    plan = make_plan(resolve(config))
    execution = config.execution
    return {
        "sources": [model.source for model in plan.resolved.models.values()],
        "staged": models_address(out, execution) if out else execution.models_url,
        "load": Load(execution.gpus, actor_bytes(plan) - PROCESS_BYTES),
    }


def table(nodes: Sequence[Node]) -> Iterator[str]:
    """A line a node, and a line for each thing that is wrong there."""
    rows = [["node", "cpus", "gpus", "free", "run", "model"]]
    rows += [[node.host, *node.columns] for node in nodes]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    yield lines[0].rstrip()
    for node, line in zip(nodes, lines[1:], strict=True):
        yield line.rstrip()
        yield from (f"  wrong: {fault}" for fault in node.faults)
