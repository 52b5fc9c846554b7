"""A node that lacks the run directory, as a missing mount makes it."""

import os
from pathlib import Path

import pytest

from tests.runtime.clusters import run_apart


@pytest.mark.proof
@pytest.mark.skipif(os.geteuid() != 0, reason="only root hides a folder from a process")
def test_on_a_cluster_with_a_blind_node() -> None:
    run_apart(Path(__file__).with_name("on_blind.py"))
