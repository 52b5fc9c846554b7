"""Tiny models and prompts that tests share."""

import random

import pytest
import torch

from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.tasks import Prompt

FAMILIES = tuple(ARCHITECTURES)

#: layers one after another, side by side, and with norms after them; the others are slow tests,
#: where an oracle takes seconds a family
ORACLE_FAMILIES = [
    pytest.param(family, marks=[] if family in ("gpt2", "gpt_neox", "gemma2") else pytest.mark.slow)
    for family in FAMILIES
]

#: families whose own code computes its norms in float32 whatever the dtype
FLOAT32_NORMS = ("gemma2", "gemma3_text")


def prompts(n: int, lengths: tuple[int, ...] = (7, 5, 6), seed: int = 0) -> list[Prompt]:
    """Random prompts; clean and patch differ in two tokens."""
    draw = random.Random(seed)
    return [_prompt(draw, lengths[i % len(lengths)], i) for i in range(n)]


def _prompt(draw: random.Random, length: int, number: int) -> Prompt:
    clean = [draw.randrange(1, 64) for _ in range(length)]
    patch = list(clean)
    for position in draw.sample(range(length), 2):
        patch[position] = draw.randrange(1, 64)
    answers = draw.sample(range(1, 64), 3)
    return Prompt(
        clean=tuple(clean),
        patch=tuple(patch),
        good=tuple(answers[:1]),
        bad=tuple(answers[1:]),
        task="random",
        template=f"t{number % 2}",
        labels={"end": length - 1},
        clean_text="",
        patch_text="",
    )


def model_and_batch(
    family: str, *, n: int = 3, side: str = "right", dtype: torch.dtype = torch.float32, **sizes
) -> tuple[Model, PromptBatch]:
    """A tiny model and a padded batch for it."""
    return tiny_model(family, dtype=dtype, **sizes), PromptBatch.make(prompts(n), side=side)


def assert_agree(ours: torch.Tensor, oracle: torch.Tensor, rtol: float) -> None:
    """max|a − b| ≤ rtol · max|b|, row by row (the design page's equality)."""
    ours, oracle = torch.as_tensor(ours).double(), torch.as_tensor(oracle).double()
    assert ours.shape == oracle.shape
    error = (ours - oracle).abs().flatten(1).amax(1)
    scale = oracle.abs().flatten(1).amax(1)
    assert bool((error <= rtol * scale).all()), f"relative errors {(error / scale).tolist()}"
