"""Sets of dictionaries that tests choose."""

import torch

from edgesweep.engine.dictionaries.base import Relu
from edgesweep.engine.model import resolve_model
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.granularity.featuresets import FeatureSet, feature_set
from tests.sweeps.helpers import tiny

WIDTH = 32  # of tiny-random
TRAINED = {"kind": "topk", "features": 32, "k": 4, "steps": 10, "prompts": 4}


def config(dictionaries=None, **changes) -> dict:
    sections = {
        "sweep": {"nodes": "features", "method": "ig_activations", "steps": 1},
        "features": {"dictionaries": {"embed": "identity"}, "keep": 100, "edges": 200},
        "evaluate": {"threshold": 5, "ablation": "edge"},
    }
    if dictionaries is not None:
        changes["features"] = {**changes.get("features", {}), "dictionaries": dictionaries}
    names = {*sections, *changes}
    return tiny(**{s: {**sections.get(s, {}), **changes.get(s, {})} for s in names})


def chosen(dictionaries) -> FeatureSet:
    parsed = parse_config(config(dictionaries))
    return feature_set(parsed, "features", "tiny-random", resolve_model("tiny-random"), ["prompts"])


def relu(seed: int = 0, *, n: int = 5, width: int = WIDTH) -> Relu:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, width, generator=draw)
    return Relu(rows, torch.zeros(n), rows.clone(), torch.zeros(width))
