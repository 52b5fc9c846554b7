"""Packed examples are the examples, and a digest of them is that of all at once."""

import tracemalloc

import pytest

from edgesweep.sweeps.plan.canonical import digest, digest_of_lists
from edgesweep.tasks import build_task
from edgesweep.tasks.packed import BLOCK, Packed
from edgesweep.tasks.prompt import ArrayExample
from tests.tiny import prompts


def test_they_come_back_as_they_were() -> None:
    whole = tuple(prompts(2 * BLOCK + 3))
    packed = Packed(iter(whole))
    assert (len(packed), tuple(packed)) == (len(whole), whole)
    assert (packed[0], packed[-1], packed[BLOCK]) == (whole[0], whole[-1], whole[BLOCK])
    assert packed[BLOCK - 2 : BLOCK + 2] == whole[BLOCK - 2 : BLOCK + 2]
    assert list(reversed(packed)) == list(reversed(whole))
    assert packed == Packed(whole)
    assert packed != Packed(whole[1:])
    with pytest.raises(IndexError):
        packed[len(whole)]
    assert (len(Packed(())), list(Packed(()))) == (0, [])


def test_arrays_keep_every_bit() -> None:
    numbers = (0.1, 1 / 3, 2.0**-60, -0.0)
    example = ArrayExample(numbers, numbers[::-1], (1,), (0,), "t", "u", (2, 2))
    (back,) = Packed([example])
    assert isinstance(back, ArrayExample)
    assert back == example
    assert [x.hex() for x in back.clean] == [x.hex() for x in numbers]


def test_they_take_little(words) -> None:
    tracemalloc.start()
    try:
        held = build_task("ioi", words, 3000, 0, seed=0, hold=Packed).build
        assert tracemalloc.get_traced_memory()[0] / len(held) < 400
    finally:
        tracemalloc.stop()


def test_a_digest_of_lists_is_the_digest() -> None:
    for lists in ([], [[]], [[1.0, {"b": [2.5], "a": "é"}], [], ["x", None]]):
        assert digest_of_lists(iter(part) for part in lists) == digest(lists)
