"""The run directory: what lies where, and whose run it is.

`plan.json` is written once, put-if-absent, and decides everything: its `identity` is what changes
numbers, its `run_id` the hash of that. It also carries the resolved config; `config.yaml` is a copy
of it for people, written again by a driver that finds it missing or changed. Readers write nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from edgesweep.storage.atomic import (
    TMP_PREFIX,
    append_line,
    make_folder,
    put_if_absent,
    replace,
)
from edgesweep.storage.errors import DamagedRecord, OtherRunError, StorageError, storage_errors
from edgesweep.storage.layout import (
    AGGREGATES,
    ATTRIBUTIONS,
    CONFIG,
    EVALUATIONS,
    LOG,
    PLAN,
    REPORT,
)
from edgesweep.storage.records import CHECKSUM, read_record, seal, unseal

#: raised when the meaning or the place of something stored changes
SCHEMA_VERSION = 4
_MISSING = "(missing)"


class RunDirectory:
    """A folder that holds a run. Make one with `create` or `open`, never directly.

    Attributes:
        nonce: random, this object's own. The lease of a driver carries the one of the object that
            it was started with, so that whoever is told it knows that folder from a namesake.
    """

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self.nonce = secrets.token_hex(8)
        self.config: dict[str, Any] = document["config"]
        self.plan: dict[str, Any] = document

    @classmethod
    def create(
        cls, path: Path | str, config: Mapping[str, Any], plan: Mapping[str, Any]
    ) -> RunDirectory:
        """Makes the folder, or opens it if it holds the same run (the stored plan is then used).

        `plan` is JSON with `run_id` and `identity`. Raises OtherRunError if the folder holds
        another run, with the fields that differ, and StorageError if it holds other things or
        cannot be written.
        """
        path = Path(path)
        document = {**plan, "config": dict(config)}
        _check_free(path)
        make_folder(path)
        if put_if_absent(path / PLAN, seal(document, indent=1)):
            return cls(path, document)
        stored = _read_plan(path)
        _check_same(path, document, stored)
        return cls(path, stored)

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """Raises StorageError if there is no run."""
        path = Path(path)
        if not (path / PLAN).is_file():
            raise StorageError(f"{path} holds no run: there is no {PLAN}; start one with: run")
        return cls(path, _read_plan(path))

    @property
    def config_yaml(self) -> bytes:
        """config.yaml as the plan has it."""
        return yaml.safe_dump(self.config, allow_unicode=True).encode()

    def mend_config(self) -> bool:
        """Writes config.yaml, unless it is as the plan has it. Driver only. Returns whether another
        was there. Raises StorageError."""
        path = self.path / CONFIG
        with storage_errors(path, "read"):
            found = path.read_bytes() if path.exists() else None
        if found != self.config_yaml:
            replace(path, self.config_yaml)
        return found not in (None, self.config_yaml)

    @property
    def run_id(self) -> str:
        return str(self.plan["run_id"])

    @property
    def attributions(self) -> Path:
        return self.path / ATTRIBUTIONS

    @property
    def aggregates(self) -> Path:
        return self.path / AGGREGATES

    @property
    def evaluations(self) -> Path:
        return self.path / EVALUATIONS

    @property
    def report(self) -> Path:
        return self.path / REPORT

    def log(self, event: str, **fields: Any) -> None:
        """Adds a line to log.jsonl: `time` (seconds since 1970), `event` and the fields."""
        line = seal({"time": round(time.time(), 3), "event": event, **fields})
        append_line(self.path / LOG, line.decode().rstrip("\n"))

    def read_log(self) -> list[dict[str, Any]]:
        """Every whole line; one that is torn or damaged is left out."""
        return [event for event in map(unseal, self._log_lines()) if event is not None]

    def damaged_log_lines(self) -> int:
        """Lines that are not as they were written; a torn last one is not counted."""
        return sum(unseal(line) is None for line in self._log_lines())

    def mend_log(self) -> int:
        """Takes damaged lines out of the log, and says how many. Driver only."""
        lines = self._log_lines()
        sound = [line for line in lines if unseal(line) is not None]
        if len(sound) < len(lines):
            replace(self.path / LOG, b"".join(line + b"\n" for line in sound))
        return len(lines) - len(sound)

    def _log_lines(self) -> list[bytes]:
        path = self.path / LOG
        with storage_errors(path, "read"):
            return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _check_free(path: Path) -> None:
    """A folder with other people's files in it is not ours to fill."""
    with storage_errors(path, "read"):
        if path.exists() and not path.is_dir():
            raise StorageError(f"{path} is a file; name a folder with --out")
        if not path.is_dir() or (path / PLAN).exists():
            return
        others = [p.name for p in path.iterdir() if not p.name.startswith(TMP_PREFIX)]
    if others and not (path / PLAN).exists():  # else another driver has just begun the run
        raise StorageError(
            f"{path} is not empty and holds no run (there is {sorted(others)[0]!r}); "
            "name another folder with --out"
        )


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = read_record(path / PLAN)
        if "run_id" in plan and isinstance(plan.get("config"), dict):
            _check_schema(path, plan)
            return plan
    except DamagedRecord:
        pass
    if made := _made_without_checksums(path / PLAN):
        raise StorageError(
            f"{path} was made by {made}, whose records carry no checksums; this version does not "
            f"read it: run it again with: edgesweep run {path / CONFIG} --out ANOTHER_FOLDER"
        )
    raise StorageError(f"{path / PLAN} is damaged: it is no plan; start the run in another folder")


def _check_schema(path: Path, plan: Mapping[str, Any]) -> None:
    """Raises StorageError for a run whose numbers lie elsewhere than ours."""
    schema = plan.get("schema_version", SCHEMA_VERSION)
    if schema != SCHEMA_VERSION:
        made = dict(plan.get("versions") or {}).get("edgesweep", "unknown")
        raise StorageError(
            f"{path} was made by edgesweep {made} (schema {schema}); this version reads schema "
            f"{SCHEMA_VERSION} alone: run it again with: edgesweep run {path / CONFIG} --out "
            "ANOTHER_FOLDER"
        )


def _made_without_checksums(plan: Path) -> str | None:
    """What made a whole plan of before; None if it is not one."""
    try:
        document = json.loads(plan.read_bytes())
        if CHECKSUM in document:
            return None
        return (
            f"edgesweep {document['versions']['edgesweep']} (schema {document['schema_version']})"
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _check_same(path: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    if ours["run_id"] == theirs["run_id"]:
        return
    found = tuple(differences(ours.get("identity", {}), theirs.get("identity", {})))
    shown = "; ".join(f"{name}: {a!r} here, {b!r} there" for name, a, b in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    raise OtherRunError(
        f"{path} holds another run ({theirs['run_id']}, not {ours['run_id']}); "
        f"it differs in {shown or 'its run_id'}{more}; name another folder with --out",
        found,
    )


def differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted field, ours, theirs) for every leaf that differs between two JSON values."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs}):
            name = f"{prefix}.{key}" if prefix else str(key)
            yield from differences(ours.get(key, _MISSING), theirs.get(key, _MISSING), name)
    elif _is_row(ours) and _is_row(theirs) and len(ours) == len(theirs):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(a, b, f"{prefix}.{index}" if prefix else str(index))
    elif ours != theirs:
        yield prefix, ours, theirs


def _is_row(value: Any) -> bool:
    return isinstance(value, (list, tuple))
