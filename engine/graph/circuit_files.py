"""Circuits from files: ours, a model's own circuit.json, EAP-IG's JSON, ACDC's edge lists.

    ours      {"format": "edgesweep circuit 1", "edges": [{"source", "target", "weight", …}], …}
    of names  {"edges": ["embed->a0.h0.v", …], …}, or the list alone
    EAP-IG    {"edges": {"input->a0.h0<q>": {"score": 0.1, "in_graph": true}, …}, …}
    ACDC      [["blocks.1.hook_v_input", [null, null, 4], "blocks.0.attn.hook_result",
              [null, null, 5]], …]: receiver and sender, each with its index; with an effect size
              [[…], 0.1]; or what its `save_subgraph` wrote with torch (.pth)

EAP-IG's file holds every edge of the model; the circuit is what is marked `in_graph`. Weights are
as the file has them, which may be of another sign than ours. ACDC's links within a head (its port
to its output) are no edges here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgesweep.engine.graph.circuit import FORMAT, Circuit
from edgesweep.engine.graph.edge_names import CircuitError, our_name
from edgesweep.engine.graph.known import KnownCircuitError, Located, known_circuit

#: stands for the circuit that is known of a model on a task
KNOWN = "known"

Weighted = Iterator[tuple[str, float | None]]


def given_circuit(given: str, model: Located, task: str) -> Circuit:
    """The circuit of a file, or, for `known`, that of a model on a task. Raises CircuitError, in
    one line."""
    if given != KNOWN:
        return load_circuit(given)
    found = published_circuit(model, task)
    if found is None:
        raise CircuitError(f"no circuit of {model.name} on {task} is known; give a file")
    return found


def published_circuit(model: Located, task: str) -> Circuit | None:
    """The published or compiled circuit of a model on a task, or None. Raises CircuitError."""
    try:
        known = known_circuit(model, task)
    except KnownCircuitError as error:
        raise CircuitError(str(error)) from None
    if known is None:
        return None
    return Circuit.of_edges(sorted(known.edges), name=known.name, model=model.name, task=task)


def load_circuit(path: Path | str) -> Circuit:
    """The circuit of a file. Raises CircuitError, in one line."""
    path = Path(path)
    try:
        if path.suffix == ".pth":
            return _named(dict(_of_subgraph(path)), path)
        text = path.read_text(encoding="utf-8")
        return _circuit(json.loads(text), text, path)
    except OSError as error:
        raise CircuitError(f"circuit {path} cannot be read: {error.strerror or error}") from None
    except CircuitError as error:
        raise CircuitError(f"circuit {path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CircuitError(
            f"circuit {path} is none that we read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); give our JSON, a list of names "
            "such as a0.h3->a3.h5.q, EAP-IG's JSON or ACDC's edges"
        ) from None


def _circuit(found: Any, text: str, path: Path) -> Circuit:
    if isinstance(found, list):
        return _named(dict(map(_of_list, found)), path)
    if found.get("format") == FORMAT:
        return Circuit.from_json(text)
    edges = found["edges"]
    if isinstance(edges, Mapping):
        return _named(dict(_of_eap_ig(edges)), path)
    return _named(dict(map(_of_list, edges)), path, str(found.get("name", "")))


def _named(edges: Mapping[str, float | None], path: Path, name: str = "") -> Circuit:
    """The given edges in our names, without links within a node."""
    ours = {our_name(edge): weight for edge, weight in edges.items()}
    for edge in ours:
        if edge.count("->") != 1:
            raise CircuitError(f"{edge!r} is no edge, which is written source->target")
    kept = {edge: weight for edge, weight in ours.items() if not _is_within(edge)}
    return Circuit(kept, name=name or path.stem)


def _is_within(edge: str) -> bool:
    source, target = (re.sub(r"\.[qkv]$", "", end) for end in edge.split("->"))
    return source == target


def _of_eap_ig(edges: Mapping[str, Any]) -> Weighted:
    for name, about in edges.items():
        if about["in_graph"]:
            yield name, float(about["score"])


def _of_list(entry: Any) -> tuple[str, float | None]:
    """An entry of a list: a name, ACDC's four, or these with their effect."""
    if isinstance(entry, str):
        return entry, None
    if len(entry) == 2:
        return _of_list(entry[0])[0], float(entry[1])
    receiver, into, sender, out_of = entry
    return f"{_indexed(sender, out_of)}->{_indexed(receiver, into)}", None


def _indexed(name: str, index: Any) -> str:
    """ACDC's index of a head is the last of three."""
    return f"{name}[{index[-1]}]" if len(index) == 3 else str(name)


def _of_subgraph(path: Path) -> Weighted:
    import pickle

    import torch

    try:
        found = torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        raise CircuitError("holds more than names and numbers, and is not read") from None
    for entry, present in found.items():
        if present:
            yield _of_list(entry)
