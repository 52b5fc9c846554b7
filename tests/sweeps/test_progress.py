"""What a person is told while a run goes on."""

import io

import pytest

from edgesweep.sweeps import progress
from edgesweep.sweeps.progress import PlainProgress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (42.2, "42 s"),
        (61, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (7320, "2 h 02 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_lines_give_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.begin("attribution", 12, 4)
    for _ in range(4):
        now[0] += 5
        plain.tick()
    plain.tick(failed=True)
    for _ in range(3):
        plain.tick()
    plain.end()
    assert stream.getvalue().splitlines() == [
        "attribution: 12 shards, 4 there already",
        # the rate is of this driver's own shards
        "attribution: 6/12, 0.20 shards/s, 30 s left",
        "attribution: 8/12, 0.20 shards/s, 20 s left",
        "attribution: 11/12, 0.35 shards/s, took 20 s, 1 quarantined",
    ]


def test_a_wave_that_was_done_says_nothing():
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.begin("attribution", 12, 12)
    plain.end()
    assert stream.getvalue() == ""
