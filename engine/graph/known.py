"""Known circuits: which edges are true, by construction or as published.

A model whose weights were compiled or set by hand carries its circuit in its own folder, for the
task `own`:

    circuit.json   {"name": …, "source": …, "edges": ["embed->a0.h0.v", …], "patch": …}

`patch` is the kind of patch value under which these edges are the true ones. Circuits of trained
models are tables in engine/graph/known/, one a paper: roles of nodes, and role-to-role edges with
the ports that they end at. An edge of two roles is every edge between their nodes that runs
forward: a head reads what earlier layers wrote, an MLP its own layer's heads too. A table cites its
paper and says how the edges were derived from it; they are as published, and nothing measured
them here. Pinned by tests/graph/test_known.py.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from jaxtyping import Bool

from edgesweep.engine.graph.edges import EdgeGraph
from edgesweep.tasks import OWN_TASK

#: what holds the circuit of the task `own`, beside the prompts
OWN_CIRCUIT = "circuit.json"

_TABLES = Path(__file__).with_name("known")


class KnownCircuitError(ValueError):
    """A circuit.json that cannot be read; the message is one line."""


class Located(Protocol):
    """What tells a model: `engine.model.ModelSource`."""

    @property
    def name(self) -> str:
        """As the user wrote it."""

    @property
    def path(self) -> Path:
        """Its folder."""


@dataclass(frozen=True)
class KnownCircuit:
    """The true edges of a model on a task.

    Attributes:
        name: for tables and pages, such as `ioi-wang-2023`.
        source: where it is from, in words.
        edges: names, `a0.h3->a3.h5.q`.
        heads: the attention heads of the circuit, `a3.h5`.
        patch: kind of patch value under which the edges are true.
    """

    name: str
    source: str
    edges: frozenset[str]
    heads: frozenset[str]
    patch: str = "counterfactual"

    @classmethod
    def of_edges(
        cls, name: str, source: str, edges: Sequence[str], patch: str = "counterfactual"
    ) -> "KnownCircuit":
        """A circuit given by its edges; its heads are those that its edges touch."""
        ends = {end for edge in edges for end in edge.split("->")}
        heads = frozenset(_head(end) for end in ends if end.startswith("a"))
        return cls(name, source, frozenset(edges), heads, patch)

    def mask(self, graph: EdgeGraph) -> Bool[np.ndarray, " n_edges"]:
        """The true edges in the graph's order.

        Raises:
            KeyError: the graph lacks one of them.
        """
        mask = np.zeros(graph.n_edges, dtype=bool)
        for edge in sorted(self.edges):
            try:
                mask[graph.edge_index(edge)] = True
            except KeyError as error:
                raise KeyError(
                    f"known circuit {self.name!r} is not one of this model's graph: {error.args[0]}"
                ) from None
        return mask

    def node_mask(self, graph: EdgeGraph) -> Bool[np.ndarray, " sources"]:
        """The circuit's sources: those that a true edge starts from.

        Raises:
            KeyError: as `mask`.
        """
        nodes = np.zeros(len(graph.sources), dtype=bool)
        nodes[graph.edge_source[self.mask(graph)]] = True
        return nodes

    def save(self, folder: Path) -> None:
        """Write it as the folder's own circuit."""
        entry = {"name": self.name, "source": self.source, "edges": sorted(self.edges)}
        text = json.dumps(entry | {"patch": self.patch}, indent=1, ensure_ascii=False)
        (folder / OWN_CIRCUIT).write_text(text + "\n", encoding="utf-8")


def known_circuit(model: Located, task: str) -> KnownCircuit | None:
    """The known circuit of a model on a task, or None.

    Args:
        task: `own` for the circuit in the model's folder, else the name of a built-in task.

    Raises:
        KnownCircuitError: the folder's circuit cannot be read.
    """
    if task == OWN_TASK:
        file = model.path / OWN_CIRCUIT
        return _read(file) if file.is_file() else None
    for models, of_task, circuit in _published():
        if model.name in models and task == of_task:
            return circuit
    return None


def _read(file: Path) -> KnownCircuit:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        strings = [entry["name"], entry["source"], *entry["edges"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise KnownCircuitError(
            f"{file}: not a known circuit ({type(error).__name__}: {error}); it needs name, "
            "source and edges"
        ) from None
    if not all(isinstance(text, str) for text in strings):
        raise KnownCircuitError(f"{file}: name and source are texts, edges a list of names")
    patch = entry.get("patch", "counterfactual")
    return KnownCircuit.of_edges(strings[0], strings[1], strings[2:], patch)


# --- published tables ------------------------------------------------------------------------


@cache
def _published() -> tuple[tuple[frozenset[str], str, KnownCircuit], ...]:
    """(names of the model, task, circuit) of every table."""
    found = []
    for file in sorted(_TABLES.glob("*.yaml")):
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
        edges = list(dict.fromkeys(_edges(table)))
        circuit = KnownCircuit.of_edges(file.stem, table["source"], edges)
        found.append((frozenset(table["models"]), table["task"], circuit))
    return tuple(found)


def _edges(table: dict[str, Any]) -> Iterator[str]:
    """The role-to-role edges of a table, node by node."""
    roles = table["roles"] | {"embed": ["embed"], "logits": ["logits"]}
    for start, end, *ports in table["edges"]:
        for source, target in product(roles[start], roles[end]):
            if _depth(source) < _depth(target):
                for letter in ports[0] if target.startswith("a") else "-":
                    yield f"{source}->{_port(target, letter)}"


def _port(node: str, letter: str) -> str:
    """The port of a node that an edge ends at; in these models every head has its own keys."""
    if not node.startswith("a"):
        return node
    return f"{node}.q" if letter == "q" else f"{node.replace('.h', '.kv')}.{letter}"


def _head(end: str) -> str:
    """The head that writes, or that a port belongs to."""
    layer, head, *_ = end.split(".")
    return f"{layer}.{head.replace('kv', 'h')}"


def _depth(node: str) -> float:
    if node in ("embed", "logits"):
        return -1.0 if node == "embed" else float("inf")
    layer = int(node[1:].partition(".")[0])
    return layer if node.startswith("a") else layer + 0.5
