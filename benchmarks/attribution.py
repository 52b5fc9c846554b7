"""What attribution and ablated evaluation cost, in forwards of Hugging Face's own model.

    python -m benchmarks.attribution [--quick] [--device cuda]

Both sides run in this process, one after the other. `forward` is the model's own forward with all
logits; `forward_backward` the same with the gradient of the logit difference to the embeddings,
weights frozen; relp is compared with eap. Prompts are 15 random tokens; a circuit is the top of
EAP's own ranking.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from benchmarks.timing import median_s, report
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
    single = time(lambda: evaluate(half))
    report("one_circuit", single, one, 3.0, kept_edges=n_edges // 2, **about)
    report(
        "16_circuits", time(lambda: evaluate(masks)), single, 12.0, sizes=sizes.tolist(), **about
    )


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
