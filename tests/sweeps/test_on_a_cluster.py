"""A real cluster, with tokens and ports of its own: jobs, and the doctor."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from tests.sweeps.test_submit import folder

__all__ = ["folder"]

MAIN = "from edgesweep.sweeps.command.cli import main; main()"
ENDED = "SUCCEEDED|FAILED|STOPPED"
PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
)


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """A head with a token and ports of its own: where it takes jobs, and where actors join."""
    for key, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }.items():
        monkeypatch.setenv(key, value)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    head = ["ray", "start", "--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1"]
    head += ["--object-store-memory=100000000", *(f"--{k}={port}" for k, port in ports.items())]
    with tempfile.TemporaryDirectory() as short:  # sockets' paths are
        process = subprocess.Popen([*head, f"--temp-dir={short}"], stdout=subprocess.DEVNULL)
        try:
            address = f"{get_node_ip_address()}:{ports['port']}"
            yield f"http://127.0.0.1:{ports['dashboard-port']}", address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: Ray reads its mode of authentication once."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def edgesweep(*arguments: str) -> str:
    return f"import sys; sys.argv = {['edgesweep', *arguments]}\n{MAIN}"


def told(url: str, job: str, what: str, until: str) -> str:
    """What the server says of a job, once it is that."""
    ask = f"from edgesweep.engine.runtime.outside import Jobs; print(Jobs({url!r}).{what}({job!r}))"
    for _ in range(60):
        done = python(ask)
        if done.returncode == 0 and re.search(until, done.stdout):
            return done.stdout.strip()
        time.sleep(1)
    raise AssertionError(f"{done.stdout}{done.stderr}")


@pytest.mark.proof
def test_a_job_succeeds_and_the_next_resumes_its_run(
    folder: Path, cluster: tuple[str, str]
) -> None:
    url, address = cluster
    out = folder.parent / "out"
    sets = ["--set", f"execution.address={address}"]
    run = edgesweep("submit", "c.yaml", "--cluster", url, "--out", str(out), *sets)
    told(url, "no-job", "of", "^\\[\\]")  # the server is up
    done = python(run)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), done.stderr
    assert f"ray job logs --address {url} --follow " in done.stdout
    first = done.stdout.split()[-1]
    done = python(run)
    assert (done.returncode, "at work already" in done.stderr) == (2, True)
    assert told(url, first, "status", ENDED) == "SUCCEEDED", told(url, first, "logs", "")
    results = (out / "results.parquet").read_bytes()

    (out / "report.html").unlink()
    done = python(run)
    second = done.stdout.split()[-1]
    assert second == first.removesuffix("1") + "2"
    assert told(url, second, "status", ENDED) == "SUCCEEDED", told(url, second, "logs", "")
    assert (out / "results.parquet").read_bytes() == results
    assert (out / "report.html").exists()
    printed = told(url, first, "logs", "") + told(url, second, "logs", "")
    assert os.environ["RAY_AUTH_TOKEN"] not in printed


@pytest.mark.proof
def test_the_doctor_asks_every_node(cluster: tuple[str, str], tmp_path: Path) -> None:
    url, address = cluster
    out = tmp_path / "out"
    told(url, "no-job", "of", "^\\[\\]")
    ask = ["doctor", "--cluster", address, "--out", str(out)]
    done = python(edgesweep(*ask, "--config", "smoke"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[-3:] == ["yes", "in", "place"]
    assert list(out.iterdir()) == []  # nothing of it stays
