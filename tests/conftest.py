"""`--shapes`: shapes in signatures of the engine are checked wherever a test calls them.

No test cuts the power, so the processes of pytest wait for no disk: half of the time that a small
run takes is fsync. Drivers and actors that a test starts do wait. Actors take their share of the
cores: Ray would have them yield to the other processes of pytest, and tests of Ray wait minutes.
"""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.shapes import shapes

ENGINE = Path(__file__).parent.parent / "engine"
#: configs of transformers, whose classes take more than their fields: the hook would refuse that
UNCHECKED = ("network/plain.py", "network/feedforward_net.py")

#: families whose layers are another's but for a detail: what is tested of every family is a proof
#: of these, where it is not of the models themselves
ALIKE = ("gpt_neo", "mistral", "qwen2", "gemma3_text")
OF_FAMILIES = ("evaluation", "features", "methods")


def checked() -> list[str]:
    files = (path.relative_to(ENGINE) for path in ENGINE.rglob("[!_]*.py"))
    names = (path for path in files if path.as_posix() not in UNCHECKED)
    return [".".join(("edgesweep.engine", *path.with_suffix("").parts)) for path in names]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shapes", action="store_true", help="check the shapes in signatures")


def pytest_configure(config: pytest.Config) -> None:
    os.fsync = lambda descriptor: None
    os.environ.setdefault("RAY_worker_niceness", "0")
    if config.getoption("shapes"):  # before any test imports the engine
        install_import_hook(checked(), f"{shapes.__module__}.{shapes.__name__}")


@pytest.hookimpl(tryfirst=True)  # before marks choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        given = getattr(item, "callspec", None)
        of_families = item.path.parent.name in OF_FAMILIES
        if given and of_families and given.params.get("family") in ALIKE:
            item.add_marker(pytest.mark.proof)
