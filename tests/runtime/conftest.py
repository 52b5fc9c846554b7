"""One local Ray for all tests of this folder; each test brings its own pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgesweep.engine.runtime.ray_session import close_session, open_session
from edgesweep.engine.runtime.work import PoolOptions


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    started = open_session(PoolOptions(actors=4))
    yield
    if started:
        close_session()
