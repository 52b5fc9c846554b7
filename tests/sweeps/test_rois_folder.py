"""Regions of interest of a folder of one's own images."""

from __future__ import annotations

import numpy as np
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.engine.training import NetworkTraining
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.progress import Silence

PETS = """
name: pets
sweep: {{model: {model}, task: ./pets/, nodes: rois, method: node_ig, steps: 5, build_patch: zero}}
rois: {{partition: [sbm, random], chains: 1, draws: 2, judge: false}}
evaluate: {{eval_patch: [zero, mean]}}
data: {{n_build: 32, n_eval: 8}}
report: {{published: {{source: me, ablate: [[0, 1], [1, 0.5]], own_class: [0, 0.5]}}}}
execution: {{executor: serial}}
"""


def test_a_folder_of_one_s_own_images_makes_a_page(tmp_path, monkeypatch):
    """Two classes by name; a few lines of YAML; the page calls them by it."""
    image = pytest.importorskip("PIL.Image", reason="the extra edgesweep[vision] is not installed")
    noise = np.random.default_rng(0)
    for number in range(40):
        pixels = noise.integers(0, 90, (6, 6)).astype(np.uint8)
        pixels[:, :3] += 150 * (number % 2)  # cats are bright on the left
        file = tmp_path / "pets" / ("dog", "cat")[number % 2] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(file)
    monkeypatch.chdir(tmp_path)
    how = NetworkTraining(epochs=20, lr=5e-3)
    request = ModelRequest("./pets/", (3,), (), "relu", how, tmp_path / "pets-cnn")
    assert train_model(request, Silence())["test_accuracy"] > 0.5
    (tmp_path / "pets.yaml").write_text(PETS.format(model="./pets-cnn"))
    assert drive(start(load_config("pets.yaml"), tmp_path / "run"), Silence()).exit_code == 0
    page = render(load_run(tmp_path / "run"))
    assert '"cat"' in page
    assert "Open circles: me." in page
    (tmp_path / "pets" / "cat" / "01.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"sweep.task: \S+/01.png: no image can be read"):
        resolve(load_config("pets.yaml"))
