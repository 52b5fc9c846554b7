"""Canonical JSON and the hashes that name things: equal values, equal names, on every machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any


def canonical(value: Any) -> str:
    """Sorted keys, no spaces, no NaN. Whole floats are written as integers, so 8.0 and 8 agree."""
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_of_lists(lists: Iterable[Iterable[Any]]) -> str:
    """The `digest` of a list of lists, whose items need not all be in memory."""
    found = hashlib.sha256(b"[")
    for number, items in enumerate(lists):
        found.update(b",[" if number else b"[")
        for place, item in enumerate(items):
            found.update(f"{',' if place else ''}{canonical(item)}".encode())
        found.update(b"]")
    found.update(b"]")
    return found.hexdigest()


def slug(text: str, limit: int = 48) -> str:
    """A text as part of a file name: other characters become '-'."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.")[:limit] or "x"


def number(value: float) -> str:
    """A threshold in a key: as short as it can be written."""
    return f"{value:.12g}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
