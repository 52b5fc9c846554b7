"""`--shapes`: shapes in signatures of the engine are checked wherever a test calls them."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.shapes import shapes

ENGINE = Path(__file__).parent.parent / "engine"
#: configs of transformers, whose classes take more than their fields: the hook would refuse that
UNCHECKED = ("network/plain.py", "network/feedforward_net.py")


def checked() -> list[str]:
    files = (path.relative_to(ENGINE) for path in ENGINE.rglob("[!_]*.py"))
    names = (path for path in files if path.as_posix() not in UNCHECKED)
    return [".".join(("edgesweep.engine", *path.with_suffix("").parts)) for path in names]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shapes", action="store_true", help="check the shapes in signatures")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports the engine."""
    if config.getoption("shapes"):
        install_import_hook(checked(), f"{shapes.__module__}.{shapes.__name__}")
