"""The address of a cluster, looked at before Ray does: Ray would wait for minutes at a wrong one,
and take any Ray of this machine for `auto`."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from edgesweep.engine.runtime.work import ExecutorError

CALL_S = 5.0
AUTO = "auto"

_HEAD = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_OPTION = b"--gcs-address="


class AddressError(ExecutorError):
    """An address that names no cluster, or more than one."""


def check_address(address: str | None) -> None:
    """Raises AddressError, without asking the network."""
    if address not in (None, "local"):
        _named(str(address))


def find_address(address: str | None) -> str | None:
    """The address to join; None stays None. Raises AddressError, and ExecutorError where nothing
    answers within 5 s."""
    if address in (None, "local"):
        return address
    found = _named(str(address))
    head = _HEAD.fullmatch(found)
    assert head is not None
    try:
        place = head["host"].strip("[]"), int(head["port"])
        socket.create_connection(place, timeout=CALL_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ExecutorError(
            f"execution.address: nothing answers at {found} ({reason}); give host:port of a "
            "cluster's head that can be reached from here"
        ) from None
    return found


def _named(address: str) -> str:
    """host:port of what a config names."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address == AUTO:
        address = _the_one_here()
    head = _HEAD.fullmatch(address)
    if head is None or not 0 < int(head["port"]) < 2**16:
        raise AddressError(
            f"execution.address: {address!r} is no address; allowed: auto, or host:port of a "
            "cluster's head, such as 10.0.0.1:6379"
        )
    return address


def _the_one_here() -> str:
    found = sorted(set(_addresses_here()))
    if not found:
        raise AddressError(
            "execution.address: auto, and no Ray runs on this machine; start one with: ray start "
            "--head, or give host:port of a cluster's head"
        )
    if len(found) > 1:
        raise AddressError(
            f"execution.address: auto, and {len(found)} Rays run on this machine; name one of "
            f"{', '.join(found)}"
        )
    return found[0]


def _addresses_here() -> Iterator[str]:
    """Of the heads of all raylets of this machine, as their command lines say."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another's
            continue
        if words[0].endswith(b"/raylet"):
            yield from (w[len(_OPTION) :].decode() for w in words if w.startswith(_OPTION))
