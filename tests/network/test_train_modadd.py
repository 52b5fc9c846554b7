"""Training the modular-addition transformer: its file is as the published ones, a seed gives the
same bytes also in two goes, the file says what the network says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.training.modadd import Modadd, ModaddNet, right, splits
from edgesweep.engine.training.unfinished import Unfinished
from edgesweep.sweeps.command.cli import main
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.training.folders import steps_of
from edgesweep.sweeps.training.modadd import ModaddRequest, train_sums
from edgesweep.tasks import TaskError, build_task
from edgesweep.tasks.modadd import TrainedOn

SMALL = Modadd(p=7, d_model=16, n_heads=4, d_mlp=32, share=0.6, steps=60)
WAY = steps_of("every 20", 60)
PUBLISHED = Path(__file__).parents[3] / "shared/data/modadd/seed0/model.safetensors"
#: of the published networks, with p = 113, d_model 128, heads of 32, d_mlp 512
SHAPES = {
    "blocks.0.attn.IGNORE": (),
    **{f"blocks.0.attn.W_{port}": (4, 128, 32) for port in "QKV"},
    **{f"blocks.0.attn.b_{port}": (4, 32) for port in "QKV"},
    "blocks.0.attn.W_O": (4, 32, 128),
    "blocks.0.attn.b_O": (128,),
    "blocks.0.attn.mask": (3, 3),
    "blocks.0.mlp.W_in": (128, 512),
    "blocks.0.mlp.W_out": (512, 128),
    "blocks.0.mlp.b_in": (512,),
    "blocks.0.mlp.b_out": (128,),
    "embed.W_E": (114, 128),
    "pos_embed.W_pos": (3, 128),
    "unembed.W_U": (128, 114),
    "unembed.b_U": (114,),
}


class Stopped(Exception):
    pass


class StopsAt:
    """A progress that stops the training when it says so many steps."""

    def __init__(self, step: int) -> None:
        self._word = f"step {step} "

    def say(self, text: str) -> None:
        if text.startswith(self._word):
            raise Stopped


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "sums"
    return out, train_sums(ModaddRequest(SMALL, out, WAY), Silence())


def test_names_and_shapes_are_the_published(tmp_path):
    out = tmp_path / "m"
    how = Modadd(p=113, d_model=128, d_mlp=512, share=0.001, steps=1)
    train_sums(ModaddRequest(how, out), Silence())
    found = load_file(out / "model.safetensors")
    assert {name: tuple(w.shape) for name, w in found.items()} == SHAPES
    assert found["blocks.0.attn.mask"].tolist() == np.tri(3, dtype=bool).tolist()


def slow_logits(w: dict[str, torch.Tensor], tokens: list[int]) -> torch.Tensor:
    """Head by head and position by position, from the file."""
    x = [w["embed.W_E"][t] + w["pos_embed.W_pos"][i] for i, t in enumerate(tokens)]
    out = x[-1] + w["blocks.0.attn.b_O"]
    at = "blocks.0.attn."
    for h in range(len(w[f"{at}W_Q"])):
        q = x[-1] @ w[f"{at}W_Q"][h] + w[f"{at}b_Q"][h]
        keys = [v @ w[f"{at}W_K"][h] + w[f"{at}b_K"][h] for v in x]
        values = [v @ w[f"{at}W_V"][h] + w[f"{at}b_V"][h] for v in x]
        pattern = torch.stack([q @ k / len(q) ** 0.5 for k in keys]).softmax(0)
        read = sum(p * v for p, v in zip(pattern, values, strict=True))
        out = out + read @ w[f"{at}W_O"][h]
    mlp = "blocks.0.mlp."
    hidden = (out @ w[f"{mlp}W_in"] + w[f"{mlp}b_in"]).relu()
    out = out + hidden @ w[f"{mlp}W_out"] + w[f"{mlp}b_out"]
    return out @ w["unembed.W_U"] + w["unembed.b_U"]


def test_the_file_says_what_the_network_says(trained):
    out, report = trained
    weights = {k: v.double() for k, v in load_file(out / "model.safetensors").items()}
    for split, key in zip(splits(7, 0.6), ("train_accuracy", "test_accuracy"), strict=True):
        told = [int(slow_logits(weights, t).argmax()) for t in split.tokens.tolist()]
        assert np.mean(np.array(told) == split.sums.numpy()) == report[key]
        assert (split.tokens[:, :2].sum(1) % 7 == split.sums).all()
        assert (split.tokens[:, 2] == 7).all()
    told = json.loads((out / "training.json").read_text())
    assert len(told.pop("loss_curve")) == 60
    assert told == report


def test_it_is_a_model_of_a_sweep(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path))
    weights = load_file(trained[0] / "model.safetensors")
    model = load_model(resolve_model(str(trained[0])))
    own = resolve_model(str(trained[0])).path
    data = build_task("modadd", None, 29, 20, 0, n_vocab=8, own=own)
    for split, asked in zip(splits(7, 0.6), (data.build, data.evaluation), strict=True):
        assert split.tokens.tolist() == [list(e.clean) for e in asked]
    batch = PromptBatch.make(data.evaluation)
    inputs = model.prepare(batch.clean, batch.real)
    logits = model.run(inputs).logits
    for row, example in zip(logits, data.evaluation, strict=True):
        expected = slow_logits(weights, list(example.clean))
        assert row.numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    raw = {"name": "x", "sweep": {"model": "./sums/step-*", "task": "modadd"}}
    (tmp_path / "sums").symlink_to(trained[0])
    monkeypatch.chdir(tmp_path)
    steps = load_config(raw).sweep.model
    assert [Path(step).name for step in steps] == [f"step-{n:06d}" for n in WAY]
    for step in steps:
        assert TrainedOn.of(resolve_model(step).path) == TrainedOn(0.6, 0)


def test_networks_on_the_way_are_folders(trained):
    out, _ = trained
    names = sorted(p.name for p in out.iterdir() if p.is_dir())
    assert names == ["step-000000", "step-000020", "step-000040", "step-000060"]
    last = (out / "step-000060" / "model.safetensors").read_bytes()
    assert last == (out / "model.safetensors").read_bytes()
    assert last != (out / "step-000040" / "model.safetensors").read_bytes()


def test_what_was_stopped_goes_on_and_gives_the_same_bytes(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("edgesweep.engine.training.unfinished.EVERY_S", 0.0)
    request = ModaddRequest(SMALL, tmp_path / "sums", WAY)
    with pytest.raises(Stopped):
        train_sums(request, StopsAt(30))
    assert train_sums(request, Silence()) == trained[1]
    assert [p.name for p in tmp_path.iterdir()] == ["sums"]
    for file in (p for p in trained[0].rglob("*") if p.is_file()):
        assert (request.out / file.relative_to(trained[0])).read_bytes() == file.read_bytes()


def test_the_split_is_the_published_one():
    order = torch.randperm(49, generator=torch.Generator().manual_seed(0))
    train, test = splits(7, 0.3)
    assert (train.tokens[:, 0] * 7 + train.tokens[:, 1]).tolist() == order[:14].tolist()
    assert len(test.sums) == 35


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published networks are not here")
def test_a_published_network_makes_its_published_errors():
    net = ModaddNet(Modadd(p=113, d_model=128, d_mlp=512))
    net.load_state_dict(load_file(PUBLISHED))
    _, test = splits(113, 0.3)
    assert round((1 - right(net, test)) * len(test.sums)) == 4


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("every 25", (0, 25, 50, 60)),
        ("60, 0,5", (0, 5, 60)),
        ("at 5", (5,)),
    ],
)
def test_checkpoints_are_named(text, steps):
    assert steps_of(text, 60) == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("every", "--checkpoints: 'every' names no steps; allowed: 'every 500', or '0,100,1000'"),
        ("1,x", "--checkpoints: '1,x' names no steps"),
        ("every 0", "of a training of 60 steps; allowed: every 1 or more"),
        ("0,61", "--checkpoints: '0,61' of a training of 60 steps; allowed: 0 to 60"),
    ],
)
def test_checkpoints_that_cannot_be_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        steps_of(text, 60)


def test_what_a_network_was_trained_on_must_be_a_share(tmp_path):
    (tmp_path / "config.json").write_text('{"trained_on": {"share": 1.5, "seed": 0}}')
    with pytest.raises(TaskError, match=r"has trained_on \{'share': 1.5, 'seed': 0\}; allowed:"):
        build_task("modadd", None, 1, 1, 0, n_vocab=8, own=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 30}, "d_model 30 is no multiple of 4 heads"),
        ({"share": 1.0}, r"share is 1\.0 of 49 pairs; some must be trained on, and some not"),
        ({"share": 0.001}, "some must be trained on"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Modadd(**{"p": 7, **change})


def test_a_file_of_other_settings_is_refused(tmp_path):
    net = torch.nn.Linear(1, 1)
    Unfinished(tmp_path / "x", "one", every_s=0).keep([0.5], net)
    assert Unfinished(tmp_path / "x", "one").restore(net) == [0.5]
    with pytest.raises(ValueError, match="is an unfinished training with other settings"):
        Unfinished(tmp_path / "x", "two").restore(net)


def test_the_command(tmp_path, monkeypatch, capsys):
    given = ["--task", "modadd", "--p", "7", "--d-model", "16", "--d-mlp", "16", "--steps", "20"]
    out = ["--out", str(tmp_path / "m")]
    monkeypatch.setattr(sys, "argv", ["edgesweep", "train", "model", *given, *out])
    main()
    said = capsys.readouterr().out
    assert "24 sums to train on, 25 held out" in said
    assert "step 20 of 20: loss" in said
    assert '"test_accuracy":' in said
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "is there already; name a new folder" in capsys.readouterr().err
    bad = ["--d-model", "30", "--out", str(tmp_path / "n")]
    monkeypatch.setattr(sys, "argv", ["edgesweep", "train", "model", *given, *bad])
    with pytest.raises(SystemExit):
        main()
    assert "d_model 30 is no multiple of 4 heads" in capsys.readouterr().err


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; choose another folder"):
        train_sums(ModaddRequest(SMALL, tmp_path / "file" / "m"), Silence())


@pytest.mark.proof
def test_it_groks(tmp_path):
    """The default: all that it was trained on is known by heart long before the others are told."""
    report = train_sums(ModaddRequest(Modadd(), tmp_path / "m", (2000,)), Silence())
    assert report["train_accuracy"] == 1.0
    assert report["test_accuracy"] > 0.98
    early = load_file(tmp_path / "m" / "step-002000" / "model.safetensors")
    net = ModaddNet(Modadd())
    net.load_state_dict(early)
    train, test = splits(29, Modadd().share)
    assert right(net, train) == 1.0
    assert right(net, test) < 0.5
