"""What searches for sizes and circuits of other build prompts cost, beside what they stand for.

    python -m benchmarks.measures [--prompts 16] [--threads 1]

SmolLM2-135M on prompts of ioi, EAP's scores, counterfactual patches, KL divergence. Both sides run
in this process and are told in CPU seconds (`_s`). Lines:

    reach          two levels searched for together between a grid of thresholds, over each of the
                   circuits that it asked for in a run of its own
    reach_halving  the same over bisecting for either level alone, one circuit a run (no goal)
    rebuild        ranking five resamples of the prompts anew and running their circuits, over
                   running the curve that they are of
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.timing import report
from edgesweep.engine.evaluation import evaluate_circuits, evaluate_reference, faithfulness
from edgesweep.engine.graph import selections
from edgesweep.engine.measures import resamples
from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.patches import make_patch
from edgesweep.engine.statistics.search import Halving, ask, bracket, cheapest
from edgesweep.sweeps.stages.rebuild import aggregated
from edgesweep.tasks import build_task

LEVELS, REBUILT = (0.8, 0.95), 5
GRID = tuple(int(size) for size in np.geomspace(10, 10_000, 10).round())


class Curve:
    """φ of circuits of one ranking, by size; `cpu_s` is what they took."""

    def __init__(self, model: Model, build: PromptBatch, batch: PromptBatch) -> None:
        self.model, self.batch, self.patch = model, batch, make_patch("counterfactual")
        eap = METHODS["eap"].attribute(model, build, self.patch, "logit_diff", Settings())
        self.scores = eap.scores.float().numpy()
        self.means = self.scores.astype(np.float64).mean(0)
        sides = evaluate_reference(model, batch, self.patch, ["kl"])
        self.full, self.empty = (float(side["kl"].mean()) for side in sides)

    def run(self, scores: np.ndarray, sizes: list[int] | tuple[int, ...]) -> list[float]:
        """All circuits in one forward."""
        masks = np.stack(list(selections(scores, "topk_abs", sizes)))
        values = evaluate_circuits(self.model, self.batch, masks, self.patch, ["kl"])["kl"]
        return [faithfulness(float(v), self.full, self.empty) for v in values.mean(1)]


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def passes(phi: float, level: float) -> bool:
    return abs(1 - phi) <= 1 - level


def searched(curve: Curve, grid: dict[int, float]) -> tuple[list[list[int]], list[int | None]]:
    """The sizes of each round, and the answers."""
    known, rounds = dict(grid), []
    while True:
        passed = [{s: passes(v, level) for s, v in known.items()} for level in LEVELS]
        brackets = [bracket(of, len(curve.means)) for of in passed]
        if not (sizes := ask(brackets, cheapest(len(LEVELS)))):
            return rounds, [b.passes for b in brackets]
        rounds.append(sizes)
        known |= dict(zip(sizes, curve.run(curve.means, sizes), strict=True))


def halved(curve: Curve, grid: dict[int, float], level: float) -> int:
    """One level by bisection between the thresholds, a circuit a run; how many it took."""
    failing = max((s for s, phi in grid.items() if not passes(phi, level)), default=0)
    above = min((s for s in grid if s > failing), default=len(curve.means))
    search, passed = Halving(failing, above), dict[int, bool]()
    while sizes := search.ahead(passed, 1):
        (phi,) = curve.run(curve.means, sizes)
        passed[sizes[0]] = passes(phi, level)
    return len(passed)


def measure_reach(curve: Curve, about: dict[str, Any]) -> None:
    grid = dict(zip(GRID, curve.run(curve.means, GRID), strict=True))
    together_s, (rounds, answers) = cpu_s(lambda: searched(curve, grid))
    asked = [size for sizes in rounds for size in sizes]
    alone_s, _ = cpu_s(lambda: [curve.run(curve.means, [size]) for size in asked])
    told = {"answers": answers, "rounds": len(rounds), "circuits": len(asked), **about}
    report("reach", together_s, alone_s, 0.6, **told)
    halving_s, n = cpu_s(lambda: sum(halved(curve, grid, level) for level in LEVELS))
    report("reach_halving", together_s, halving_s, 1.0, circuits_one_by_one=n, **about)


def measure_rebuild(curve: Curve, about: dict[str, Any]) -> None:
    once_s, _ = cpu_s(lambda: curve.run(curve.means, GRID))

    def rebuild() -> None:
        weights = resamples(len(curve.scores), REBUILT, 0)
        for scores in aggregated(weights, [(0, curve.scores)], "mean"):
            curve.run(scores, GRID)

    again_s, _ = cpu_s(rebuild)
    report("rebuild", again_s, once_s, 5.5, resamples=REBUILT, circuits=len(GRID), **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = resolve_model("smollm2-135m")
    model = load_model(source)
    task = build_task("ioi", source.tokenizer(), args.prompts, args.prompts, 0)
    build, batch = (PromptBatch.make(split) for split in (task.build, task.evaluation))
    curve = Curve(model, build, batch)
    curve.run(curve.means, GRID)  # a warm-up
    about = {"model": model.name, "prompts": args.prompts, "n_edges": len(curve.means)}
    measure_reach(curve, about)
    measure_rebuild(curve, about)


if __name__ == "__main__":
    main()
