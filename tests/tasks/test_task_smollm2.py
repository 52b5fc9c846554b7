"""The demo's model can do the built-in tasks: else its circuits would be circuits of nothing."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from edgesweep.tasks import build_task

# Measured on 64 evaluation prompts, seed 0: accuracy 1.00, 1.00, 0.97; logit difference 5.1, 4.0,
# 4.2 on clean and -0.1, -2.1, -3.7 on patch.
FLOORS = {"ioi": 0.9, "greater_than": 0.9, "agreement": 0.85}


@pytest.fixture(scope="module")
def model(smollm2_file):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield AutoModelForCausalLM.from_pretrained(
        smollm2_file.parent, gguf_file=smollm2_file.name, dtype=torch.float32
    )
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("task", FLOORS)
def test_smollm2_does_the_task_and_the_patch_undoes_it(task, model, smollm2):
    prompts = build_task(task, smollm2, 0, 32, seed=0).evaluation
    clean = [_logit_difference(model, prompt.clean, prompt) for prompt in prompts]
    patch = [_logit_difference(model, prompt.patch, prompt) for prompt in prompts]
    accuracy = sum(difference > 0 for difference in clean) / len(clean)
    assert accuracy >= FLOORS[task]
    assert sum(clean) / len(clean) > 2
    assert sum(patch) / len(patch) < 0.5


@torch.no_grad()
def _logit_difference(model, ids, prompt) -> float:
    logits = model(torch.tensor([ids])).logits[0, -1]
    return (logits[list(prompt.good)].mean() - logits[list(prompt.bad)].mean()).item()
