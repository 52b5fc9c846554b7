"""Attribution methods: one a file, one signature (`base.Method`)."""

from edgesweep.engine.methods.acdc import ACDC, EAP_ACDC
from edgesweep.engine.methods.base import Attribution, Method, MethodError, Passes, Settings
from edgesweep.engine.methods.eap import (
    EdgeAttributionAtBoth,
    EdgeAttributionAtPatch,
    EdgeAttributionPatching,
)
from edgesweep.engine.methods.exact import EXACT, NODE_EXACT
from edgesweep.engine.methods.given import Given
from edgesweep.engine.methods.hisp import HeadImportance
from edgesweep.engine.methods.ig_activations import (
    IntegratedGradientsActivations,
    IntegratedGradientsActivationsJoint,
)
from edgesweep.engine.methods.ig_inputs import IntegratedGradientsInputs
from edgesweep.engine.methods.nodes import NodeAttributionPatching, NodeIntegratedGradients
from edgesweep.engine.methods.random_order import RandomOrder
from edgesweep.engine.methods.relp import RELP, RELP_QK

#: name -> method, in the order in which they are listed
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        EdgeAttributionPatching(),
        EdgeAttributionAtPatch(),
        EdgeAttributionAtBoth(),
        RELP,
        RELP_QK,
        IntegratedGradientsInputs(),
        IntegratedGradientsActivations(),
        IntegratedGradientsActivationsJoint(),
        EXACT,
        ACDC,
        EAP_ACDC,
        NodeAttributionPatching(),
        NodeIntegratedGradients(),
        NODE_EXACT,
        HeadImportance(),
        RandomOrder(),
        Given(),
    )
}

__all__ = ["METHODS", "Attribution", "Method", "MethodError", "Passes", "Settings"]
