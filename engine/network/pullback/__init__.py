"""From cotangents of a target at single positions to those of its parents, at all steps at once.

A target (feature, position p) is one linear function of the target site's value at p, so its
cotangent g lives at p alone. Walking back through a section (see `engine.network.sections`):

1. In the top layer g stays at p until the attention: the MLP, the output map W_O and the residual
   path are pulled back at p only. A parent that writes there (an `attn` or `mlp` site) receives
   what the stream holds at p.
2. Attention carries it from query p to keys and values at q ≤ p (`engine.network.attention`).
3. In layers below, if the segment has any, the cotangent is dense over q ≤ p. Positions with few
   targets go there together: reaching further than some need costs less than as many calls.

What depends on the network alone is had once a step and shared by all targets: the points that the
MLP is linearised at, and the tables of attention. Targets are a batch dimension of the backward.
Steps are summed as soon as the rest of the way is the same for all of them; cotangents carry the
weights of the quadrature. Pinned by tests/features/test_pullback.py to autograd through `segment`.
"""

from edgesweep.engine.network.pullback.places import AtPositions
from edgesweep.engine.network.pullback.slopes import SegmentSlopes, groups

__all__ = ["AtPositions", "SegmentSlopes", "groups"]
