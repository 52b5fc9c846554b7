"""Addresses of clusters: what is refused at once, and what is not waited for."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from edgesweep.engine.runtime import AddressError, ExecutorError, check_address
from edgesweep.engine.runtime.address import find_address

HEADS = ("192.0.2.1:6379", "192.0.2.2:6380")


@pytest.fixture
def two_rays() -> Iterator[None]:
    """Two processes whose command lines are those of raylets."""
    made = [
        subprocess.Popen(
            ["/opt/ray/raylet", "-c", "import time; time.sleep(60)", f"--gcs-address={head}"],
            executable=sys.executable,
        )
        for head in HEADS
    ]
    time.sleep(0.2)
    yield
    for process in made:
        process.kill()
        process.wait()


def test_auto_takes_no_ray_by_chance(two_rays: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(AddressError, match=r"auto, and \d+ Rays run on this machine") as error:
        check_address("auto")
    assert all(head in str(error.value) for head in HEADS)
    monkeypatch.setenv("RAY_ADDRESS", HEADS[0])
    check_address("auto")


@pytest.mark.parametrize("address", ["nonsense", "host", "host:99999", "ray://host:10001", "a b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressError, match="is no address; allowed: auto, or host:port"):
        check_address(address)


def test_a_port_where_nobody_listens_is_one_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert find_address(address) == address
    with pytest.raises(ExecutorError, match=f"nothing answers at {address} .Connection refused"):
        find_address(address)
