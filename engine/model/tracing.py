"""The model under nnsight: tracing and interventions by hand, and the reference for our own run.

The engine's inner loops read the same modules directly, because a trace costs Python time for every
value it saves (benchmarks/nnsight_overhead.py); tests/model pins the two to each other.
"""

from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Int
from nnsight import NNsight
from torch import Tensor

from edgesweep.engine.network import Model
from edgesweep.engine.network.architectures import ARCHITECTURES


def traced(model: Model) -> Any:
    """A model under nnsight; `with traced(model).trace(tokens): …` reads and writes any module's
    values."""
    return NNsight(model.hf)


def _at(envoy: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), envoy)


@torch.no_grad()
def traced_nodes(
    under: Any, tokens: Int[Tensor, "inputs positions"], real: Bool[Tensor, "inputs positions"]
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """What the nodes of a model `under` nnsight (`traced`) computed, by nnsight alone.

    Returns:
        Per layer the heads' outputs before W_O `[inputs, positions, heads * d_head]`, per layer the
        MLP's output (after its post-norm, where there is one), and all logits.
    """
    hf = under._module
    arch = ARCHITECTURES[hf.config.model_type]
    positions = (real.long().cumsum(-1) - 1).clamp(min=0)
    heads, mlps = [], []
    with under.trace(tokens, attention_mask=real.long(), position_ids=positions):
        for layer in _at(under, f"{arch.stack}.{arch.layers}"):
            heads.append(_at(layer, f"{arch.attention}.{arch.output}").input.save())
            mlps.append(_at(layer, arch.post_mlp or arch.mlp).output.save())
        logits = under.output.logits.save()
    return heads, mlps, logits
