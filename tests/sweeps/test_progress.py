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


TITLES = {"attribute": "attribution", "reduce": "reduction"}
COUNTS = {"attribute": 12, "reduce": 2}


def test_lines_give_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.begin(TITLES, COUNTS, {**COUNTS, "attribute": 4})
    for _ in range(4):
        now[0] += 5
        plain.tick("attribute")
    plain.tick("attribute", failed=True)
    for _ in range(3):
        plain.tick("attribute")
    plain.end()
    assert stream.getvalue().splitlines() == [
        "8 shards (attribution 8), 6 there already",
        # the rate is of this driver's own shards
        "shards: 8/14, 0.20 shards/s, 30 s left",
        "shards: 10/14, 0.20 shards/s, 20 s left",
        "attribution: 11/12, after 20 s, 1 quarantined",
    ]


def test_a_run_that_stops_says_how_far_it_is():
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.begin(TITLES, COUNTS, dict.fromkeys(COUNTS, 0))
    plain.tick("attribute")
    plain.end()
    assert stream.getvalue().splitlines()[-1].startswith("shards: 1/14, ")


def test_a_run_that_was_done_says_nothing():
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.begin(TITLES, COUNTS, COUNTS)
    plain.end()
    assert stream.getvalue() == ""
