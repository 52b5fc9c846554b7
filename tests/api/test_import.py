"""Importing the package costs nothing; what it offers is there when asked for."""

import subprocess
import sys

import pytest

import edgesweep as es

TIMED = """
import sys, time
began = time.perf_counter()
import edgesweep
took = time.perf_counter() - began
assert not {"torch", "numpy", "pandas", "ray", "transformers"} & set(sys.modules)
edgesweep.open, edgesweep.load_circuit
assert not {"torch", "ray", "transformers"} & set(sys.modules)
print(took)
"""


def test_importing_is_quick_and_reading_needs_no_torch():
    runs = [
        subprocess.run([sys.executable, "-c", TIMED], capture_output=True, text=True, check=False)
        for _ in range(3)
    ]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout) for run in runs) < 0.1


def test_all_that_it_names_is_there():
    assert set(es.__all__) <= set(dir(es))
    assert all(callable(getattr(es, name)) for name in es.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        es.opne  # noqa: B018
