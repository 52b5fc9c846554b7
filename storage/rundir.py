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
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from edgesweep.storage.atomic import TMP_PREFIX, remove_strays
from edgesweep.storage.errors import DamagedRecord, OtherRunError, Refused, StorageError
from edgesweep.storage.layout import (
    AGGREGATES,
    ATTRIBUTIONS,
    CONFIG,
    EPOCHS,
    EVALUATIONS,
    LOG,
    PLAN,
    REPORT,
)
from edgesweep.storage.records import CHECKSUM, read_record, seal, unseal
from edgesweep.storage.stores import LocalStore, Missing, Place, place
from edgesweep.storage.stores.batches import Batches

#: raised when the meaning or the place of something stored changes
SCHEMA_VERSION = 5
_MISSING = "(missing)"


class RunDirectory:
    """What holds a run: a folder, or a prefix of a bucket. Make one with `create` or `open`, never
    directly.

    Attributes:
        root: where its keys begin.
        nonce: random, this object's own. The lease of a driver carries the one of the object that
            it was started with, so that whoever is told it knows that folder from a namesake.
        opened: arrays by store and name, whose metadata was read (`storage.blocks`).
    """

    def __init__(self, root: Place, document: dict[str, Any]) -> None:
        self.root = root
        self.nonce = secrets.token_hex(8)
        self.opened: dict[str, Any] = {}
        self.config: dict[str, Any] = document["config"]
        self.plan: dict[str, Any] = document
        self._log = Batches(self._write_log)

    @classmethod
    def create(
        cls, where: Path | str, config: Mapping[str, Any], plan: Mapping[str, Any]
    ) -> RunDirectory:
        """Begins a run at a path or an address, or opens it if the same run is there (the stored
        plan is then used).

        `plan` is JSON with `run_id` and `identity`. Raises OtherRunError if there is another run,
        with the fields that differ, Refused for an address that no run can have, and StorageError
        if there are other things or it cannot be written.
        """
        root = place(where)
        document = {**plan, "config": dict(config)}
        if not (root / PLAN).exists():
            _check_free(root)
            if (root / PLAN).create(seal(document, indent=1)):
                return cls(root, document)
        stored = _read_plan(root)
        _check_same(root, document, stored)
        return cls(root, stored)

    @classmethod
    def open(cls, where: Path | str) -> RunDirectory:
        """Raises StorageError if there is no run."""
        root = place(where)
        try:
            return cls(root, _read_plan(root))
        except Missing:
            raise StorageError(
                f"{root} holds no run: there is no {PLAN}; start one with: run"
            ) from None

    @property
    def url(self) -> str:
        """The path or address, for people."""
        return self.root.store.url

    @property
    def address(self) -> Path | str:
        """What opens it in another process: an absolute path, or the URL."""
        store = self.root.store
        return store.root.resolve() if isinstance(store, LocalStore) else store.url

    @property
    def path(self) -> Path:
        """The folder. Raises StorageError for a run in a bucket."""
        store = self.root.store
        if not isinstance(store, LocalStore):
            raise StorageError(f"{store.url} is no folder: edgesweep pull copies it to one")
        return store.root

    @property
    def config_yaml(self) -> bytes:
        """config.yaml as the plan has it."""
        return yaml.safe_dump(self.config, allow_unicode=True).encode()

    def mend_config(self) -> bool:
        """Writes config.yaml, unless it is as the plan has it. Driver only. Returns whether another
        was there. Raises StorageError."""
        try:
            found = (self.root / CONFIG).read()
        except Missing:
            found = None
        if found != self.config_yaml:
            (self.root / CONFIG).write(self.config_yaml)
        return found not in (None, self.config_yaml)

    @property
    def run_id(self) -> str:
        return str(self.plan["run_id"])

    @cached_property
    def graphs(self) -> dict[str, str]:
        """Where the graph of each cell lies in attributions.zarr, of those that the plan says so
        of."""
        cells = self.plan.get("cells", ())
        return {str(cell["key"]): str(cell["graph"]) for cell in cells if "graph" in cell}

    @property
    def attributions(self) -> Place:
        return self.root / ATTRIBUTIONS

    @property
    def aggregates(self) -> Place:
        return self.root / AGGREGATES

    @property
    def evaluations(self) -> Place:
        return self.root / EVALUATIONS

    @property
    def report(self) -> Place:
        return self.root / REPORT

    def check_disk(self) -> None:
        """Raises Refused unless objects can be created as commits need it."""
        probe = self.root / EPOCHS / f"{TMP_PREFIX}probe-{self.nonce}"
        try:
            probe.create(self.nonce.encode())
        except StorageError as error:
            raise Refused(str(error)) from error
        finally:
            with suppress(StorageError):
                probe.delete()

    def clear_strays(self, before: float) -> None:
        """What killed writers left before a time (seconds since 1970); in a bucket, probes."""
        if isinstance(self.root.store, LocalStore):
            remove_strays(self.path, before)
            return
        for info in (self.root / EPOCHS).list():
            if TMP_PREFIX in info.key and info.modified < before:
                self.root.store.delete(info.key)

    # --- the log -------------------------------------------------------------------------------
    def log(self, event: str, **fields: Any) -> None:
        """Adds to log/ a line: `time` (seconds since 1970), `event` and the fields. While a driver
        is at work, lines are written some at a time."""
        self._log.add({"time": round(time.time(), 3), "event": event, **fields})

    def flush_log(self) -> None:
        """Returns once all lines are written."""
        self._log.flush()

    def logging(self) -> AbstractContextManager[None]:
        """While the body runs, lines are written by a thread."""
        return self._log.running()

    def _write_log(self, lines: list[dict[str, Any]]) -> None:
        """A segment; names sort by time."""
        data = b"".join(map(seal, lines))
        name = f"{time.time_ns():020d}-{self.nonce}.jsonl"
        (self.root / LOG / name).write(data)

    def read_log(self) -> list[dict[str, Any]]:
        """Every whole line; one that is torn or damaged is left out."""
        found = (unseal(line) for _, lines in self._log_segments() for line in lines)
        return [event for event in found if event is not None]

    def damaged_log_lines(self) -> int:
        """Lines that are not as they were written."""
        return sum(unseal(line) is None for _, lines in self._log_segments() for line in lines)

    def mend_log(self) -> int:
        """Takes damaged lines out of the log, and says how many. Driver only."""
        n_damaged = 0
        for segment, lines in self._log_segments():
            sound = [line for line in lines if unseal(line) is not None]
            if len(sound) < len(lines):
                if sound:
                    segment.write(b"".join(sound))
                else:
                    segment.delete()
                n_damaged += len(lines) - len(sound)
        return n_damaged

    def _log_segments(self) -> Iterator[tuple[Place, list[bytes]]]:
        for info in (self.root / LOG).list():
            data = self.root.store.get_told(info)
            yield self.root / info.key, data.splitlines(keepends=True)


