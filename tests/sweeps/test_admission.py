"""A worker looks whether it is where it should be: another folder of the same name, other versions,
a disk that the driver does not see."""

import shutil
from dataclasses import replace

import pytest

from edgesweep.storage import CommitLog
from edgesweep.sweeps.actor.admission import WrongPlace, check_place, check_seen
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start, worker_settings
from tests.sweeps.helpers import tiny


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    return start(parse_config(tiny()), tmp_path_factory.mktemp("admission") / "run")


@pytest.fixture
def settings(launch):
    """What workers are told while a driver is at work."""
    with CommitLog(launch.run).driving(take_over=True):
        yield worker_settings(launch.plan, launch.run)


def test_a_worker_in_its_place_is_seen_and_leaves_nothing(settings, launch):
    before = set(launch.run.path.iterdir())
    seen = check_place(settings)
    check_seen(launch.run, seen)
    assert set(launch.run.path.iterdir()) == before


def test_a_folder_of_that_name_is_told_from_the_run(settings, launch, tmp_path):
    empty, copy = tmp_path / "empty", tmp_path / "copy"
    empty.mkdir()
    with pytest.raises(WrongPlace, match="is not there, or not the run"):
        check_place(replace(settings, run=empty))
    shutil.copytree(launch.run.path, copy)
    check_place(replace(settings, run=copy))
    with (
        CommitLog(launch.run.open(copy)).driving(take_over=True),
        pytest.raises(WrongPlace, match="is another folder of that name than the driver's"),
    ):
        check_place(replace(settings, run=copy))


def test_what_the_driver_does_not_see_is_no_place(settings, launch, tmp_path, monkeypatch):
    """A copy has all that the run has, and its own disk."""
    monkeypatch.setattr("edgesweep.sweeps.actor.admission.SEEN_WITHIN_S", 0.3)
    copy = tmp_path / "copy"
    shutil.copytree(launch.run.path, copy)
    seen = check_place(replace(settings, run=copy))
    with pytest.raises(WrongPlace, match="is not seen by the driver"):
        check_seen(launch.run, seen)


def test_other_versions_are_no_place(settings):
    versions = {**settings.versions, "torch": "1.0"}
    with pytest.raises(WrongPlace, match=r"torch is \S+ here, and 1.0 where the driver runs"):
        check_place(replace(settings, versions=versions))
