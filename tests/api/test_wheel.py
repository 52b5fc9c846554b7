"""A wheel installs `edgesweep` and nothing else, so that a user's own modules neither break it nor
are broken by it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("tasks", "engine", "storage", "sweeps", "dashboards")
#: modules that a user may well have
THEIRS = ("tasks", "storage", "engine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, or the builder would leave its folders in the repository."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    names = ["edgesweep", *PARTS, "pyproject.toml", "README.md", "LICENSE"]
    subprocess.run(["cp", "-a", *(ROOT / name for name in names), source], check=True)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture
def python(wheel: Path, tmp_path: Path) -> Path:
    """An environment with the wheel and what it depends on, which is not downloaded again."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    found = environment / "bin/python"
    _pip("--python", found, "install", "--no-deps", "--no-index", wheel)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wheel_holds_one_package_with_all_its_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edgesweep"}
    ours = [f.relative_to(ROOT) for part in PARTS for f in (ROOT / part).rglob("*") if f.is_file()]
    pictures = {f for f in ours if f.suffix == ".png"}  # README's
    files = {f for f in ours if f.parent.name != "__pycache__"} - pictures
    assert {"edgesweep/py.typed", *(f"edgesweep/{file}" for file in files)} <= names


@pytest.mark.proof
def test_smoke_runs_beside_a_users_own_modules(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in THEIRS:
        (folder / f"{name}.py").write_text("raise SystemExit('this is not yours')\n")
    where = [python, "-c", "import edgesweep; print(edgesweep.__file__)"]
    found = _run(where, folder)
    assert Path(found.stdout).is_relative_to(python.parents[1])
    done = _run([python.with_name("edgesweep"), "run", "smoke"], folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/smoke/report.html").is_file()


def _run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """In a folder from which Python takes modules, too."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_nothing_imports_the_parts_by_their_bare_names() -> None:
    files = [
        f for part in ("edgesweep/__init__.py", *PARTS, "tests", "benchmarks") for f in _files(part)
    ]
    bare = [f"{file}: {name}" for file in files for name in _imported(file) if name in PARTS]
    assert len(files) > 200
    assert not bare


def _files(part: str) -> Iterator[Path]:
    path = ROOT / part
    yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def _imported(file: Path) -> Iterator[str]:
    """The top-level packages that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
