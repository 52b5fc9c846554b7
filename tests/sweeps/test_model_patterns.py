"""Models that are named by a pattern, such as the checkpoints of a training."""

from pathlib import Path

import pytest

from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config

NAMES = ("step-900", "step-1000", "step-000020")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    for name in NAMES:
        (tmp_path / "[1] grok" / name).mkdir(parents=True)
    (tmp_path / "[1] grok" / "step-file").touch()
    monkeypatch.chdir(tmp_path / "[1] grok")
    return tmp_path / "[1] grok"


def models(*given: str) -> list[str]:
    config = load_config({"name": "x", "sweep": {"model": list(given)}})
    return [Path(name).name for name in config.sweep.model]


def test_folders_are_in_the_order_of_their_numbers(here):
    """Also where the folder that a pattern is relative to has a name like one."""
    in_order = ["step-000020", "step-900", "step-1000"]
    assert models("./step-*") == in_order
    assert models(f"{here.parent}/*grok/step-*") == in_order
    assert models("./step-?00", "tiny-random") == ["step-900", "tiny-random"]
    assert models(f"{here}/step-900") == ["step-900"]


def test_a_pattern_that_matches_nothing_is_refused(here):
    message = rf"sweep.model: './step-x\*' matches no folder of .*{here.name[4:]}; give the folders"
    with pytest.raises(ConfigError, match=message):
        models("./step-x*")
