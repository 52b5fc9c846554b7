"""The section of a config that is about block models."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from edgesweep.sweeps.config.fields import AXIS, Section, one_of, within
from edgesweep.sweeps.config.schema import METHODS

#: what a shuffle of a circuit keeps the degrees of
SHUFFLED = ("nodes", "ports")


def _one_or_more(value: float) -> float:
    if value < 1:
        raise ValueError("is out of range; allowed: 1 or more")
    return value


class Blocks(Section):
    """Block models: of each cell's circuit whose number of edges is nearest to `n_edges`.

    `method` restricts them to the cells of some methods. A block is labelled by the task that has
    at least `margin` times the attribution of the next in it, else `shared`. What is found stands
    beside what would be without structure: `shuffles` random graphs with the degrees and the order
    of the circuit, of its nodes and of its ports (`keep`); and with `halves` block models of the
    circuits that either half of the build prompts gives. `draws`: how often block ablation is also
    run with blocks of random nodes, as many of each kind.
    """

    fit: Annotated[str, one_of("nested", "flat", "none")] = "none"
    degree_corrected: bool = True
    chains: Annotated[int, within(1, 1000)] = 4
    n_edges: Annotated[int, within(1)] = 1000
    method: Annotated[tuple[Annotated[str, one_of(*METHODS)], ...], AXIS] = tuple(METHODS)
    n_iter: Annotated[int, within(1)] = 10
    patience: Annotated[int, within(1)] = 20
    max_rounds: Annotated[int, within(1)] = 1000
    margin: Annotated[float, AfterValidator(_one_or_more)] = 1.5
    shuffles: Annotated[int, within(0, 10**5)] = 20
    keep: Annotated[tuple[Annotated[str, one_of(*SHUFFLED)], ...], AXIS] = SHUFFLED
    halves: bool = True
    draws: Annotated[int, within(0, 1000)] = 3
