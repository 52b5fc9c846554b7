"""The nodes of the running Ray: where an actor has a place, and which are gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection
from typing import Any

import ray

from edgesweep.engine.runtime.work import Mishap, PoolOptions

UNITS = {"CPU": 1.0, "GPU": 1.0, "memory": 1e9}
#: nodes are asked for at most so often
LOOK_S = 1.0
#: Ray hears late of a node that is gone: a death is doubted so long, and its raylet called
DOUBT_S = 3.0
CALL_S = 1.0


class Cluster:
    """What Ray says of its nodes, and what they say themselves."""

    def __init__(self, options: PoolOptions) -> None:
        self._wanted = {
            "CPU": float(options.threads),
            "GPU": options.num_gpus,
            "memory": float(options.memory_bytes or 0),
        }
        self._looked, self._nodes = -LOOK_S, {}  # type: tuple[float, dict[str, dict[str, Any]]]
        self._is_own = options.address is None

    def alive(self) -> dict[str, dict[str, Any]]:
        """Nodes by id."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
            self._looked = time.monotonic()
        return self._nodes

    def places(self) -> set[str]:
        """Nodes that have what an actor asks for."""
        return {
            node
            for node, about in self.alive().items()
            if all(about["Resources"].get(k, 0) >= n for k, n in self._wanted.items())
        }

    def no_place(self) -> str:
        """What each actor asks for, if no node has all of it; otherwise ""."""
        if self.places():
            return ""
        nodes = [node["Resources"] for node in self.alive().values()]
        most = {k: max((node.get(k, 0) for node in nodes), default=0) for k in self._wanted}
        asked = {k: n for k, n in self._wanted.items() if n or k == "GPU"}
        return (
            f"each actor asks for {_said(asked)}, and the largest of {len(nodes)} nodes has "
            f"{_said({k: most[k] for k in asked})}"
        )

    def is_gone(self, node: str) -> bool:
        """Whether Ray knows that a node is gone, or its raylet does not answer."""
        self._looked = -LOOK_S
        about = self.alive().get(node)
        return about is None or not _answers(about["NodeManagerAddress"], about["NodeManagerPort"])

    def is_doubtful(self, mishap: Mishap) -> bool:
        """Whether a death may yet turn out to be that of its node. The driver's own is alive."""
        if mishap.kind != "death" or self._is_own:
            return False
        return mishap.node != ray.get_runtime_context().get_node_id()


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CALL_S).close()
    except OSError:
        return False
    return True


def other_than(nodes: Collection[str]) -> dict[str, str]:
    """Ray's words for a place on any node but these."""
    return {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"} if nodes else {}


def _said(amounts: dict[str, float]) -> str:
    names = {"memory": "GB of memory"}
    return ", ".join(f"{n / UNITS[k]:.4g} {names.get(k, k)}" for k, n in amounts.items())
