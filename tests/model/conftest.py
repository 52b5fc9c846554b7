"""What tests of models share."""

from fnmatch import fnmatch

import huggingface_hub
import pytest


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose repositories are folders; downloads hold what the patterns ask for only."""
    root, asked = tmp_path / "hub", []

    def snapshot(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        if not (root / repo).is_dir():
            raise OSError(f"404: {repo} is private or missing\nsee the manual")
        local = tmp_path / f"cache{len(asked)}"
        local.mkdir()
        for path in (root / repo).rglob("*"):
            name = path.relative_to(root / repo).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (local / name).parent.mkdir(parents=True, exist_ok=True)
                (local / name).write_bytes(path.read_bytes())
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    return root, asked
