"""What `edgesweep submit` does: a run as a job of a Ray cluster.

The run is planned here first, so that what would be refused is refused before anything is sent.
What is sent is the folder that the command is given in, without what git ignores and without runs;
the job unpacks it on the head of the cluster and gives `edgesweep run` there. Models and packages
are not sent. The job is named after the run, so that submitting it again resumes the same run, and
never has two drivers on it.
"""

from __future__ import annotations

import ipaddress
import shlex
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from edgesweep.engine.runtime.outside import Job, Jobs
from edgesweep.storage import StorageError
from edgesweep.storage.stores import check_address
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import find_config, load_config

#: of all that is sent, packed
MAX_PACKAGE_BYTES = 5_000_000
#: folders that no job needs
LEFT_OUT = {".git", ".venv", "runs", "__pycache__", "node_modules"}
#: in a job's folder it would be imported in the place of what is installed
OURS = "edgesweep"


def submit(
    given: str, cluster: str, out: str, overrides: Sequence[str], say: Callable[[str], None]
) -> str:
    """Hand a run to a cluster.

    Args:
        given: a config file in the working folder, or a preset.
        cluster: `http://HOST:8265`.
        out: the run directory as every node sees it: an absolute path, or an address.
        overrides: as `--set`.
        say: hears of what is unsafe.

    Returns:
        The job's id, RUN_ID-eN for the N-th time that this run is submitted there.

    Raises:
        ConfigError: nothing was sent.
        ExecutorError: the cluster does not answer, or refuses.
    """
    from edgesweep.sweeps.plan.resolve import resolve
    from edgesweep.sweeps.planning import make_plan

    folder = Path.cwd()
    check_cluster(cluster, say)
    check_out(out, folder)
    check_config(given, folder)
    config = load_config(given, overrides)
    run_id = make_plan(resolve(config)).run_id
    jobs = Jobs(cluster)
    job = _next(run_id, jobs.of(run_id))
    joined = [] if config.execution.address else ["execution.address=auto"]
    sets = [part for override in [*joined, *overrides] for part in ("--set", override)]
    with tempfile.TemporaryDirectory() as scratch:
        package = pack(folder, Path(scratch) / "job.zip")
        jobs.submit(job, shlex.join(["edgesweep", "run", given, "--out", out, *sets]), package)
    return job


def _next(run_id: str, before: Sequence[Job]) -> str:
    if not before:
        return f"{run_id}-e1"
    last = before[-1]
    if last.is_at_work:
        raise ConfigError(f"the run is at work already, as job {last.id}; let it end, or stop it")
    return f"{run_id}-e{int(last.id.rpartition('-e')[2]) + 1}"


def check_cluster(cluster: str, say: Callable[[str], None]) -> None:
    """An address of the web, which no other should read along. Raises ConfigError."""
    parts = urlsplit(cluster)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--cluster: {cluster!r} is no address; give http://HEAD:8265")
    if parts.username or parts.password:
        raise ConfigError("--cluster: a password is in the address; Ray takes RAY_AUTH_TOKEN")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        say(
            f"warning: {parts.hostname} is reached in plain text: whoever reads along has the "
            "token and runs code there; an ssh tunnel or kubectl port-forward makes it http://127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_out(out: str, folder: Path) -> None:
    """A place that outlives the job, and that every node sees. Raises ConfigError."""
    if "://" in out:
        try:
            scheme, _ = check_address(out)
        except StorageError as error:
            raise ConfigError(f"--out: {error}") from None
        if scheme == "memory":
            raise ConfigError("--out: memory:// ends with the job; give a shared disk or a bucket")
        return
    path = Path(out)
    if not path.is_absolute():
        raise ConfigError(
            f"--out: {out!r} would lie in the job's own folder, which ends with the job; give an "
            "absolute path that every node sees, or an address such as s3://BUCKET/RUN"
        )
    if path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"--out: {out} lies in {folder}, which is sent to the cluster; give a path outside it"
        )


def check_config(given: str, folder: Path) -> None:
    """A config that the job finds too. Raises ConfigError."""
    find_config(given)
    if Path(given).is_file() and str(Path(given)) not in files(folder):
        raise ConfigError(
            f"config {given} is not sent to the cluster: give a path in {folder} that git does not "
            "ignore"
        )


def pack(folder: Path, package: Path) -> Path:
    """Write what of a folder is sent. Raises ConfigError if it is too large, or would hide us."""
    names = sorted(files(folder))
    tops = {Path(name).parts[0] for name in names}
    if hidden := tops & {OURS, f"{OURS}.py"}:
        raise ConfigError(
            f"{folder} has {sorted(hidden)[0]!r}, which would hide the installed {OURS} from the "
            "job; submit from a folder that holds the config and what it names, and nothing else"
        )
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, name)
        packed = {info.filename: info.compress_size for info in archive.infolist()}
    if package.stat().st_size > MAX_PACKAGE_BYTES:
        largest = max(packed, key=packed.__getitem__)
        raise ConfigError(
            f"{folder} has {package.stat().st_size / 1e6:.1f} MB to send (at most "
            f"{MAX_PACKAGE_BYTES / 1e6:.0f}), most of it {largest}; let git ignore it, and name "
            "models and dictionaries by paths that every node sees"
        )
    return package


def files(folder: Path) -> list[str]:
    """What git does not ignore; everything, where git knows nothing of the folder."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, check=True)
        names = [name for name in found.stdout.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return [n for n in names if not {*Path(n).parts} & LEFT_OUT and (folder / n).is_file()]
