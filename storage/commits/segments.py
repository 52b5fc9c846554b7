"""Segments of the commit log: files of sealed lines, each created once.

commits/<stage>/<epoch>-<number>.jsonl; a line is one of

    {"shard", "stage", "epoch", "attempt", "crc", "rows", …}    the shard is committed
    {"shard", "stage", "epoch", "uncommitted": why, "time"}     it no longer is
    {"shard", "stage", "epoch", "gave_up": {"error", …}}        its attempts are used up
    {"versions": {package: version}, "as": name}                told once, of records that name it

A line that is damaged, or is of another stage than its folder, is none; so is one without its end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgesweep.storage.atomic import to_json
from edgesweep.storage.layout import COMMITS
from edgesweep.storage.records import Record, seal, unseal

#: records of one segment
MOST = 100

_NAME = re.compile(r"\d{6,9}-\d{8,12}\.jsonl")


def segment_name(epoch: int, number: int) -> str:
    """Names sort as segments are to be read."""
    return f"{epoch:06d}-{number:08d}.jsonl"


def segment_key(stage: str, name: str) -> str:
    return f"{COMMITS}/{stage}/{name}"


def is_segment(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def encode(records: Iterable[Record]) -> bytes:
    """The lines of a segment."""
    told: set[str] = set()
    lines = []
    for record in records:
        if isinstance(versions := record.get("versions"), Mapping):
            name = _name_of(versions)
            if name not in told:
                told.add(name)
                lines.append(seal({"versions": versions, "as": name}))
            record = {**record, "versions": name}
        lines.append(seal(record))
    return b"".join(lines)


def _name_of(versions: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(versions)).hexdigest()[:8]


def decode(data: bytes, stage: str) -> Iterator[Record | None]:
    """What each line says, in order; None for one that is not as it was written."""
    known: dict[str, Any] = {}
    for _, record in _lines(data, stage):
        if record is None:
            yield None
        elif "shard" not in record:
            known[record["as"]] = record["versions"]
        elif "versions" in record:
            yield {**record, "versions": known.get(record["versions"], {})}
        else:
            yield record


def sound_lines(data: bytes, stage: str) -> bytes:
    """The segment without its damaged lines."""
    return b"".join(line for line, record in _lines(data, stage) if record is not None)


def _lines(data: bytes, stage: str) -> Iterator[tuple[bytes, Record | None]]:
    for line in data.splitlines(keepends=True) or [b""]:  # an empty segment was never written
        record = unseal(line) if line.endswith(b"\n") else None
        if record is not None and not _belongs(record, stage):
            record = None
        yield line, record


def _belongs(record: Record, stage: str) -> bool:
    if "shard" in record:
        return record.get("stage") == stage
    return isinstance(record.get("versions"), dict) and "as" in record
