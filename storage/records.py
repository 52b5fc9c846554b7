"""Records that know when they are damaged: JSON objects with the sha256 of the rest of themselves.

The sum is taken of the canonical JSON of all other keys, so that it does not depend on how the file
is laid out. A changed digit, a flipped bit, half a file and an empty one are all found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.atomic import to_json
from storage.errors import DamagedRecord, storage_errors

CHECKSUM = "sha256"
Record = dict[str, Any]


def seal(record: Mapping[str, Any], indent: int | None = None) -> bytes:
    """The record as JSON, with its checksum. Raises ValueError for what is no JSON."""
    plain = json.loads(to_json(record))  # keys become strings before they are sorted
    return to_json({**plain, CHECKSUM: _sum(plain)}, indent)


def unseal(data: bytes) -> Record | None:
    """What was sealed, without its checksum; None if the data is not that."""
    try:
        record = json.loads(data)
        found = record.pop(CHECKSUM)
        return record if _sum(record) == found else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def read_record(path: Path) -> Record:
    """Raises DamagedRecord for a file that is not as it was sealed, StorageError if there is none
    that can be read."""
    with storage_errors(path, "read"):
        data = path.read_bytes()
    record = unseal(data)
    if record is None:
        raise DamagedRecord(f"{path} is damaged: its checksum does not match; resume the run")
    return record


def _sum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(record)).hexdigest()
