"""Relevance patching (Jafari et al. 2025, arXiv 2508.21258): EAP with relevance
coefficients in the place of gradients.

    score(u, v) = Σ_positions ⟨u_clean − u_patch, coefficient of the stream read by v⟩

The coefficients are those of λ in the clean run under the rules of `engine.network.relevance`:
norms' scales are held, an activation is f(z)/z times its input, a gate gives half to each side.

    relp      attention patterns are held too, so that edges into queries and keys score 0: what
              matters is what is moved, not where to
    relp_qk   patterns are differentiated, the default of the published code, so that queries and
              keys have scores

The metric keeps its gradient, so that those that are flat at the clean run are refused, as by eap.

Cost: patch values, one forward and one backward, eap's. Pinned by tests/methods/test_relp.py (one
edge, one autograd call at a time; conservation).
"""

from edgesweep.engine.methods.eap import EdgeAttributionPatching
from edgesweep.engine.network.relevance import Relevance

RELP = EdgeAttributionPatching(
    name="relp",
    summary="relevance patching: EAP with relevance coefficients, attention patterns held",
    source="Jafari et al. 2025",
    rules=Relevance(),
)
RELP_QK = EdgeAttributionPatching(
    name="relp_qk",
    summary="relevance patching with attention patterns differentiated",
    source="Jafari et al. 2025, the default of the published code",
    rules=Relevance(patterns_held=False),
)
