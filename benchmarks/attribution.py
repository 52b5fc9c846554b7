"""What attribution and ablated evaluation cost, in forwards of Hugging Face's own model.

    python -m benchmarks.attribution [--quick] [--device cuda]

Both sides run in this process, one after the other. `forward` is the model's own forward with all
logits; `forward_backward` the same with the gradient of the logit difference to the embeddings,
weights frozen; relp is compared with eap. Prompts are 15 random tokens; a circuit is the top of
EAP's own ranking. Of ablated evaluations the bytes that they move stand beside the time
(`benchmarks.traffic`).
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from benchmarks.timing import median_s, quartiles, ratios, report
from benchmarks.traffic import copy_rate, moved_bytes
from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.graph import select
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.metrics import logit_diff
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import make_patch
from edgesweep.tasks import Prompt

LENGTH, STEPS, N_CIRCUITS = 15, 5, 16


def random_batch(n_inputs: int, n_vocab: int) -> PromptBatch:
    draw = np.random.default_rng(0)

    def prompt() -> Prompt:
        clean = draw.integers(10, n_vocab, LENGTH).tolist()
        patch = [*clean[:5], int(draw.integers(10, n_vocab)), *clean[6:]]
        return Prompt(
            tuple(clean), tuple(patch), (5,), (6,), "random", "t", {"end": LENGTH - 1}, "", ""
        )

    return PromptBatch.make([prompt() for _ in range(n_inputs)])


def gpt2_small_sized() -> Model:
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(GPT2Config(), attn_implementation="sdpa")
    return Model(hf, "gpt2-small-sized")


def measure(model: Model, batch: PromptBatch, repeats: int) -> None:
    tokens = batch.clean.to(model.device)
    patch = make_patch("counterfactual")

    @torch.no_grad()
    def forward() -> None:
        model.hf(tokens, use_cache=False)

    def forward_backward() -> None:
        embeds = model.hf.get_input_embeddings()(tokens).detach().requires_grad_()
        logits = model.hf(inputs_embeds=embeds, use_cache=False).logits[:, -1]
        torch.autograd.grad(logit_diff(logits, batch).sum(), embeds)

    def attribute(method: str) -> np.ndarray:
        result = METHODS[method].attribute(model, batch, patch, "logit_diff", Settings(steps=STEPS))
        return result.scores.double().mean(0).cpu().numpy()

    def evaluate(masks: np.ndarray) -> None:
        inputs = model.prepare(batch.clean, batch.real)
        ablated_logits(model, inputs, patch.values(model, batch, inputs), masks)

    time: Callable[[Callable[[], object]], float] = partial(median_s, repeats=repeats)
    one, both = time(forward), time(forward_backward)
    about = {
        "model": model.name,
        "batch": len(batch),
        "threads": torch.get_num_threads(),
        "n_edges": model.graph.n_edges,
        "forward_s": round(one, 4),
        "forward_backward_s": round(both, 4),
    }
    eap = time(lambda: attribute("eap"))
    report("eap", eap, one + both, 1.6, **about)
    report("relp", time(lambda: attribute("relp")), eap, 1.25, **about)
    report(
        "ig_inputs",
        time(lambda: attribute("ig_inputs")),
        2 * one + STEPS * both,
        1.5,
        steps=STEPS,
        **about,
    )
    scores, n_edges = attribute("eap"), model.graph.n_edges
    sizes = np.unique(np.geomspace(10, n_edges, N_CIRCUITS).astype(int))
    masks = np.stack([select(scores, "topk_abs", int(k)) for k in sizes])
    half = select(scores, "topk_abs", n_edges // 2)[None]
    single = partial(evaluate, half)
    kept = {"kept_edges": n_edges // 2, "batch": len(batch), "threads": torch.get_num_threads()}
    _report_in_turn("one_circuit", single, forward, 2.6, 2 * repeats + 1, kept, model.device)
    about_many = {**kept, "sizes": sizes.tolist()}
    _report_in_turn(
        "16_circuits", partial(evaluate, masks), single, 7.0, repeats, about_many, model.device
    )


def _report_in_turn(
    name: str,
    cost: Callable[[], object],
    unit: Callable[[], object],
    goal: float,
    repeats: int,
    about: dict[str, object],
    device: torch.device,
) -> None:
    """One JSON line: the median ratio of both sides run in turn with its quartiles, what both move,
    and the rate of that beside the machine's."""
    found, moved, moved_unit = ratios(cost, unit, repeats), moved_bytes(cost), moved_bytes(unit)
    seconds = median_s(cost, 3)
    line = {
        "name": name,
        "ratio": quartiles(found)[1],
        "goal": goal,
        "quartiles": quartiles(found),
        "cost_s": round(seconds, 4),
        "moved_gb": round(moved / 1e9, 2),
        "unit_moved_gb": round(moved_unit / 1e9, 2),
        "gb_a_s": round(moved / 1e9 / seconds, 1),
        "copy_gb_a_s": round(copy_rate(device) / 1e9, 1),
    }
    print(json.dumps(line | about), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="SmolLM2 alone, batch 4, indicative")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n_inputs, repeats = (4, 3) if args.quick else (16, 5)
    model = load_model(resolve_model("smollm2-135m"), device=args.device)
    measure(model, random_batch(n_inputs, 40_000), repeats)
    if not args.quick:
        measure(gpt2_small_sized(), random_batch(n_inputs, 40_000), repeats)


if __name__ == "__main__":
    main()
