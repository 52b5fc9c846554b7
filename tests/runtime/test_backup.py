"""Works that are done twice at once: the run ends by the copy, and one of the two writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesweep.engine.runtime import Event, PoolOptions, Work, make_executor
from tests.runtime.test_executors import run
from tests.runtime.workers import obedient

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def executor(told: list[Event]) -> Iterator[Any]:
    options = PoolOptions(actors=2, backup=True, backup_floor_s=0.5)
    made = make_executor("ray", obedient, options, told.append)
    yield made
    made.close()


def todo(folder: Path, *seconds: float) -> list[Work]:
    """Works of one group that write, each into a file of its own."""
    return [Work(str(i), ("write", (str(folder / str(i)), s)), "g") for i, s in enumerate(seconds)]


def writers(folder: Path) -> list[str]:
    """The attempts that wrote, of each work."""
    return [path.read_text().strip() for path in sorted(folder.iterdir())]


@pytest.mark.proof
def test_a_work_that_never_ends_is_done_by_its_copy(
    executor: Any, told: list[Event], tmp_path: Path
) -> None:
    book = run(executor, todo(tmp_path, 0, 0, 1e9))
    assert [len(wrote.split()) for wrote in writers(tmp_path)] == [1, 1, 1]
    assert writers(tmp_path)[2] == "2"
    assert book.done["2"]["attempt"] == 2
    assert {event.kind for event in told} == {"backup"}
    assert not book.failed


def test_of_two_that_come_to_write_one_does(executor: Any, tmp_path: Path) -> None:
    """The copy writes at once, and takes half a second more; the first comes to write in that
    time."""
    book = run(executor, todo(tmp_path, 0, 0, 1.2))
    assert [len(wrote.split()) for wrote in writers(tmp_path)] == [1, 1, 1]
    assert len(book.done) == 3
    assert not book.failed
    assert len(run(executor, todo(tmp_path, 0)).done) == 1, "it was forgotten who wrote"


@pytest.mark.proof
def test_a_writer_that_dies_is_followed_by_another(executor: Any, tmp_path: Path) -> None:
    todo = [Work(str(i), ("write_and_die", str(tmp_path / str(i))), "g") for i in range(2)]
    book = run(executor, todo)
    assert {receipt["attempt"] for receipt in book.done.values()} == {2}
    assert writers(tmp_path) == ["1\n2", "1\n2"]
