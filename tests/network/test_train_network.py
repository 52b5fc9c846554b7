"""Training feed-forward networks: digits are learnt, a seed gives the same bytes, one command."""

import json
import sys

import numpy as np
import pytest
import torch

from edgesweep.engine.dictionaries import load_dictionary
from edgesweep.engine.features import FeatureModel
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network.feedforward_net import FeedForwardConfig
from edgesweep.engine.training import (
    Baseline,
    NetworkTraining,
    Training,
    accuracy,
    activations,
    spliced_losses,
    train_network,
)
from edgesweep.sweeps.command.cli import main
from edgesweep.sweeps.command.train import Request, train_dictionary
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.progress import make_progress
from edgesweep.tasks import labelled

QUICK = NetworkTraining(epochs=40, lr=5e-3)


def asked(out, **changes) -> ModelRequest:
    given = {"task": "digits", "channels": (), "hidden": (32,), "activation": "relu", "how": QUICK}
    return ModelRequest(**{**given, "out": out, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "digits"
    return folder, train_model(asked(folder), make_progress())


@pytest.mark.parametrize("channels", [(), (8,)])
def test_digits_are_learnt(channels, trained, tmp_path):
    report = train_model(asked(tmp_path / "m", channels=channels), make_progress())
    assert report["test_accuracy"] > 0.93
    model = load_model(resolve_model(str(tmp_path / "m")))
    _, test = labelled("digits")
    x = torch.tensor([e.clean for e in test])
    right = model.run(model.prepare(x, torch.ones(len(x), 1, dtype=torch.bool))).logits.argmax(-1)
    assert np.mean(right.numpy() == [e.good[0] for e in test]) == report["test_accuracy"]
    told = json.loads((tmp_path / "m" / "training.json").read_text())
    losses = told.pop("loss_curve")
    assert told == report
    assert len(losses) == QUICK.epochs
    assert losses[-1] < losses[0] / 4


class Stopped(Exception):
    pass


class StopsAt:
    """A progress that stops the training when it says so many epochs."""

    def __init__(self, epoch: int) -> None:
        self._word = f"epoch {epoch} "

    def say(self, text: str) -> None:
        if text.startswith(self._word):
            raise Stopped


def test_what_was_stopped_goes_on_and_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("edgesweep.engine.training.unfinished.EVERY_S", 0.0)
    given = {"how": NetworkTraining(epochs=6), "checkpoints": (0, 4)}
    whole, out = (
        asked(tmp_path / name / "m", **given, channels=(3,), kernel=(5,)) for name in "ab"
    )
    report = train_model(whole, make_progress())
    for epoch in (3, 5):
        with pytest.raises(Stopped):
            train_model(out, StopsAt(epoch))
        beside = sorted(p.name for p in out.out.parent.iterdir())
        assert beside == [".m.steps", ".m.unfinished"]
    with pytest.raises(ConfigError, match=r"\.m\.unfinished is an unfinished training with other"):
        train_model(asked(out.out, how=NetworkTraining(epochs=6)), make_progress())
    assert train_model(out, StopsAt(4)) == report  # which is behind it
    assert [p.name for p in out.out.parent.iterdir()] == ["m"]
    files = [p.relative_to(whole.out) for p in whole.out.rglob("*") if p.is_file()]
    assert {str(f.parent) for f in files} == {".", "step-000000", "step-000004"}
    for file in files:
        assert (out.out / file).read_bytes() == (whole.out / file).read_bytes(), file
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".m.unfinished").write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"\.m\.unfinished cannot be read .*delete it"):
        train_model(asked(tmp_path / "c" / "m"), make_progress())


def test_a_seed_gives_the_same_bytes_whatever_the_threads(trained, tmp_path):
    folder, report = trained
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    again = train_model(asked(tmp_path / "again"), make_progress())
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    assert again == report
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    other = train_model(asked(tmp_path / "o", how=NetworkTraining(2, seed=1)), make_progress())
    assert other["test_accuracy"] != report["test_accuracy"]


def test_training_leaves_the_generator_alone():
    x, labels = torch.randn(8, 4), torch.arange(8) % 2
    before = torch.get_rng_state()
    config = FeedForwardConfig(input_shape=(4,), hidden=(), n_output=2)
    net, losses = train_network(config, x, labels, NetworkTraining(epochs=200, lr=0.1))
    assert torch.equal(torch.get_rng_state(), before)
    assert accuracy(net, x, labels) > 0.5
    assert len(losses) == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ioi"}, "task ioi is no task of arrays; use digits"),
        ({"activation": "tanh"}, "activation is 'tanh'; allowed: relu, gelu, linear"),
        ({"channels": (4, 4, 4, 4)}, "a convolution of 4 channels leaves nothing of 1×1"),
        ({"channels": (4, 4, 4), "kernel": (3, 5)}, r"kernel_size is \(3, 5\), of 3 convolutions"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train_model(asked(tmp_path / "m", **change), make_progress())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_written_over(trained):
    with pytest.raises(ConfigError, match="is there already; name a new folder"):
        train_model(asked(trained[0]), make_progress())


def test_a_dictionary_of_its_neurons(trained, tmp_path):
    """PCA of the hidden layer: what the network says is kept."""
    folder, _ = trained
    out = tmp_path / "axes.safetensors"
    how = Training("pca", seed=0)
    request = Request(str(folder), "hidden0", how, ("digits",), None, 200, out)
    report = train_dictionary(request, make_progress())
    assert report["variance_explained"] > 0.999
    assert report["loss_recovered"] == pytest.approx(1.0, abs=1e-3)
    assert report["loss_median"] > report["loss_clean"] + 0.5
    model, found = load_model(resolve_model(str(folder))), load_dictionary(str(out), d_model=32)
    assert FeatureModel(model, {"hidden0": found}).width("hidden0") == 32


def test_losses_of_arrays_are_of_what_the_network_says(trained):
    model = load_model(resolve_model(str(trained[0])))
    texts = [e.clean for e in labelled("digits")[1]][:50]
    x = activations(model, "hidden0", texts)
    logits = model.unembed(x)
    expected = torch.nn.functional.cross_entropy(logits, logits.argmax(-1))
    whole = FeatureModel(model, {"hidden0": load_dictionary("identity", d_model=32)})
    found = spliced_losses(model, "hidden0", whole.dictionary("hidden0"), texts, Baseline.of(x))
    assert found["loss_clean"] == pytest.approx(float(expected), rel=1e-5)
    assert found["loss_spliced"] == pytest.approx(found["loss_clean"], rel=1e-5)


def command(monkeypatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["edgesweep", "train", "model", *options])
    main()


def test_the_command(tmp_path, monkeypatch, capsys):
    options = ["--hidden", "8", "--kind", "cnn", "--channels", "2", "--epochs", "1"]
    command(monkeypatch, *options, "--out", str(tmp_path / "m"))
    assert '"test_accuracy":' in capsys.readouterr().out
    assert resolve_model(str(tmp_path / "m")).sites.names == ("input", "conv0", "hidden0")
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "--hidden", "8,x", "--out", str(tmp_path / "n"))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: --hidden: '8,x' is no list of sizes; write them as 64,32\n"
