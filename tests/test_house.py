"""The house keeps its measure: short files and functions, small folders, few imports in a row."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tasks", "engine", "storage", "sweeps", "dashboards")
MAX_LINES = 350
MAX_MODULES = 16
MAX_P90_OF_FUNCTIONS = 20
MAX_IMPORT_DEPTH = 8


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


OURS = [*modules(*PACKAGES), *sorted((ROOT / "edgesweep").glob("*.py"))]
ALL = [*OURS, *modules("tests", "benchmarks")]


def told(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_are_short() -> None:
    lengths = {told(path): len(path.read_text().splitlines()) for path in ALL}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_folders_are_small() -> None:
    sizes = Counter(told(path.parent) for path in OURS)
    assert {path: n for path, n in sizes.items() if n > MAX_MODULES} == {}


def test_functions_are_short() -> None:
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    ]
    assert np.percentile(lengths, 90) <= MAX_P90_OF_FUNCTIONS


# --- imports ------------------------------------------------------------------------------------


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("edgesweep", *(p for p in parts if p != "__init__")))


def imported(tree: ast.Module) -> Iterator[str]:
    """Names of modules, and of what may be modules, that are imported when a module is loaded."""
    for node in _run_on_loading(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_on_loading(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements outside functions, without those for the type checker alone."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef):
                yield from _run_on_loading(getattr(node, part, []))


def longest_chain(paths: list[Path]) -> list[str]:
    """The longest chain of imports among some modules; each imports the one after it."""
    names = {name_of(path): path for path in paths}
    edges = {n: {*imported(ast.parse(p.read_text()))} & {*names} - {n} for n, p in names.items()}

    @cache
    def chain(name: str) -> list[str]:
        return [name, *max(map(chain, sorted(edges[name])), key=len, default=[])]

    return max(map(chain, names), key=len)


def test_the_longest_chain_of_a_toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy = {
        "a": "import edgesweep.b\nif TYPE_CHECKING:\n    import edgesweep.d",
        "b": "def later():\n    import edgesweep.d\ntry:\n    from edgesweep import c\nfinally: 0",
        "c": "import numpy",
        "d": "from edgesweep.c import x",
    }
    for name, text in toy.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setitem(name_of.__globals__, "ROOT", tmp_path)
    chain = longest_chain(sorted(tmp_path.glob("*.py")))
    assert chain == ["edgesweep.a", "edgesweep.b", "edgesweep.c"]


def test_imports_within_sweeps_are_no_long_chain() -> None:
    chain = longest_chain(modules("sweeps"))
    assert len(chain) <= MAX_IMPORT_DEPTH, "\n".join(chain)
