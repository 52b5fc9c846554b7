"""What every kind of store does: one suite, which a new kind joins by a line in KINDS. Azure needs
Azurite; Google has no server that runs here, and is not tried."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from edgesweep.storage.errors import Refused, StorageError
from edgesweep.storage.stores import LocalStore, Missing, Store, open_store
from tests.storage import servers
from tests.storage.servers import SECRET, Door

KINDS = ("file", "memory", "s3", "az")
N_THREADS, N_KEYS = 8, 50
_number = itertools.count()


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with servers.s3() as made:
        yield made


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with servers.azure(tmp_path_factory.mktemp("azurite")):
        _make_container()
        yield


def _make_container() -> None:
    """obstore makes none: by a request signed with the shared key, as Azure documents it."""
    import base64
    import hashlib
    import hmac
    import urllib.request
    from email.utils import formatdate

    account, key = (os.environ[f"AZURE_STORAGE_ACCOUNT_{x}"] for x in ("NAME", "KEY"))
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    told = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    where = f"/{account}/{account}/{servers.BUCKET}\nrestype:container"
    text = "PUT" + "\n" * 12 + told + where
    signature = hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
    headers["Content-Type"] = ""
    address = f"{os.environ['AZURE_STORAGE_ENDPOINT']}/{servers.BUCKET}?restype=container"
    request = urllib.request.Request(address, headers=headers, method="PUT")
    urllib.request.urlopen(request).close()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty one."""
    if request.param == "file":
        return open_store(f"file://{tmp_path}/runs/r")
    if request.param == "memory":
        return open_store(f"memory://test{next(_number)}/r")
    request.getfixturevalue("door" if request.param == "s3" else "azurite")
    return open_store(f"{request.param}://{servers.BUCKET}/runs/r{next(_number)}")


def test_what_is_put_is_there(store: Store) -> None:
    assert store.head("a/b") is None
    with pytest.raises(Missing, match="a/b is missing"):
        store.get("a/b")
    store.put("a/b", b"one")
    first = store.head("a/b")
    assert first is not None
    assert (store.get("a/b"), first.key, first.size) == (b"one", "a/b", 3)
    store.put("a/b", b"two!")
    second = store.head("a/b")
    assert second is not None
    assert (store.get("a/b"), second.size) == (b"two!", 4)
    assert second.tag != first.tag
    assert first.modified - 2 <= second.modified
    store.put("empty", b"")
    assert store.get("empty") == b""


def test_what_is_deleted_is_gone(store: Store) -> None:
    store.put("a", b"x")
    store.delete("a")
    store.delete("a")
    assert store.head("a") is None
    assert store.create("a", b"y")


def test_a_mark_tells_other_content(store: Store) -> None:
    store.put("a", b"one")
    (info,) = store.list()
    mark = store.mark(info)
    assert mark == store.mark(info)
    store.put("a", b"two")
    (info,) = store.list()
    assert store.mark(info) != mark


def test_a_list_is_sorted_and_goes_on_after_a_key(store: Store) -> None:
    keys = ["a/10", "a/2", "a/b/1", "a0", "b", "a-1"]
    for key in keys:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == sorted(keys)
    assert [(i.key, i.size) for i in store.list("a")] == [("a/10", 4), ("a/2", 3), ("a/b/1", 5)]
    assert [info.key for info in store.list("a", after="a/10")] == ["a/2", "a/b/1"]
    assert list(store.list("none")) == []


def test_what_is_created_stays(store: Store) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_what_another_wrote_is_not_swapped(store: Store) -> None:
    assert store.swap("a", b"0", "") is None
    store.put("a", b"1")
    first = store.head("a")
    assert first is not None
    tag = store.swap("a", b"2", first.tag)
    assert tag is not None
    assert store.swap("a", b"3", first.tag) is None
    assert store.get("a") == b"2"
    assert store.swap("a", b"4", tag) is not None
    store.delete("a")
    assert store.swap("a", b"5", tag) is None
    assert store.head("a") is None


def test_of_racing_swaps_in_a_bucket_one_wins(store: Store) -> None:
    if isinstance(store, LocalStore):
        pytest.skip("a folder looks, and then writes: who drives is decided by `create`")
    store.put("a", b"first")
    tag = store.head("a").tag  # type: ignore[union-attr]
    with ThreadPoolExecutor(N_THREADS) as pool:
        swapped = list(pool.map(lambda i: store.swap("a", b"%d" % i, tag), range(N_THREADS)))
    (won,) = (i for i, new in enumerate(swapped) if new is not None)
    assert store.get("a") == b"%d" % won


