"""`edgesweep train dictionary` as a stranger meets it: from a model to a file, or one line."""

import json
import re
from pathlib import Path

import pytest
import torch

from edgesweep.engine.dictionaries import Linear, Relu, TopK, load_dictionary
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.training import Baseline, activations, fit_of, spliced_losses
from edgesweep.sweeps.command import train
from edgesweep.sweeps.progress import Silence
from tests.sweeps.test_cli import command

torch.set_num_threads(1)
SMALL = (
    *("--model", "tiny-random", "--features", "48", "--k", "4"),
    *("--steps", "40", "--batch", "64", "--prompts", "24"),
)
KINDS = {"topk": TopK, "relu": Relu, "pca": Linear}
FIGURES = {
    *("variance_explained", "l0", "dead_share", "positions", "sinks"),
    *("loss_clean", "loss_spliced", "loss_median", "loss_recovered"),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGESWEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def edgesweep(monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        return command(monkeypatch, capsys, "train", "dictionary", *SMALL, *arguments)

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["embed", "attn1", "mlp0", "resid3"])
def test_from_a_model_to_a_file(kind, site, edgesweep, here):
    code, out, error = edgesweep("--site", site, "--kind", kind, "--out", "new/it.safetensors")
    assert (code, error) == (0, "")
    assert sorted(p.name for p in here.rglob("*")) == [
        "it.safetensors",
        "it.safetensors.json",
        "new",
    ]
    width = resolve_model("tiny-random").sizes.d_model
    found = load_dictionary("new/it.safetensors", d_model=width)
    assert type(found) is KINDS[kind]
    assert (found.d_model, found.n_features) == (width, width if kind == "pca" else 48)
    report = json.loads((here / "new/it.safetensors.json").read_text())
    assert report["digest"] == found.digest
    assert report["features"] == found.n_features
    assert report.keys() >= {*FIGURES, "site", "kind", "texts", "tokens", "tokens_held_out", "seed"}
    assert out.splitlines()[-1] == "new/it.safetensors"
    assert '"variance_explained": ' in out.splitlines()[-2]
    if kind != "pca":
        assert re.search(r"step 1 of 40: loss \d", out)
        assert re.search(r"step 40 of 40: loss \d", out)


def test_the_report_is_of_texts_that_were_held_out(edgesweep, here, monkeypatch):
    """Its figures again, from the file that was written and the texts themselves."""
    seen = []
    real = train._train
    monkeypatch.setattr(train, "_train", lambda *given: seen.append(given) or real(*given))
    assert edgesweep("--site", "resid1", "--out", "it.safetensors")[0] == 0
    _, _, kept, held, _ = seen[0]
    assert not set(kept) & set(held)
    assert 0.05 < len(held) / (len(held) + len(kept)) < 0.15
    model = load_model(resolve_model("tiny-random"))
    found = load_dictionary("it.safetensors", d_model=model.d_model)
    report = json.loads((here / "it.safetensors.json").read_text())
    x, baseline = (
        activations(model, "resid1", held),
        Baseline.of(activations(model, "resid1", kept)),
    )
    losses = spliced_losses(model, "resid1", found, held, baseline)
    expected = vars(fit_of(found, x, baseline)) | losses
    assert expected.keys() == FIGURES
    for name, value in expected.items():
        assert report[name] == (None if value is None else pytest.approx(value, rel=1e-5)), name
    assert (report["tokens"], report["tokens_held_out"]) == (sum(map(len, kept)), len(x))
    assert report["texts"] == "ioi+greater_than+agreement"


def test_the_same_command_gives_the_same_bytes(edgesweep, here):
    site = ("--site", "resid1")
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert edgesweep(*site, "--seed", seed, "--out", f"{name}.safetensors")[0] == 0
    a, b, c = ((here / f"{n}.safetensors").read_bytes() for n in "abc")
    assert a == b
    assert a != c
    reports = [(here / f"{n}.safetensors.json").read_bytes() for n in "ab"]
    assert reports[0] == reports[1]


def test_lines_of_a_text_file(edgesweep, here, monkeypatch):
    """Blank and repeated lines, a byte order mark, and lines longer than what is read."""
    words = ["When", "Mary", "and", "John", "went", "to", "the", "store"]
    lines = [" ".join(words[i % 8 :] + words[: i // 8 + 1]) for i in range(60)]
    text = "\ufeff" + "\n".join([*lines, "", "   ", lines[0], "and " * 500])
    (here / "my.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(train, "CONTEXT", 12)
    seen = []
    real = train._train
    monkeypatch.setattr(train, "_train", lambda *given: seen.append(given) or real(*given))
    code, _, error = edgesweep("--site", "resid1", "--text", "my.txt", "--out", "it.safetensors")
    assert (code, error) == (0, "")
    _, _, kept, held, _ = seen[0]
    tokenizer = resolve_model("tiny-random").tokenizer()
    expected = [tuple(tokenizer(line)["input_ids"][:12]) for line in [*lines, "and " * 500]]
    assert sorted(kept + held) == sorted(set(expected))
    assert json.loads((here / "it.safetensors.json").read_text())["texts"] == "my.txt"


BAD = {
    "site": (["--site", "resid4"], "'resid4' is no site; sites are embed, and attn0, mlp0, resid0"),
    "kind": (["--kind", "gated"], "kind 'gated' cannot be trained; allowed: topk, relu, pca"),
    "k": (["--k", "49"], "k is 49 of 48 features; allowed: 1 to all"),
    "no k": (["--k", "0"], "Invalid value for '--k'"),
    "rate": (["--lr", "nan"], "Invalid value for '--lr'"),
    "steps": (["--steps", "0"], "Invalid value for '--steps'"),
    "model": (["--model", "no-such-model"], "model 'no-such-model': no alias"),
    "task": (["--tasks", "nope"], "unknown task 'nope'"),
    "few": (["--prompts", "2", "--tasks", "ioi"], "different texts are too few; give 20 or more"),
    "file": (["--text", "missing.txt"], "--text: missing.txt cannot be read: "),
    "bytes": (["--text", "bytes.txt"], "--text: bytes.txt cannot be read: "),
    "empty": (["--text", "empty.txt"], "0 different texts are too few"),
    "suffix": (["--out", "it.pt"], "--out: 'it.pt' must end in .safetensors"),
    "folder": (["--out", "a.safetensors"], "--out: a.safetensors is a folder; name a file in it"),
    "below a file": (["--out", "empty.txt/x/it.safetensors"], "empty.txt is a file; choose"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_one_line_and_write_nothing(case, edgesweep, here):
    (here / "empty.txt").write_text("\n\n")
    (here / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (here / "a.safetensors").mkdir()
    before = sorted(here.rglob("*"))
    arguments, message = BAD[case]
    code, out, error = edgesweep("--site", "resid1", "--out", "it.safetensors", *arguments)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert out == ""
    assert sorted(here.rglob("*")) == before


def test_a_model_without_a_tokenizer_takes_no_text(edgesweep, here):
    tiny_model("gpt2").hf.save_pretrained(here / "mine")
    (here / "my.txt").write_text("a b c\n")
    code, _, error = edgesweep(
        "--model", "./mine", "--site", "resid1", "--text", "my.txt", "--out", "it.safetensors"
    )
    assert code == 2
    assert "--text: model './mine' has no tokenizer" in error
    assert not (here / "it.safetensors").exists()


def test_a_disk_that_fails_at_the_end_leaves_no_half_file(edgesweep, here, monkeypatch):
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgesweep.storage.atomic.os.replace", full)
    code, _, error = edgesweep("--site", "resid1", "--out", "it.safetensors")
    assert code == 1
    assert "cannot write it.safetensors: the disk is full; free space there" in error
    assert list(here.iterdir()) == []


def test_old_files_are_replaced_whole(edgesweep, here):
    (here / "it.safetensors").write_text("old")
    assert edgesweep("--site", "resid1", "--out", "it.safetensors")[0] == 0
    assert load_dictionary("it.safetensors", d_model=32).kind == "topk"


def test_a_run_takes_what_was_trained(edgesweep, here):
    """The path from a model to a feature graph has no gap."""
    from tests.sweeps.helpers import run_tiny, tiny

    assert edgesweep("--site", "resid1", "--out", "it.safetensors")[0] == 0
    raw = tiny(
        sweep={"nodes": "features", "method": ["ig_activations"], "steps": 1},
        features={"dictionaries": {"resid1": str(here / "it.safetensors")}, "keep": 200},
        evaluate={"metric": ["logit_diff"], "threshold": [20]},
    )
    assert run_tiny(here / "run", raw).exit_code == 0


def test_progress_can_be_silent(here):
    how = train.Training("topk", 16, k=2, steps=2, batch=8)
    request = train.Request(
        "tiny-random", "resid0", how, ("ioi",), None, 24, here / "it.safetensors"
    )
    report = train.train_dictionary(request, Silence())
    assert report["kind"] == "topk"
    assert json.loads(train.told(report))["site"] == "resid0"
