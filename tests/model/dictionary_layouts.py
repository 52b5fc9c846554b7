"""Layouts of dictionaries on disk, written by hand, each with its own formula in numpy loops.

What the libraries call their tensors and how they use them was read in dictionary_learning
(`dictionary.py`, `trainers/`) and SAELens (`saes/`, `loading/`).
"""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from edgesweep.engine.dictionaries import Dictionary

WIDTH, FEATURES, K, LEVEL = 5, 9, 2, 0.4
draw = np.random.default_rng(0)
ENC = draw.normal(size=(FEATURES, WIDTH))
DEC = draw.normal(size=(FEATURES, WIDTH))
UNIT = DEC / np.sqrt((DEC**2).sum(1, keepdims=True))
H, G, M, S = (draw.normal(size=FEATURES) for _ in range(4))
LEVELS = np.abs(draw.normal(size=FEATURES))
B = draw.normal(size=WIDTH)
X = draw.normal(size=(60, WIDTH))
NORMS = np.sqrt((DEC**2).sum(1))

Slow = Callable[[np.ndarray], list[float]]


# --- formulas, one feature of one position -----------------------------------------------------
def before(x: np.ndarray, shift: np.ndarray = H, *, centred: bool = True) -> list[float]:
    """What a feature's activation starts from."""
    found = []
    for j in range(FEATURES):
        total = shift[j]
        for i in range(WIDTH):
            total += ENC[j, i] * (x[i] - (B[i] if centred else 0.0))
        found.append(total)
    return found


def relu(*, centred: bool = True, norms: np.ndarray | None = None) -> Slow:
    scale = np.ones(FEATURES) if norms is None else norms
    return lambda x: [
        max(a, 0.0) * n for a, n in zip(before(x, centred=centred), scale, strict=True)
    ]


def threshold(levels: np.ndarray, *, centred: bool) -> Slow:
    return lambda x: [
        max(a, 0.0) if a > level else 0.0
        for a, level in zip(before(x, centred=centred), levels, strict=True)
    ]


def topk(*, centred: bool = True, norms: np.ndarray | None = None) -> Slow:
    def features(x: np.ndarray) -> list[float]:
        scale = np.ones(FEATURES) if norms is None else norms
        values = [a * n for a, n in zip(before(x, centred=centred), scale, strict=True)]
        best = sorted(range(FEATURES), key=lambda j: -values[j])[:K]
        return [max(values[j], 0.0) if j in best else 0.0 for j in range(FEATURES)]

    return features


def gated(*, centred: bool = True) -> Slow:
    def features(x: np.ndarray) -> list[float]:
        dots = before(x, np.zeros(FEATURES), centred=centred)
        return [
            max(np.exp(S[j]) * dots[j] + M[j], 0.0) if dots[j] + G[j] > 0 else 0.0
            for j in range(FEATURES)
        ]

    return features


def decoded(f: list[float], decoder: np.ndarray) -> list[float]:
    return [B[i] + sum(f[j] * decoder[j, i] for j in range(FEATURES)) for i in range(WIDTH)]