def _check_free(root: Place) -> None:
    """A folder with other people's files in it is not ours to fill."""
    store = root.store
    if isinstance(store, LocalStore) and store.root.exists() and not store.root.is_dir():
        raise StorageError(f"{root} is a file; name a folder with --out")
    other = next((info.key for info in root.list()), None)
    if other is not None and not (root / PLAN).exists():  # else another driver has just begun
        raise StorageError(
            f"{root} is not empty and holds no run (there is {other.partition('/')[0]!r}); "
            "name another folder with --out"
        )


def _read_plan(root: Place) -> dict[str, Any]:
    try:
        plan = read_record(root / PLAN)
        if "run_id" in plan and isinstance(plan.get("config"), dict):
            _check_schema(root, plan)
            return plan
    except DamagedRecord:
        pass
    if made := _made_without_checksums(root / PLAN):
        raise StorageError(
            f"{root} was made by {made}, whose records carry no checksums; this version does not "
            f"read it: run it again with: edgesweep run {root / CONFIG} --out ANOTHER_FOLDER"
        )
    raise StorageError(f"{root / PLAN} is damaged: it is no plan; start the run in another folder")


def _check_schema(root: Place, plan: Mapping[str, Any]) -> None:
    """Raises StorageError for a run whose numbers lie elsewhere than ours."""
    schema = plan.get("schema_version", SCHEMA_VERSION)
    if schema != SCHEMA_VERSION:
        made = dict(plan.get("versions") or {}).get("edgesweep", "unknown")
        raise StorageError(
            f"{root} was made by edgesweep {made} (schema {schema}); this version reads schema "
            f"{SCHEMA_VERSION} alone: run it again with: edgesweep run {root / CONFIG} --out "
            "ANOTHER_FOLDER"
        )


def _made_without_checksums(plan: Place) -> str | None:
    """What made a whole plan of before; None if it is not one."""
    try:
        document = json.loads(plan.read())
        if CHECKSUM in document:
            return None
        return (
            f"edgesweep {document['versions']['edgesweep']} (schema {document['schema_version']})"
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _check_same(root: Place, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    if ours["run_id"] == theirs["run_id"]:
        return
    found = tuple(differences(ours.get("identity", {}), theirs.get("identity", {})))
    shown = "; ".join(f"{name}: {a!r} here, {b!r} there" for name, a, b in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    raise OtherRunError(
        f"{root} holds another run ({theirs['run_id']}, not {ours['run_id']}); "
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
