"""Fake interpreters: shell scripts that stand where a Python with graph-tool would.

They are called as ``FAKE -I WORKER REQUEST RESULT`` or ``FAKE -I WORKER --probe``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgesweep.engine.blockmodel import Interpreter, find_interpreter

FakeInterpreter = Callable[..., Interpreter]


@pytest.fixture
def fake(tmp_path: Path) -> FakeInterpreter:
    def make(body: str, name: str = "fake") -> Interpreter:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return Interpreter(str(path), "fake")

    return make


@pytest.fixture(scope="session")
def graph_tool() -> Interpreter:
    """A real interpreter; tests that need one are skipped where there is none."""
    found = find_interpreter()
    if found is None:
        pytest.skip("no interpreter here can import graph_tool")
    return found
