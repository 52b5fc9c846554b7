"""A Ray cluster from outside: its server of jobs (in `ray[default]`, not in plain `ray`), and one
question to all of its nodes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesweep.engine.runtime.ray_session import close_session, open_session, set_environment
from edgesweep.engine.runtime.work import ExecutorError, PoolOptions, error_line

LIMIT_CHARS = 300
#: statuses of a job that has not ended
AT_WORK = ("PENDING", "RUNNING")


class JobsError(ExecutorError):
    """The server of jobs does not answer, or refuses; the message is one line."""


@dataclass(frozen=True)
class Job:
    """A job that a cluster knows: its id, and its status as Ray spells it."""

    id: str
    status: str

    @property
    def is_at_work(self) -> bool:
        return self.status in AT_WORK


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, cluster: str) -> None:
        """Asks the server for its version. Raises JobsError.

        Args:
            cluster: `http://HOST:8265`, Ray's dashboard; a token is taken from where Ray keeps it.
        """
        set_environment(cluster)
        try:
            from ray.job_submission import JobSubmissionClient

            self._client: Any = JobSubmissionClient(cluster)
            logging.getLogger(type(self._client).__mro__[1].__module__).setLevel(logging.WARNING)
        except Exception as error:  # requests', aiohttp's and Ray's own, RuntimeError for many
            raise JobsError(f"{cluster} takes no jobs: {_reason(error)}") from None

    def of(self, run: str) -> list[Job]:
        """The jobs of a run, the oldest first."""
        pattern = re.compile(re.escape(run) + r"-e(\d+)")
        numbers: dict[int, Job] = {}
        for details in self._asked(self._client.list_jobs):
            found = pattern.fullmatch(details.submission_id or "")
            if found:
                status = str(getattr(details.status, "value", details.status))
                numbers[int(found[1])] = Job(found[0], status)
        return [numbers[n] for n in sorted(numbers)]

    def submit(self, job: str, command: str, package: Path) -> None:
        """Hand in a command.

        Args:
            job: its id.
            command: of the shell, run in the unpacked package on the head of the cluster.
            package: a .zip of the files that it works on.
        """
        self._asked(
            self._client.submit_job,
            entrypoint=command,
            submission_id=job,
            runtime_env={"working_dir": str(package)},
        )

    def status(self, job: str) -> str:
        return str(self._asked(self._client.get_job_status, job).value)

    def logs(self, job: str) -> str:
        """What the command printed."""
        return str(self._asked(self._client.get_job_logs, job))

    def _asked(self, ask: Any, *arguments: Any, **how: Any) -> Any:
        try:
            return ask(*arguments, **how)
        except Exception as error:
            raise JobsError(f"the cluster refuses: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return _short(" ".join(error_line(error).split()))


def _short(text: str) -> str:
    return text if len(text) <= LIMIT_CHARS else f"{text[:LIMIT_CHARS]}…"


# --- nodes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a node said.

    Attributes:
        node: its id.
        host: its address.
        told: what `ask` returned there; None if it failed.
        failed: one line on why.
    """

    node: str
    host: str
    told: Any = None
    failed: str = ""


def ask_nodes(
    address: str, ask: Callable[[str], Any], timeout_s: float = 120.0
) -> Iterator[Answer]:
    """Call `ask` with a node's id on every node of a cluster, in processes that use no resources.

    Args:
        address: of the cluster's GCS, HOST:PORT, or "auto".
        ask: picklable, and so is what it returns.
        timeout_s: for each answer.

    Raises:
        ExecutorError: the cluster does not answer.
    """
    started = open_session(PoolOptions(address=address))
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    try:
        nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}

        @ray.remote(num_cpus=0, max_retries=0)
        def asked(node: str) -> Any:
            return ask(node)

        answers = {
            node: asked.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(node)
            for node in nodes
        }
        for node, host in nodes.items():
            try:
                yield Answer(node, host, told=ray.get(answers[node], timeout=timeout_s))
            except Exception as error:  # of the node, of Ray, of what is asked there
                cause = getattr(error, "cause", None) or error
                yield Answer(node, host, failed=_told(error_line(cause)))
    finally:
        if started:
            close_session()


def _told(line: str) -> str:
    if "failed to import" in line:
        return "it has no edgesweep like the one here, or not where its Ray looks"
    return _short(line)
