"""The commit log: which shards are done, and how."""

from edgesweep.storage.commits.log import CommitLog

__all__ = ["CommitLog"]
