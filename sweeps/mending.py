"""What a driver says and mends of the records that it finds, before any work: what is damaged, and
what was done with other versions than it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.layout import CONFIG, LOG
from edgesweep.storage.manifest import MANIFEST, unsound

#: packages of which another version may give other bits
DECISIVE = ("edgesweep", "torch", "transformers", "numpy", "ray", "zarr")
Say = Callable[[str], None]


def mend_records(run: RunDirectory, log: CommitLog, say: Say) -> bool:
    """Heals the small files of a run that no shard writes, and says so; tables and page are written
    anew at the end. Returns whether there was a manifest, and nothing to heal of what it or the log
    of commits vouches for. Raises Fenced, StorageError."""
    log.check_fence()
    stale = unsound(run, but=(CONFIG,))
    if stale != [MANIFEST] or (run.root / MANIFEST).exists():
        for name in stale:
            say(f"{name} is not as it was written; it is mended")
    for place in log.epochs.move_damaged():
        say(f"{place.key} is damaged; it is put aside")
    damaged = log.mend()
    for name, n in damaged.items():
        say(f"{name} had {n} damaged lines; their shards are done again")
    if run.mend_config():
        say(f"{CONFIG} was not what the plan holds; it is written again")
    if n := run.mend_log():
        say(f"{LOG} had {n} damaged lines; they are taken out")
    return not stale and not damaged


def other_versions(run: RunDirectory, log: CommitLog, present: Mapping[str, str]) -> list[str]:
    """A line for each version, not the present one, that a part of the run was made with."""
    made: dict[tuple[str, str], list[str]] = {}
    for name, versions in _made_with(run, log):
        for package in DECISIVE:
            version = versions.get(package)
            if version is not None and version != present.get(package):
                stages = made.setdefault((package, version), [])
                stages += [name] * (name not in stages)
    return [
        f"{', '.join(stages)} {'was' if len(stages) == 1 else 'were'} done with "
        f"{package} {version}; this is {present.get(package, 'none')}: bits may differ"
        for (package, version), stages in made.items()
    ]


def _made_with(run: RunDirectory, log: CommitLog) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The versions of the plan and of every committed shard."""
    yield "planning", run.plan.get("versions", {})
    for stage in log.stages():
        for record in log.records(stage):
            yield stage, record.get("versions", {})
