"""Actors and drivers are killed at random while work is left; the bytes do not know of it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesweep.sweeps.stages.registry import STAGES
from tests.sweeps.chaos_driver import chaos_config
from tests.sweeps.helpers import DATA, FURTHER_DATA, committed, contents, run_tiny

N_DRIVER_KILLS = 3
N_ACTOR_KILLS = 3  # of each driver that is killed
SHARDS_BETWEEN = (2, 6)
PATIENCE_S = 180.0


def n_committed(run: Path) -> int:
    segments = (file for stage in STAGES for file in (run / "commits" / stage).glob("*.jsonl"))
    return sum(file.read_bytes().count(b'"shard"') for file in segments)


def processes() -> Iterator[tuple[int, int, str]]:
    """(pid, parent, command line) of every live process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(folder.name), int(fields[1]), command


def descendants(pid: int) -> list[tuple[int, str]]:
    """(pid, command line) of all processes below one."""
    alive = list(processes())
    below = {pid}
    for _ in range(8):
        below |= {child for child, parent, _ in alive if parent in below}
    return [(child, command) for child, _, command in alive if child in below - {pid}]


def wait_for_commits(run: Path, wanted: int, driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while n_committed(run) < wanted:
        assert driver.poll() is None, "the driver ended before its time"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)


class Victim:
    """A driver process and its actors."""

    def __init__(self, run: Path, log: Path) -> None:
        self._run = run
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.sweeps.chaos_driver", str(run)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def wait_for_commits(self, wanted: int) -> None:
        wait_for_commits(self._run, wanted, self.process)

    def kill_an_actor(self, draw: random.Random) -> bool:
        actors = [p for p, title in descendants(self.process.pid) if "ray::SweepActor" in title]
        if not actors:
            return False
        os.kill(draw.choice(actors), signal.SIGKILL)
        return True

    def kill(self) -> list[tuple[int, str]]:
        """SIGKILL the driver; the processes that it leaves behind."""
        orphans = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        self._log.close()
        return orphans

    def finish(self) -> int:
        code = self.process.wait(timeout=4 * PATIENCE_S)
        self._log.close()
        return code


def reap(orphans: list[tuple[int, str]]) -> None:
    """End what killed drivers have left, so that it does not slow the rest of the suite."""
    alive = {pid: command for pid, _, command in processes()}
    for pid, command in orphans:
        if alive.get(pid) == command:  # not another process that got the number since
            os.kill(pid, signal.SIGKILL)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_killed_anywhere_and_resumed_the_bytes_are_the_same(tmp_path):
    calm, hurt = tmp_path / "calm", tmp_path / "hurt"
    assert run_tiny(calm, chaos_config("serial")).exit_code == 0
    total = sum(map(len, committed(calm).values()))
    assert total >= 24
    draw = random.Random(int.from_bytes(os.urandom(4)))
    actor_kills = 0
    orphans: list[tuple[int, str]] = []
    for _ in range(N_DRIVER_KILLS):
        victim = Victim(hurt, tmp_path / "log")
        kills = 0
        while kills < N_ACTOR_KILLS:
            victim.wait_for_commits(n_committed(hurt) + draw.randint(*SHARDS_BETWEEN))
            time.sleep(draw.random() * 0.25)
            kills += victim.kill_an_actor(draw)
        victim.wait_for_commits(n_committed(hurt) + draw.randint(*SHARDS_BETWEEN))
        orphans += victim.kill()
        actor_kills += kills
        assert n_committed(hurt) < total, "work was to be left"
    assert actor_kills >= 9
    last = Victim(hurt, tmp_path / "log")
    assert last.finish() == 0, (tmp_path / "log").read_text()[-3000:]
    reap(orphans)
    data = *DATA, *FURTHER_DATA, "means.zarr"
    assert contents(hurt, *data) == contents(calm, *data)
    assert committed(hurt) == committed(calm)
