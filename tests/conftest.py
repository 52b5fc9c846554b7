"""Shapes in signatures of the engine are checked wherever a test calls them."""

from pathlib import Path

from jaxtyping import install_import_hook

from tests.shapes import shapes

ENGINE = Path(__file__).parent.parent / "engine"
#: configs of transformers, whose classes take more than their fields: the hook would refuse that;
#: and runs of many variants, whose rows grow on the way
UNCHECKED = (
    *("network/plain.py", "network/feedforward_net.py"),
    *("methods/paths.py", "variants.py"),
)


def checked() -> list[str]:
    files = (path.relative_to(ENGINE) for path in ENGINE.rglob("[!_]*.py"))
    names = (path for path in files if path.as_posix() not in UNCHECKED)
    return [".".join(("edgesweep.engine", *path.with_suffix("").parts)) for path in names]


install_import_hook(checked(), f"{shapes.__module__}.{shapes.__name__}")
