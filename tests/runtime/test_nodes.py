"""Nodes that are blind, and nodes that go away."""

from pathlib import Path

import pytest

from tests.runtime.clusters import run_apart


@pytest.mark.proof
def test_on_a_cluster_of_three_nodes() -> None:
    run_apart(Path(__file__).with_name("on_nodes.py"))
