"""Records that know when they are damaged: JSON objects that begin with the sha256 of their rest.

The sum is of the bytes, so that one pass over them makes it or checks it. A changed digit, a
flipped bit, half a file and an empty one are all found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from edgesweep.storage.atomic import to_json
from edgesweep.storage.errors import DamagedRecord
from edgesweep.storage.stores import Place

CHECKSUM = "sha256"
Record = dict[str, Any]

_SEAL = re.compile(rb'\{"sha256":"([0-9a-f]{64})",')


def seal(record: Mapping[str, Any], indent: int | None = None) -> bytes:
    """The record, of at least one key, as JSON with its checksum. Raises ValueError for what is no
    JSON."""
    rest = to_json(record, indent)[1:]
    return b'{"%s":"%s",' % (CHECKSUM.encode(), _sum(rest)) + rest


def unseal(data: bytes) -> Record | None:
    """What was sealed, without its checksum; None if the data is not that."""
    found = _SEAL.match(data)
    if found is None or _sum(data[found.end() :]) != found[1]:
        return None
    try:
        return json.loads(b"{" + data[found.end() :])
    except (ValueError, RecursionError):
        return None


def read_record(place: Place) -> Record:
    """Raises DamagedRecord for one that is not as it was sealed, StorageError if there is none
    that can be read."""
    record = unseal(place.read())
    if record is None:
        raise DamagedRecord(f"{place} is damaged: its checksum does not match; resume the run")
    return record


def _sum(rest: bytes) -> bytes:
    """Of all but the newline at the end, which a line of the log is read without."""
    return hashlib.sha256(rest.rstrip(b"\n")).hexdigest().encode()
