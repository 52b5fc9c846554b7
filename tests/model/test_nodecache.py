"""A node has a model once: whoever asks first fetches it, and only the model itself is taken."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgesweep.engine.model import ChangedError, ModelError, ModelSource, load_model, resolve_model
from edgesweep.engine.model import digests as remembered
from edgesweep.engine.model.digests import digest_here
from edgesweep.engine.model.nodecache import ensure, is_remote, sight, stage
from edgesweep.engine.model.precision import in_precision
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.model.weights import folder_digest
from edgesweep.storage.stores import open_store

#: torch is imported once for all processes
OTHERS = multiprocessing.get_context("forkserver")
OTHERS.set_forkserver_preload([__name__])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path: Path) -> ModelSource:
    """A model of a folder, which no name says."""
    tiny_model("llama").hf.save_pretrained(tmp_path / "mine")
    return resolve_model(str(tmp_path / "mine"))


@pytest.fixture
def staged(mine: ModelSource, tmp_path: Path) -> Path:
    """Where it is staged; its folder is gone."""
    assert stage(mine, open_store(tmp_path / "staged"))
    shutil.rmtree(mine.path)
    return tmp_path / "staged"


class Counting:
    """A store that notes each get of a manifest in a file, for all processes; and may be slow."""

    def __init__(self, folder: Path, log: Path, pause_s: float = 0.0) -> None:
        self.store, self.log, self.pause_s = open_store(folder), log, pause_s

    def head(self, key: str) -> Any:
        return self.store.head(key)

    def put(self, key: str, data: bytes) -> None:
        self.store.put(key, data)

    def get(self, key: str) -> bytes:
        if key.endswith("manifest.json"):
            with self.log.open("a") as log:
                log.write(f"{os.getpid()}\n")
        time.sleep(self.pause_s)
        return self.store.get(key)


def fetch(cache: Path, source: ModelSource, staged: Path, pause_s: float) -> None:
    os.environ["EDGESWEEP_CACHE"] = str(cache)
    log = cache.parent / "log"
    assert folder_digest(ensure(source, Counting(staged, log, pause_s))) == source.digest


def started(n: int, *arguments: Any) -> list[Any]:
    processes = [OTHERS.Process(target=fetch, args=arguments) for _ in range(n)]
    for process in processes:
        process.start()
    return processes


def test_eight_processes_fetch_once(mine: ModelSource, staged: Path, cache: Path) -> None:
    processes = started(8, cache, mine, staged, 0.3)  # the others come while the first is at it
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert len((cache.parent / "log").read_text().splitlines()) == 1
    nodes = [path.name for path in (cache / "nodes").iterdir()]
    assert sorted(nodes) == [mine.digest, f"{mine.digest}.lock"]


def test_after_a_killed_fetcher_the_next_one_finishes(
    mine: ModelSource, staged: Path, cache: Path
) -> None:
    (first,) = started(1, cache, mine, staged, 60.0)
    while not list(cache.glob("nodes/.*")):  # it is at work
        assert first.is_alive()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    own = ensure(mine, open_store(staged))
    assert folder_digest(own) == mine.digest
    assert list(cache.glob("nodes/.*")) == []


def test_a_model_that_is_seen_is_used_where_it_lies(mine: ModelSource, cache: Path) -> None:
    assert ensure(mine) == mine.path
    assert not list(cache.glob("nodes/*"))
    assert sight(mine) == "in place"


def test_over_a_network_it_is_copied(
    mine: ModelSource, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesweep.engine.model.nodecache.is_remote", lambda path: True)
    assert sight(mine) == "copied over the network"
    own = ensure(mine)
    assert own.parent == cache / "nodes"
    shutil.rmtree(mine.path)
    assert ensure(mine) == own
    assert sight(mine) == "in the cache"


def test_which_disks_are_of_a_network(tmp_path: Path) -> None:
    line = "36 35 0:1 / {} rw,noatime shared:1 - {} server:/x rw\n"
    mounts = (("/", "ext4"), ("/shared", "nfs4"), ("/shared/local", "xfs"), ("/b", "fuse.gcsfuse"))
    table = tmp_path / "mounts"
    table.write_text("".join(line.format(*mount) for mount in mounts))
    found = {p: is_remote(Path(p), str(table)) for p in ("/", "/shared/m", "/shared/local/m", "/b")}
    assert found == {"/": False, "/shared/m": True, "/shared/local/m": False, "/b": True}
    assert not is_remote(tmp_path)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_wrong_weights_are_refused_in_one_line(mine: ModelSource, tmp_path: Path) -> None:
    stage(mine, open_store(tmp_path / "staged"))
    _flip(mine.path / "model.safetensors")
    assert sight(mine) == ""
    with pytest.raises(ChangedError, match=f"the files in {mine.path} are not those") as caught:
        ensure(mine)
    assert len(str(caught.value).splitlines()) == 1
    assert ensure(mine, open_store(tmp_path / "staged")) != mine.path


def test_a_staged_model_that_is_damaged(mine: ModelSource, staged: Path) -> None:
    _flip(next(staged.glob("*/model.safetensors.00001")))
    with pytest.raises(ModelError, match=r"model\.safetensors is not what was staged$") as caught:
        ensure(mine, open_store(staged))
    assert len(str(caught.value).splitlines()) == 1


def test_a_manifest_writes_nowhere_else(mine: ModelSource, staged: Path, cache: Path) -> None:
    manifest = next(staged.glob("*/manifest.json"))
    told = json.loads(manifest.read_text())
    told["files"] = {"../../stray": told["files"]["config.json"]}
    manifest.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"'../../stray', which is no file of a folder"):
        ensure(mine, open_store(staged))
    assert not list(cache.parent.rglob("stray"))


def test_staging_twice_writes_once(mine: ModelSource, tmp_path: Path) -> None:
    store = open_store(tmp_path / "staged")
    assert [stage(mine, store), stage(mine, store)] == [True, False]


def test_parts_of_a_large_file(
    mine: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesweep.engine.model.nodecache.PART_BYTES", 10_000)
    stage(mine, open_store(tmp_path / "staged"))
    assert len(list(tmp_path.glob("staged/*/model.safetensors.*"))) > 3
    shutil.rmtree(mine.path)
    assert folder_digest(ensure(mine, open_store(tmp_path / "staged"))) == mine.digest


def test_an_alias_is_made_where_it_is_missing(tmp_path: Path) -> None:
    source = resolve_model("tiny-random")
    shutil.rmtree(source.path)
    assert sight(source) == "made by its name"
    assert torch.isfinite(load_model(replace(source, path=ensure(source))).hf.lm_head.weight).all()


def test_a_hub_is_asked_for_the_planned_revision_and_not_if_staged(
    mine: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot(repo: str, revision: str, allow_patterns: list[str], local_dir: Path) -> None:
        asked.append((repo, revision))
        shutil.copytree(mine.path, local_dir, dirs_exist_ok=True)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = replace(mine, name="owner/mine", path=tmp_path / "nowhere/snapshots/abc123")
    assert folder_digest(ensure(source)) == mine.digest
    assert asked == [("owner/mine", "abc123")]
    shutil.rmtree(tmp_path / "cache")
    stage(mine, open_store(tmp_path / "staged"))
    ensure(source, open_store(tmp_path / "staged"))
    assert len(asked) == 1


# --- digests ----------------------------------------------------------------------------------


def _hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []

    def counted(folder: Path) -> str:
        found.append(folder)
        return folder_digest(folder)

    monkeypatch.setattr(remembered, "folder_digest", counted)
    return found


def _age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files' times of change cannot be set; what counts as too new can."""
    monkeypatch.setattr(remembered, "RACY_NS", -1)


CHANGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda folder: _flip(folder / "model.safetensors"),
    "another config": lambda folder: (folder / "config.json").write_text("{}"),
    "a file more": lambda folder: shutil.copy(
        folder / "model.safetensors", folder / "b.safetensors"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_digest_is_remembered_until_something_changes(
    change: str, mine: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    _age(mine.path, monkeypatch)
    hashed = _hashed(monkeypatch)
    assert [digest_here(mine.path) for _ in range(3)] == [mine.digest] * 3
    assert len(hashed) == 1
    CHANGES[change](mine.path)
    assert digest_here(mine.path) != mine.digest


def test_what_changed_a_moment_ago_is_not_remembered(
    mine: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change within one tick of the clock would go unseen."""
    hashed = _hashed(monkeypatch)
    assert [digest_here(mine.path) for _ in range(3)] == [mine.digest] * 3
    assert len(hashed) == 3


def test_a_damaged_memo_is_made_anew(mine: ModelSource, cache: Path) -> None:
    digest_here(mine.path)
    (memo,) = (path for path in (cache / "digests").iterdir() if not path.suffix)
    memo.write_text("[")
    assert digest_here(mine.path) == mine.digest


# --- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "llama", "gemma3_text", "plain"])
def test_converted_weights_are_those_that_loading_converts(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(model_type).hf.save_pretrained(tmp_path / "m")
    source = resolve_model(str(tmp_path / "m"))
    slow = load_model(source, dtype="bfloat16").hf.state_dict()
    monkeypatch.setattr("edgesweep.engine.model.precision.WORTH_SHARING_BYTES", 0)
    fast = load_model(source, dtype="bfloat16").hf.state_dict()
    assert slow.keys() == fast.keys()
    assert all(torch.equal(slow[name], fast[name]) for name in slow)


def test_weights_are_converted_once(
    mine: ModelSource, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesweep.engine.model.precision.WORTH_SHARING_BYTES", 0)
    assert in_precision(mine.path, mine.digest, torch.float32) == mine.path
    own = in_precision(mine.path, mine.digest, torch.bfloat16)
    assert own == cache / "nodes" / f"{mine.digest}-bfloat16"
    kinds = {weight.dtype for weight in load_file(own / "model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    stamp = (own / "model.safetensors").stat().st_ino
    assert in_precision(mine.path, mine.digest, torch.bfloat16) == own
    assert (own / "model.safetensors").stat().st_ino == stamp
    _flip(own / "model.safetensors")
    in_precision(mine.path, mine.digest, torch.bfloat16)
    assert (own / "model.safetensors").stat().st_ino != stamp


def test_a_full_disk_is_left_alone(mine: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesweep.engine.model.precision.WORTH_SHARING_BYTES", 0)
    monkeypatch.setattr("edgesweep.engine.model.precision.SPARE", 10**12)
    assert in_precision(mine.path, mine.digest, torch.bfloat16) == mine.path


def test_straight_to_a_device(mine: ModelSource) -> None:
    """As to a GPU: the same numbers, and no hooks that move them about."""
    mapped, placed = load_model(mine).hf, load_model(mine, "cpu:0").hf
    weights = placed.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in mapped.state_dict().items())
    assert not any(hasattr(module, "_hf_hook") for module in placed.modules())