def test_of_racing_writers_one_wins_each_key(store: Store) -> None:
    def race(me: int) -> list[bool]:
        return [store.create(f"race/{i}", b"%d" % me * 100) for i in range(N_KEYS)]

    with ThreadPoolExecutor(N_THREADS) as pool:
        won = list(pool.map(race, range(N_THREADS)))
    for i in range(N_KEYS):
        winners = [me for me in range(N_THREADS) if won[me][i]]
        assert len(winners) == 1
        assert store.get(f"race/{i}") == b"%d" % winners[0] * 100


def test_zarr_sees_the_same_place(store: Store) -> None:
    group = zarr.open_group(store.zarr(), path="x.zarr", mode="w", zarr_format=3)
    made = group.create_array("a", shape=(4, 3), chunks=(2, 3), dtype="float32")
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    made[:] = values
    keys = [info.key for info in store.list("x.zarr")]
    assert keys == [f"x.zarr/{k}" for k in ("a/c/0/0", "a/c/1/0", "a/zarr.json", "zarr.json")]
    again = open_store(store.url)
    assert np.array_equal(zarr.open_array(again.zarr(), path="x.zarr/a", mode="r")[:], values)
    store.delete("x.zarr/a/c/1/0")
    rest = zarr.open_array(again.zarr(), path="x.zarr/a", mode="r")
    assert np.array_equal(rest[:2], values[:2])
    with pytest.raises(Missing, match=r"x\.zarr/a/c/1/0: the chunk is missing; resume the run"):
        rest[2:]


# --- a server that does harm ---------------------------------------------------------------------

HARMS = {
    "409": [409],
    "409 thrice": [409, 409, 409],
    "500": [500],
    "503 twice": [503, 503],
    "answer lost": ["drop"],
    "answers lost": ["drop", "drop"],
    "all": [503, "drop", 500, 409],
}


@pytest.fixture
def bucket(door: Door) -> Store:
    return open_store(f"s3://{servers.BUCKET}/harm/r{next(_number)}")


@pytest.mark.parametrize("harm", HARMS)
def test_a_write_outlives_a_bad_server(bucket: Store, door: Door, harm: str) -> None:
    """Also one whose answer is lost after it was done: it was ours."""
    door.harms = iter(HARMS[harm])
    assert bucket.create("a", b"mine")
    assert not bucket.create("a", b"another's")
    door.harms = iter(HARMS[harm])
    bucket.put("a", b"over it")
    assert bucket.get("a") == b"over it"
    door.harms = iter(HARMS[harm])
    array = zarr.create_array(bucket.zarr(), name="x", shape=(3,), chunks=(3,), dtype="int32")
    array[:] = np.arange(3, dtype=np.int32)
    assert bucket.head("x/c/0") is not None


def test_a_bad_server_is_one_line_without_credentials(bucket: Store, door: Door) -> None:
    nowhere = open_store("s3://no-such-bucket/r")
    for act in (lambda: nowhere.put("a", b""), lambda: nowhere.create("a", b"")):
        with pytest.raises(StorageError, match=r"cannot write s3://no-such-bucket/r/a: ") as error:
            act()
        assert "\n" not in str(error.value)
        assert SECRET not in str(error.value)
    door.harms = itertools.repeat(403)
    with pytest.raises(StorageError, match=r"cannot write s3://.*/a: .*credentials") as error:
        bucket.put("a", b"")
    door.harms = iter(())
    assert "\n" not in str(error.value)


def test_a_torn_put_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torn by a full disk; by SIGKILL see test_commits. A bucket knows whole objects alone."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = open_store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    for act in (store.put, store.create):
        with pytest.raises(StorageError, match="the disk is full"):
            act("a", b"x" * 1000)
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s4://b/r", "s4://… is no address that a run can have: give a path, or one of file://"),
        ("https://host/r", "https://… is no address"),
        ("s3://key:sesame@b/r", "the s3:// address has a user, a password or a query in it"),
        ("az://c/r?sig=sesame", "credentials in the environment"),
        ("s3://", "names no bucket"),
        ("memory:///", "names no bucket"),
        ("file://", "names no folder"),
    ],
)
def test_addresses_that_no_run_can_have(address: str, told: str) -> None:
    with pytest.raises(Refused, match=re.escape(told)) as error:
        open_store(address)
    assert "sesame" not in str(error.value)
    assert "\n" not in str(error.value)
