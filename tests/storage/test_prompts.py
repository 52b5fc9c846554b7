"""Prompts in blocks: the same prompts, read a block at a time."""

from __future__ import annotations

import pytest

from edgesweep.storage import RunDirectory, StorageError
from edgesweep.storage.packing import prompts as packing
from edgesweep.storage.packing.prompts import PromptRows, write_prompts
from edgesweep.tasks import Prompt, example_of


def some_prompts(n: int) -> list[Prompt]:
    return [
        Prompt((i, 9, 11), (i, 8, 11), (20,), (21, 22), "task", "t", {"end": 2}, "a", "b")
        for i in range(n)
    ]


@pytest.mark.parametrize("n", [1, 5, 10, 13])
def test_prompts_come_back_whole_and_in_part(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(packing, "BLOCK", 5)
    made = some_prompts(n)
    write_prompts(run, "d", {"build": made, "eval": made[:1]})
    found = PromptRows(run, "d", "build", example_of)
    assert len(found) == n
    assert list(found) == made
    for start in range(n):
        assert found[start] == made[start]
        assert found[start : start + 4] == tuple(made[start : start + 4])
    assert found[-1] == made[-1]
    assert len(PromptRows(run, "d", "eval", dict)) == 1
    with pytest.raises(IndexError):
        found[n]


def test_a_worker_holds_a_few_blocks_whatever_there_are(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "BLOCK", 2)
    write_prompts(run, "many", {"build": some_prompts(100)})
    rows = PromptRows(run, "many", "build", dict)
    assert sum(1 for _ in rows) == 100
    assert packing._read_block.cache_info().currsize <= packing.HELD
    read = packing._read_block.cache_info().misses
    assert len(rows[40:44]) == 4
    assert packing._read_block.cache_info().misses - read == 2


def test_what_is_not_as_written_is_not_read_and_is_written_again(run: RunDirectory) -> None:
    write_prompts(run, "hurt", {"build": some_prompts(3)})
    path = run.path / "prompts/hurt/build-00000.json"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b'"clean":[', b'"clean":[1,', 1))
    with pytest.raises(StorageError, match="is damaged: its checksum does not match"):
        PromptRows(run, "hurt", "build", dict)[:]
    write_prompts(run, "hurt", {"build": some_prompts(3)})
    assert path.read_bytes() == sound
