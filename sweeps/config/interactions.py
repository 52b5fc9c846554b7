"""The sections of a config on interaction graphs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import field_validator, model_validator

from edgesweep.sweeps.config.fields import AXIS, NotNegative, Positive, Section, one_of
from edgesweep.sweeps.config.fields import within as whole_within

#: bases of node layers, as `sweep.nodes` names them
BASES = ("lib", "gib", "pca")
SCORES = ("accuracy", "nll")


class BasisCut(Section):
    """Which directions are too small to keep: of variance, and of importance (Λ), relative to the
    largest unless `relative` is false."""

    variance: NotNegative = 1e-12
    importance: NotNegative = 1e-12
    relative: bool = True


class Bases(Section):
    """Bases of a network's node layers, for `sweep.nodes` lib, gib, pca.

    `layers`: `auto` for all cuts (of an MLP `input`, `hidden0`, …, `logits`; of a transformer
    `embed`, `mid0`, `resid0`, …, `logits`), or some of them in forward order. `rotate_last`:
    whether the last layer has a basis of its own; `auto`: unless it is the logits. `sources`: so
    many random signs stand for the positions of an attention section, 0 for each by itself.
    `norms`: `split` for two more layers at each norm, after `resid0` its `resid0.var` and
    `resid0.normed`, all of whose sections have closed forms. `isolate`: whether the variance that a
    split norm divides by is a direction by itself. `n_jacobian`: of each task's
    build prompts, those that Jacobians and interactions are of; means and second moments are always
    of all. `positions`: `read` for the answer's alone in
    layers that no attention follows, or `all`; with `all` nll is that of every next token.
    """

    layers: Any = "auto"
    cut: BasisCut = BasisCut()
    rotate_last: Annotated[Any, one_of("auto", True, False)] = "auto"
    sources: Annotated[int, whole_within(0, 10**4)] = 0
    norms: Annotated[str, one_of("whole", "split")] = "whole"
    isolate: bool = True
    n_jacobian: Any = "all"
    positions: Annotated[str, one_of("read", "all")] = "read"

    @field_validator("n_jacobian")
    @classmethod
    def _are_some(cls, value: Any) -> Any:
        if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"n_jacobian is {value!r}; allowed: all, or at least 1")
        return value

    @field_validator("layers")
    @classmethod
    def _are_named(cls, value: Any) -> Any:
        if value == "auto":
            return value
        if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
            raise ValueError("is no list of layers; allowed: auto, or names of layers")
        if len(value) < 2:
            raise ValueError("has fewer than two layers; interactions are between layers")
        if twice := next((x for i, x in enumerate(value) if x in value[:i]), None):
            raise ValueError(f"has {twice!r} twice; name each layer once")
        return tuple(value)


class Interactions(Section):
    """What is stored of interactions: of all inputs together, and with `keep_inputs` of each build
    input too, all numbers (`--dry-run` says how much that is)."""

    keep_inputs: bool = False


class EdgesNeeded(Section):
    """How many interactions of a section the network needs: to lose at most `within` of `metric`
    (accuracy, or nll in nats) on the evaluation prompts, by the published bisection, and by
    `points` numbers of edges between which the smallest is searched from which on all suffice.
    `search`: `bisect` for both, to the last edge, or `grid` for the latter alone, which is then at
    most 5% too large. `sections`: `each` by itself, all others left as they are, or besides these
    `all` at once."""

    metric: Annotated[str, one_of(*SCORES)] = "accuracy"
    within: Positive = 0.001
    points: Annotated[int, whole_within(2, 1000)] = 12
    search: Annotated[str, one_of("bisect", "grid")] = "bisect"
    sections: Annotated[str, one_of("each", "all")] = "each"

    @model_validator(mode="after")
    def _a_share_of_answers(self) -> EdgesNeeded:
        if self.metric == "accuracy" and self.within > 1:
            raise ValueError(f"within is {self.within:g}; of accuracy allowed: at most 1")
        return self


class Modules(Section):
    """Modules of each interaction graph, of the interactions that the published search needs, or
    the robust rule where that alone is asked for: Leiden's at each `resolution`, the best of
    `seeds`, beside those of `rewired` graphs with the same degrees; with `sbm` also a weighted
    block model, the shortest of `chains`."""

    leiden: bool = True
    resolution: Annotated[tuple[Positive, ...], AXIS] = (1.0, 0.5)
    seeds: Annotated[int, whole_within(1, 1000)] = 10
    rewired: Annotated[int, whole_within(0, 10**4)] = 20
    sbm: bool = False
    chains: Annotated[int, whole_within(1, 1000)] = 4
