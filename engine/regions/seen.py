"""What a region sees: how an input makes its attribution.

A region's attribution to an output is Σ_{j∈r} (f_j − f′_j) s_j, s the mean slope along the site's
path (`site`). With s held, number p of an input x makes

    x_p ∂/∂x_p Σ_{j∈r} s_j f_j(x)

of it: the gradient times the input (Shrikumar et al. 2017), whose sum over p is the region's
attribution from a zero patch where all before the site is linear but for its kinks, and without
biases. tests/regions/test_seen.py pins it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgesweep.engine.network import PromptBatch
from edgesweep.engine.regions.site import MICRO_BATCH, UnitSite
from edgesweep.tasks import Example


def seen(site: UnitSite, examples: Sequence[Example], cotangents: Tensor) -> Tensor:
    """What each number of an input makes of a weighted sum of the site's, `[inputs, *shape]`.

    Args:
        cotangents: the weights, s of a region's units and 0 elsewhere, `[inputs, width]`.
    """
    parts = []
    for start in range(0, len(examples), MICRO_BATCH):
        batch = PromptBatch.make(examples[start : start + MICRO_BATCH])
        x = batch.clean.to(site.network.device, site.network.dtype).requires_grad_()
        with torch.enable_grad():
            found = site.network.run(site.network.prepare(x, batch.real)).values[site.name][:, 0]
            weighted = (found * cotangents[start : start + len(x)]).sum()
        parts.append((x * torch.autograd.grad(weighted, x)[0]).detach())
    return torch.cat(parts)
