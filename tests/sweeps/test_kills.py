"""A driver is killed before a durable operation, any one, and another finishes the run: the same
bytes in every array and table, as if nothing had been."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesweep.sweeps.command.watching import run_status
from tests.sweeps.helpers import DATA, committed, contents

TABLES = (
    "measures",
    "roc",
    "overlap",
    "minimality",
    "interpolation",
    "known",
    "reach",
    "rebuilt",
    "pairs",
)
ALL_DATA = (*DATA, "means.zarr", "blocks", *(f"{name}.parquet" for name in TABLES))
#: of every library that would start others when it is imported
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
SEED = int(os.environ.get("EDGESWEEP_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


class Forker:
    """A process that has imported all that a driver needs, and forks drivers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sweeps.kill_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )

    def drive(self, out: Path, kill_before: int = 0) -> str:
        """Returns "killed", or how many durable operations there were."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"out": str(out), "kill_before": kill_before}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return "killed" if answer["killed"] else answer["said"]

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    made = Forker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(forker, tmp_path_factory) -> tuple[Path, int]:
    """A run, and the number of its durable operations."""
    out = tmp_path_factory.mktemp("kills") / "calm"
    said = forker.drive(out)
    assert said.isdigit(), said
    assert run_status(out)["state"] == "done"
    return out, int(said)


#: of the proof's hundred kills, in parts that may run side by side
PARTS = [pytest.param(25, part, marks=pytest.mark.proof) for part in range(1, 5)]


@pytest.mark.parametrize(
    ("n_kills", "part"), [(2, 0), pytest.param(6, 0, marks=pytest.mark.proof), *PARTS]
)
@pytest.mark.timeout(3600)
def test_killed_before_any_operation_and_resumed_the_bytes_are_the_same(
    forker, undisturbed, tmp_path, n_kills, part
):
    calm, n_operations = undisturbed
    expected, records = contents(calm, *ALL_DATA), committed(calm)
    draw = random.Random(SEED + part)
    print(f"EDGESWEEP_KILL_SEED={SEED}, {n_operations} operations")
    for number in range(n_kills):
        out, kills = tmp_path / str(number), [draw.randint(1, n_operations)]
        ended = forker.drive(out, kills[0])  # commits go by the clock: there may be fewer
        assert ended == "killed" or int(ended) <= kills[0]
        if draw.random() < 0.3:  # and the one that mends it
            kills.append(draw.randint(1, n_operations))
            forker.drive(out, kills[1])
        told = f"killed before operation {kills}, seed {SEED}: "
        said = forker.drive(out)
        assert said.isdigit(), told + said + (tmp_path / "printed").read_text()[-2000:]
        assert contents(out, *ALL_DATA) == expected, told
        assert committed(out) == records, told
        assert run_status(out)["state"] == "done", told
        shutil.rmtree(out)
        print(f"{number + 1} of {n_kills}: {kills}", flush=True)
