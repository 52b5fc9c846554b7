"""A cluster of several raylets on this machine, for tests: nodes come and go.

A process settles once whether Ray's nodes are to show a token, so that one that has been in an
embedded Ray can join no cluster: these tests are in files `on_*.py`, run by `run_apart`.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

#: a node that is gone is known to be so in 2 s
FAST = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
STORE_BYTES = 80 * 1024 * 1024


def run_apart(path: Path) -> None:
    """Runs the tests of a file in a process of their own."""
    told = ("-q", "-p", "no:cacheprovider", "-o", "python_files=on_*.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *told, str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


class Machines:
    """Nodes of one CPU each; the head has none."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**head, "object_store_memory": STORE_BYTES}
        )
        self.address = str(self._cluster.address)

    def add(self, n: int = 1) -> list[Any]:
        added = [
            self._cluster.add_node(wait=False, num_cpus=1, object_store_memory=STORE_BYTES)
            for _ in range(n)
        ]
        self._cluster.wait_for_nodes()
        return added

    def add_without(self, folder: Path) -> subprocess.Popen[bytes]:
        """A node of two CPUs that sees nothing of a folder (root only)."""
        ray = f"{Path(sys.executable).with_name('ray')} start --block --address={self.address}"
        n_nodes = len(self._cluster.list_all_nodes())
        process = subprocess.Popen(
            [
                *("unshare", "-m", "sh", "-c"),
                f"mount -t tmpfs none {folder} && exec {ray} --num-cpus=2 "
                f"--object-store-memory={STORE_BYTES}",
            ],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_for(n_nodes + 1)
        return process

    def _wait_for(self, n: int) -> None:
        deadline = time.monotonic() + 60
        while len(self._cluster.global_state.node_table()) < n:
            assert time.monotonic() < deadline, "the node did not come"
            time.sleep(0.2)

    def kill_raylet(self, node: Any) -> None:
        """SIGKILL, as when a machine's agent dies: nothing else is told."""
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    def remove(self, *nodes: Any) -> None:
        for node in nodes:
            with suppress(Exception):  # one that was killed is gone already
                self._cluster.remove_node(node, allow_graceful=False)

    def remove_all(self) -> None:
        """All but the head."""
        self.remove(*list(self._cluster.worker_nodes))

    def close(self) -> None:
        self._cluster.shutdown()


def gone(pids: set[int], within_s: float) -> bool:
    """Whether processes end in that time."""
    deadline = time.monotonic() + within_s
    while any(map(_lives, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _lives(pid: int) -> bool:
    """A zombie, whom nobody has asked about yet, does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
