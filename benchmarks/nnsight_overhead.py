"""What reading every node through nnsight costs beside reading the same modules directly.

    python -m benchmarks.nnsight_overhead [--quick]

Both sides compute every head's output before W_O, every MLP's output and the logits, in this
process. The engine uses the direct way in its inner loops; tests/model pins the two to each other.
"""

import argparse

import torch

from benchmarks.attribution import random_batch
from benchmarks.timing import median_s, report
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.model.tracing import traced, traced_nodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batch 4 alone")
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = load_model(resolve_model("smollm2-135m"))
    under = traced(model)
    for n_inputs in (4,) if args.quick else (1, 16):
        batch = random_batch(n_inputs, 40_000)

        @torch.no_grad()
        def direct(batch=batch) -> None:
            model.run(model.prepare(batch.clean, batch.real))

        direct_s = median_s(direct, 5)
        traced_s = median_s(lambda b=batch: traced_nodes(under, b.clean, b.real), 5)
        about = {"model": model.name, "batch": n_inputs, "nnsight_s": round(traced_s, 4)}
        report("direct_over_nnsight", direct_s, traced_s, 1.0, **about)


if __name__ == "__main__":
    main()