# --- layouts ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """Tensors and config of a folder, and what they mean.

    Attributes:
        numbers: "ae.pt" or "sae_weights.safetensors".
        config: its name follows from `numbers`; None: there is none.
    """

    numbers: str
    tensors: dict[str, np.ndarray]
    config: dict | None
    kind: str
    slow: Slow
    decoder: np.ndarray = field(default_factory=lambda: DEC)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        state = {n: torch.from_numpy(np.array(t, order="C")) for n, t in self.tensors.items()}
        state = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
        if self.numbers == "ae.pt":
            torch.save(state, folder / self.numbers)
        else:
            save_file(state, folder / self.numbers)
        if self.config is not None:
            name = "config.json" if self.numbers == "ae.pt" else "cfg.json"
            (folder / name).write_text(json.dumps(self.config))
        return folder


MODULES = {"encoder.weight": ENC, "encoder.bias": H, "decoder.weight": DEC.T}
MATRICES = {"W_enc": ENC.T, "b_enc": H, "W_dec": DEC, "b_dec": B}
GATED = {"W_enc": ENC.T, "W_dec": DEC, "b_dec": B, "b_gate": G, "b_mag": M, "r_mag": S}
COUNT, LEARNED, UNLEARNED = np.array(K, dtype=np.int32), np.array(LEVEL), np.array(-1.0)
TOPK = {**MODULES, "b_dec": B, "k": COUNT}


def trainer(name: str, **keys) -> dict:
    """As dictionary_learning writes it beside ae.pt."""
    told = {"dict_class": name, "activation_dim": WIDTH, "dict_size": FEATURES, **keys}
    return {"trainer": told, "buffer": {"ctx_len": 128, "d_submodule": WIDTH}}


def saelens(architecture: str, **keys) -> dict:
    """As SAELens 6 writes it."""
    return {
        "architecture": architecture,
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": "pythia", "hook_name": "blocks.1.hook_resid_post"},
        **keys,
    }


def old_saelens(**keys) -> dict:
    """As SAELens 3 to 5 did."""
    return {
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "dtype": "float32",
        "model_name": "gpt2",
        "hook_name": "blocks.1.hook_resid_pre",
        "activation_fn_str": "relu",
        "activation_fn_kwargs": {},
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "normalize_activations": "none",
        **keys,
    }


WEIGHTS = "sae_weights.safetensors"
TOPK_OLD = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
LAYOUTS = {
    # dictionary_learning
    "marks": Layout(
        "ae.pt",
        {**MODULES, "decoder.weight": UNIT.T, "bias": B},
        None,
        "relu",
        relu(),
        UNIT,
    ),
    "relu-any-norm": Layout(
        "ae.pt",
        {**MODULES, "bias": B},
        trainer("AutoEncoder"),
        "relu",
        relu(norms=NORMS),
        UNIT,
    ),
    "relu-april": Layout(
        "ae.pt",
        {**MODULES, "decoder.bias": B},
        trainer("AutoEncoderNew"),
        "relu",
        relu(centred=False),
    ),
    "gated": Layout(
        "ae.pt",
        {
            "decoder_bias": B,
            "r_mag": S,
            "gate_bias": G,
            "mag_bias": M,
            "encoder.weight": ENC,
            "decoder.weight": DEC.T,
        },
        trainer("GatedAutoEncoder"),
        "gated",
        gated(),
    ),
    "jumprelu": Layout(
        "ae.pt",
        {**MATRICES, "threshold": LEVELS},
        trainer("JumpReluAutoEncoder"),
        "jumprelu",
        threshold(LEVELS, centred=False),
    ),
    "jumprelu-alone": Layout(
        "ae.pt",
        {**MATRICES, "threshold": LEVELS},
        None,
        "jumprelu",
        threshold(LEVELS, centred=False),
    ),
    "topk": Layout(
        "ae.pt", {**TOPK, "threshold": LEARNED}, trainer("AutoEncoderTopK", k=K), "topk", topk()
    ),
    "topk-alone": Layout("ae.pt", TOPK, None, "topk", topk()),
    "topk-unlearned": Layout("ae.pt", {**TOPK, "threshold": UNLEARNED}, None, "topk", topk()),
    "topk-of-2024": Layout(
        "ae.pt", {**MODULES, "b_dec": B}, trainer("AutoEncoderTopK", k=K), "topk", topk()
    ),
    "batch-topk": Layout(
        "ae.pt",
        {**TOPK, "threshold": LEARNED},
        trainer("BatchTopKSAE", k=K),
        "jumprelu",
        threshold(np.full(FEATURES, LEVEL), centred=True),
    ),
    "matryoshka": Layout(
        "ae.pt",
        {**MATRICES, "k": COUNT, "threshold": LEARNED, "group_sizes": np.array([3, 6])},
        trainer("MatryoshkaBatchTopKSAE", k=K),
        "jumprelu",
        threshold(np.full(FEATURES, LEVEL), centred=True),
    ),
    # SAELens
    "sl-standard": Layout(WEIGHTS, MATRICES, saelens("standard"), "relu", relu()),
    "sl-uncentred": Layout(
        WEIGHTS,
        MATRICES,
        saelens("standard", apply_b_dec_to_input=False),
        "relu",
        relu(centred=False),
    ),
    "sl-gated": Layout(WEIGHTS, GATED, saelens("gated"), "gated", gated()),
    "sl-gated-uncentred": Layout(
        WEIGHTS,
        GATED,
        saelens("gated", apply_b_dec_to_input=False),
        "gated",
        gated(centred=False),
    ),
    "sl-jumprelu": Layout(
        WEIGHTS,
        {**MATRICES, "threshold": LEVELS},
        saelens("jumprelu"),
        "jumprelu",
        threshold(LEVELS, centred=True),
    ),
    "sl-jumprelu-uncentred": Layout(
        WEIGHTS,
        {**MATRICES, "threshold": LEVELS},
        saelens("jumprelu", apply_b_dec_to_input=False),
        "jumprelu",
        threshold(LEVELS, centred=False),
    ),
    "sl-topk": Layout(WEIGHTS, MATRICES, saelens("topk", k=K), "topk", topk()),
    "sl-topk-rescaled": Layout(
        WEIGHTS,
        MATRICES,
        saelens("topk", k=K, rescale_acts_by_decoder_norm=True),
        "topk",
        topk(norms=NORMS),
        UNIT,
    ),
    "sl-old": Layout(
        WEIGHTS,
        {**MATRICES, "scaling_factor": np.ones(FEATURES)},
        old_saelens(),
        "relu",
        relu(),
    ),
    "sl-old-topk": Layout(WEIGHTS, MATRICES, old_saelens(**TOPK_OLD), "topk", topk()),
    "sl-old-centring-unsaid": Layout(
        WEIGHTS,
        {**MATRICES, "threshold": LEVELS},
        {k: v for k, v in old_saelens().items() if k != "apply_b_dec_to_input"}
        | {"architecture": "jumprelu"},
        "jumprelu",
        threshold(LEVELS, centred=True),
    ),
}


def check(found: Dictionary, layout: Layout) -> None:
    """Features and reconstructions are the layout's own."""
    assert (found.kind, found.n_features, found.d_model) == (layout.kind, FEATURES, WIDTH)
    x = torch.from_numpy(X).float()
    expected = [layout.slow(row) for row in X]
    assert 0.1 < np.mean(np.array(expected) != 0) < 0.9
    np.testing.assert_allclose(found.encode(x).numpy(), expected, rtol=0, atol=2e-5)
    rebuilt = [decoded(f, layout.decoder) for f in expected]
    np.testing.assert_allclose(found.decode(found.encode(x)).numpy(), rebuilt, rtol=0, atol=1e-4)


def zipped(folder: Path, archive: Path, prefix: str) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, prefix + path.name)
        file.writestr("README.md", "not a dictionary")
    return archive
