"""What edges between features cost, against one autograd call a target and against arithmetic.

    python -m benchmarks.features [--quick] [--device cuda] [--threads 2]

Sizes, dictionaries and prompts are those of `benchmarks.features_ablation`, whose line comes last.
The patch differs in the first of 15 random tokens, so that every position moves, and 512 active
features of the stream after layer 3 are the targets. Both sides run in this process.

`feature_edges` is our time in times of one autograd call a target: the oracle's forward is shared
by all targets and steps, it encodes the target's feature alone and takes products with the active
sources only. The goal is an eighth. `feature_edges_floor` is our time in times of the multiply-adds
of the position-sparse pull-back at the rate of a matrix product of this run: for each target and
step that it is on at, the MLP, W_O and the query at its position, keys and values at those up to
it; then, once, the sources' decoder rows there. `ratio_to_own` counts queries, keys and values once
for all steps, as we do.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.attribution import LENGTH, random_batch
from benchmarks.features_ablation import (
    N_VOCAB,
    measure_ablation,
    pythia_sized,
    random_dictionaries,
)
from benchmarks.timing import median_s, report
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import Completeness, Contributions, EdgeSettings, contributions
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import NodeAttribution, attribute_nodes
from edgesweep.engine.features.values import make_feature_patch
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.tasks import Prompt

TARGET, PARENT, METRIC = "resid3", "resid2", "logit_diff"
N_TARGETS, STEPS = 512, 5


def first_token_differs() -> PromptBatch:
    """One prompt of random tokens."""
    draw = torch.Generator().manual_seed(0)
    clean = torch.randint(10, 40_000, (LENGTH + 1,), generator=draw).tolist()
    patch = (clean.pop(), *clean[1:])
    end = {"end": LENGTH - 1}
    return PromptBatch.make([Prompt(tuple(clean), patch, (5,), (6,), "random", "t", end, "", "")])


@dataclass
class Edges:
    """Both sides of the comparison, for one lot of targets of one input."""

    ends: FeatureBatch
    nodes: NodeAttribution
    settings: EdgeSettings

    @classmethod
    def of(cls, model: Model) -> "Edges":
        batch = first_token_differs()
        features = FeatureModel(model, random_dictionaries(model, batch))
        ends = FeatureBatch.of(features, batch, make_feature_patch("counterfactual"))
        a_row = 2 * model.row_bytes(1) + LENGTH * model.d_model * 4
        settings = EdgeSettings(STEPS, contracted=False, micro_bytes=N_TARGETS * STEPS * a_row)
        return cls(ends, attribute_nodes(ends, METRIC, steps=STEPS), settings)

    def ours(self) -> Contributions:
        """The first lot of targets, with all that is made for the site before it."""
        lots = contributions(self.ends, self.nodes, METRIC, self.settings, 0, TARGET)
        found = next(lots)
        assert isinstance(found, Contributions)
        assert isinstance(next(lots), Completeness)
        return found

    def oracle(self, lot: Contributions) -> Tensor:
        """One autograd call a target."""
        features, sources = self.ends.features, self._sources(lot)
        weights = sources.new_tensor([weight for _, weight in points("midpoint", STEPS)])
        leaf, x = self._along()
        out = []
        for node, p in zip(lot.node[:, None], lot.position.tolist(), strict=True):
            f = features.dictionary(TARGET).encode_some(x[:, p], node)[:, 0]
            gradient = torch.autograd.grad(f @ weights, leaf, retain_graph=True)[0].sum(0)
            out.append((gradient[lot.source_position] * sources).sum(-1))
        return torch.stack(out)

    def _sources(self, lot: Contributions) -> Tensor:
        """What every source moved by, as a vector."""
        ends, dictionary = self.ends, self.ends.features.dictionary(PARENT)
        out = (ends.clean.error(PARENT) - ends.patch.error(PARENT))[0, lot.source_position]
        some = lot.source < dictionary.n_features
        delta = [
            values.features(PARENT, lot.source[some])[0, lot.source_position[some]].diagonal()
            for values in (ends.clean, ends.patch)
        ]
        out[some] = dictionary.decoder[lot.source[some]] * (delta[0] - delta[1])[:, None]
        return out

    def multiply_adds(self, lot: Contributions) -> tuple[int, int]:
        """Of the position-sparse pull-back; and of ours, which sums over steps on the way."""
        model, dictionary = self.ends.features.model, self.ends.features.dictionary(TARGET)
        d, wide = model.d_model, model.hf.config.intermediate_size
        on = (dictionary.slopes(self._along()[1])[:, lot.position, lot.node] != 0).sum(0)
        at_position = int(on.sum()) * (2 * d * wide + d * d)
        through_ports = ((2 * lot.position + 3) * d * d).double()
        assert lot.source_position is not None
        sources = int((lot.source_position <= lot.position[:, None]).sum()) * d
        every, once = (int((times * through_ports).sum()) for times in (on, on > 0))
        return at_position + every + sources, at_position + once + sources

    def _along(self) -> tuple[Tensor, Tensor]:
        """The parent at all steps, and the target's site there."""
        ts = [t for t, _ in points("midpoint", STEPS)]
        leaf = self.ends.path(PARENT, self.ends.inputs.embed.new_tensor(ts), 0).requires_grad_()
        rows = torch.zeros(STEPS, dtype=torch.long, device=leaf.device)
        return leaf, self.ends.features.segment(TARGET, {PARENT: leaf}, self.ends.inputs, rows)


def multiply_adds_a_second(device: torch.device) -> float:
    """Rate of a product of the pull-back's shape."""
    left, right = (torch.randn(*shape, device=device) for shape in ((2560, 512), (512, 2048)))
    return 2560 * 512 * 2048 / median_s(lambda: left @ right, 20)


def measure_edges(model: Model, repeats: int) -> None:
    """Two lines: against the oracle, and against arithmetic."""
    edges = Edges.of(model)
    lot = edges.ours()
    slow, found = edges.oracle(lot), lot.values
    error = float((found - slow).abs().max() / slow.abs().max())
    ours = median_s(edges.ours, repeats)
    about: dict[str, Any] = {
        "targets": len(lot.node),
        "sources": len(lot.source),
        "steps": STEPS,
        "relative_error": error,
        "threads": torch.get_num_threads(),
    }
    oracle = median_s(lambda: edges.oracle(lot), 1)
    report("feature_edges", ours, oracle, 1 / 8, times_faster=round(oracle / ours, 2), **about)
    rate = multiply_adds_a_second(model.device)
    floor, own = (n / rate for n in edges.multiply_adds(lot))
    about |= {"ratio_to_own": round(ours / own, 3), "multiply_adds_a_s": f"{rate:.3g}"}
    report("feature_edges_floor", ours, floor, 3.0, **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat, indicative")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = pythia_sized(args.device)
    measure_edges(model, 1 if args.quick else 5)
    measure_ablation(model, random_batch(4, N_VOCAB), 1 if args.quick else 3)


if __name__ == "__main__":
    main()
